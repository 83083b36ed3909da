package sched

import (
	"math"
	"time"
)

// Who works. Of the workers that are ready, so many as the pool's size belong to the crew, which runs tasks; the others are spares and
// stand by. Every process has a place (a slot), so there are never more than the size, the spares and, during a restart, one. When
// a worker of the crew leaves or dies, a spare joins at once, and a process is started for the empty place.
//
// A worker retires when it is not wanted any more, or is to be replaced: it gets no more tasks, gives back what it has not started, and is asked
// to stop when it holds nothing. So nothing is interrupted, and nothing that was given back counts as an attempt. Workers that are replaced
// although they could go on (for their age or memory, in a restart) go one after the other, and those that have been idle too: only one that
// has run all its tasks, and could do nothing but wait, goes at once.

// want is how many workers the crew should have.
func (p *Pool) want() int { return p.target - p.asleep }

// extra is how many workers there should be beside the crew.
func (p *Pool) extra() int {
	if p.restarting() {
		return p.cfg.Spares + 1
	}
	return p.cfg.Spares
}

// staff brings the places, the crew and the spares to their numbers. What it finds well it does not look into.
func (p *Pool) staff() {
	if p.rolling && p.old == 0 {
		p.rolled()
	}
	want, extra := p.want(), p.extra()
	for len(p.slots) < want+extra {
		p.vacant.pushBack(&p.addSlot().place)
	}
	for len(p.slots) > want+extra && !p.vacant.empty() {
		p.removeSlot(p.vacant.back.of)
	}
	p.enlist()
	if n := p.crew - p.retiring - want; n > 0 {
		p.thin(n)
	}
	for p.spares > extra {
		p.retire(p.standby.back.of, NotNeeded)
	}
	if p.leaver == nil {
		p.relieve()
		p.enlist() // it may have left already
	}
}

// enlist has spares join the crew as long as it is too small.
func (p *Pool) enlist() {
	for p.crew < p.want() && !p.standby.empty() {
		p.join(p.standby.front.of)
	}
}

// thin retires n workers of the crew: the ones that have been idle for longest, then busy ones.
func (p *Pool) thin(n int) {
	for ; n > 0 && !p.idle.empty(); n-- {
		p.retire(p.idle.back.of, NotNeeded)
	}
	for _, s := range p.slots {
		if w := s.worker; n > 0 && w != nil && w.state == live && !w.spare && w.retiring == NoReason {
			p.retire(w, NotNeeded)
			n--
		}
	}
}

// relieve lets the next worker go whose turn it is. Nobody goes for its age or memory before the replacement of the last one is ready.
func (p *Pool) relieve() {
	switch {
	case p.rolling:
		p.roll()
	case p.crew < p.want():
	case !p.overdue.empty():
		w := p.overdue.front.of
		p.leaver = w
		p.retire(w, w.flaw)
	case p.cfg.MaxIdle > 0 && !p.idle.empty() && p.want() > p.cfg.MinWorkers && p.rester.pos == 0:
		w := p.sleepiest()
		if at := w.since + w.rests; p.now >= at {
			p.asleep++
			p.leaver = w
			p.retire(w, IdleTooLong)
		} else { // one that becomes idle meanwhile may be late by the difference between two draws
			p.alarms.set(&p.rester, at)
		}
	}
}

// sleepiest is the idle worker that will first have been so for long enough; of several the one that has been for longest.
func (p *Pool) sleepiest() *worker {
	first := p.idle.back.of
	for l := p.idle.back.prev; l != nil; l = l.prev {
		if w := l.of; w.since+w.rests < first.since+first.rests {
			first = w
		}
	}
	return first
}

// rouse brings back workers that were stopped because they were idle, as many as there are tasks for, and tells whether there are any.
func (p *Pool) rouse() bool {
	if p.asleep == 0 || p.fair.len() == 0 {
		return false
	}
	n := int(min(p.pending, uint64(p.target)))
	if n <= p.want() {
		return false
	}
	p.asleep = p.target - n
	return true
}

// retire lets w finish the task in hand, and no other. It is asked to stop when it holds nothing, which may be now.
func (p *Pool) retire(w *worker, r Reason) {
	w.retiring = r
	w.flawed.leave()
	if !w.spare {
		p.retiring++
	}
	p.revokeRest(w)
	p.place(w)
}

// join makes a spare one of the crew.
func (p *Pool) join(w *worker) {
	w.spare = false
	p.spares--
	p.crew++
	w.since = p.now
	p.place(w)
}

// outlived says that w should be replaced when it is its turn.
func (p *Pool) outlived(w *worker, flaw Reason) {
	if w.retiring == NoReason && w.flawed.in == nil {
		w.flaw = flaw
		p.overdue.pushBack(&w.flawed)
	}
}

// span gives a worker its share of tasks, time and memory. Each is drawn, so that workers that have begun together, in this pool or in others, do not leave together.
func (p *Pool) span(w *worker) {
	w.left = math.MaxInt
	if n := p.cfg.MaxTasks; n > 0 {
		w.left = n - int(float64(n)*0.1*p.cfg.Rand())
	}
	if age := p.cfg.MaxAge; age > 0 {
		w.expires = p.now + moment(float64(age)*(0.9+0.2*p.cfg.Rand()))
	}
	if idle := p.cfg.MaxIdle; idle > 0 {
		w.rests = moment(float64(idle) * (0.9 + 0.2*p.cfg.Rand()))
	}
	if drain := p.cfg.DrainMemory; drain > 0 {
		w.drain = drain - int64(float64(drain)*0.1*p.cfg.Rand())
	}
}

// aged looks whether w has reached its age, now or later.
func (p *Pool) aged(w *worker) {
	switch {
	case w.expires == 0:
	case p.now >= w.expires:
		w.expires = 0
		p.outlived(w, TooOld)
	default:
		p.wake(&w.alarm, w.expires)
	}
}

// Memory says how much memory a worker has, in bytes. One that has not run anything yet is let be: its replacement would need as much.
func (p *Pool) Memory(now time.Time, id WorkerID, bytes int64) {
	p.clock(now)
	if w := p.workers[id]; w != nil && w.state == live && w.done > 0 && w.drain > 0 && bytes > w.drain {
		p.outlived(w, TookMemory)
	}
}

// Outgrew says that a worker has more memory than it may have, and that nobody else ends it for that. It is killed, and its task in hand is lost.
func (p *Pool) Outgrew(now time.Time, id WorkerID) {
	p.clock(now)
	w := p.workers[id]
	switch {
	case w == nil || p.terminated:
	case w.condemned != 0: // what becomes of that task has been decided
		p.kill(w, w.reason)
	default:
		p.kill(w, OutOfMemory)
	}
}

// Resize changes the number of workers. More are started; of those that are too many, the idle ones stop, then busy ones after their task.
func (p *Pool) Resize(now time.Time, workers int) {
	p.clock(now)
	p.target, p.asleep = max(1, workers), 0
	p.crashes, p.crash = make([]moment, crashRing(p.target)), 0 // it begins to count anew
}

func crashRing(workers int) int { return max(5, 2*workers) + 1 }
