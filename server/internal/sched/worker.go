package sched

import (
	"slices"
	"time"
)

// workerState is what a worker process is up to. The order matters: a worker only moves on.
type workerState uint8

const (
	starting  workerState = iota // has not said Hello
	booting                      // is not Ready
	live                         // runs tasks, one at a time
	leaving                      // has been asked to stop
	signalled                    // SIGTERM
	killed                       // SIGKILL
)

// worker is a process, from Spawn to Exited.
type worker struct {
	id         WorkerID
	slot       *slot
	generation *generation
	old        bool // a restart is to replace it
	hello      Hello
	state      workerState
	born       moment
	ready      moment // 0: never
	alarm      node[alarm]
	line       link[*worker] // standby, idle, hungry or none

	spare    bool          // stands by; it gets no tasks
	left     int           // tasks that it may still be given
	expires  moment        // when it has reached its age; 0: never
	rests    moment        // how long it may be idle; 0: for ever
	drain    int64         // bytes of memory with which it should be replaced; 0: any
	flaw     Reason        // why it is overdue, if it is
	flawed   link[*worker] // overdue, or not
	retiring Reason        // why it gets no more tasks
	asked    bool          // to stop

	chunks  list[*chunk] // what it holds; it runs the first task without outcome of the first one
	tasks   int          // in them, without outcome
	bytes   int          // of items of those
	work    moment       // estimated run time of those
	since   moment       // it has not been heard of since, or has had nothing to do until then
	clocked moment       // its run time is accounted for up to here
	done    uint64       // tasks that ended with a report

	overrun    moment             // what sweep has charged for the current task
	loaded     bool               // holds tasks that it has not started, and none are being taken back
	revoking   int                // unanswered Revokes…
	unanswered int                // …of them for chunks that have ended…
	revoked    map[ChunkID]*chunk // …and the chunks of the others
	relieved   moment             // when it was last found stuck

	cancelledAt moment // when the current task was cancelled; 0: it is not
	inspectAt   moment // the current task is not late before; 0: nothing is known

	suspectAt     moment  // when its record is to be read because of a cancelled task that may be the current one; 0: not
	defiant       ChunkID // a task that its record has named when it was cancelled…
	defiantOffset int
	defiantAt     moment // …the first time

	reason    Reason  // why it was signalled or killed
	condemned ChunkID // the task that was the reason
	offset    int
	why       any // of its Exit, once it has exited
}

// function is a Function with what is known about it.
type function struct {
	Function
	place [2]int // in the list of each side's generation; -1: not there
	est   estimate
}

func (w *worker) hold(tasks, bytes int, cost moment) {
	w.tasks += tasks
	w.bytes += bytes
	w.work += moment(tasks) * cost
}

// ahead is the estimated work that w holds besides the chunk that it runs.
func (w *worker) ahead() moment {
	k := w.chunks.front.of
	return w.work - moment(k.end-k.done)*k.cost
}

// place puts w among the idle or the hungry, where it belongs.
func (p *Pool) place(w *worker) {
	if loaded := w.state == live && w.tasks > 1 && w.revoking == 0; loaded != w.loaded {
		w.loaded = loaded
		if loaded {
			p.loaded++
			p.wake(&w.alarm, w.stuckAt())
		} else {
			p.loaded--
		}
	}
	if w.state == live && w.tasks == 0 && (w.left == 0 || w.retiring != NoReason) {
		p.stop(w) // which places it
		return
	}
	var to *list[*worker]
	switch {
	case w.state != live:
	case w.spare:
		to = &p.standby
	case w.tasks == 0:
		to = &p.idle
	case p.hungers(w):
		to = &p.hungry
	}
	switch to {
	case w.line.in:
		return
	case &p.idle:
		w.line.leave()
		to.pushFront(&w.line)
		p.takeEvery = takeEvery
		p.takeAt = min(p.takeAt, p.now+p.look())
	case &p.hungry:
		w.line.leave()
		to.pushBack(&w.line)
	case &p.standby:
		if p.rolling && !w.old { // it is what others wait for
			to.pushFront(&w.line)
		} else {
			to.pushBack(&w.line)
		}
	default:
		w.line.leave()
	}
}

// hungers tells whether a busy worker should get more. Once it does, it gets chunks as long as another one like the last fits.
func (p *Pool) hungers(w *worker) bool {
	if w.left == 0 || w.retiring != NoReason {
		return false
	}
	runs := w.chunks.front.of
	prefetch := p.prefetch(runs.call)
	ahead, enough := w.ahead(), prefetch/2
	if k := w.chunks.back.of; w.line.in == &p.hungry {
		ahead, enough = ahead+moment(k.end-k.done)*k.cost, prefetch+1
	}
	return runs.cost <= prefetch && ahead < enough &&
		w.tasks < w.hello.CreditTasks && w.bytes < w.hello.CreditBytes
}

// serving is the worker, if what it says still counts.
func (p *Pool) serving(id WorkerID) *worker {
	w := p.workers[id]
	if w == nil || p.terminated || w.state < live || w.reason == Misbehaved {
		return nil
	}
	return w
}

func (p *Pool) move(w *worker, to workerState) {
	switch {
	case w.state < live && to >= live:
		p.starting--
	case w.state == live:
		p.ready--
		p.count(w, -1)
	}
	if to == live {
		p.ready++
		p.count(w, 1)
	}
	w.state = to
	p.place(w)
	p.alarms.remove(&w.alarm)
	if limit := p.patience(to); limit > 0 {
		p.alarms.set(&w.alarm, p.now+limit)
	}
}

// patience is how long a worker may stay in a state. A live one is watched in another way.
func (p *Pool) patience(s workerState) moment {
	switch s {
	case starting:
		return p.cfg.StartTimeout
	case booting:
		return p.cfg.ReadyTimeout
	case leaving:
		return p.cfg.CancelGrace
	case signalled:
		return p.cfg.KillDelay
	default:
		return 0
	}
}

// due is the end of the patience.
func (w *worker) due(p *Pool) {
	switch w.state {
	case starting:
		p.kill(w, NeverRegistered)
	case booting:
		p.kill(w, NeverReady)
	case live:
		p.check(w)
	case leaving:
		p.signal(w, IgnoredStop)
	case signalled:
		p.kill(w, w.reason)
	}
}

// count enters w, which is live, in the accounts of who works, or takes it out.
func (p *Pool) count(w *worker, n int) {
	w.flawed.leave()
	if w.spare {
		p.spares += n
		return
	}
	p.crew += n
	if w.retiring != NoReason {
		p.retiring += n
	}
}

func (p *Pool) stop(w *worker) {
	r := w.retiring
	if w.left == 0 && r == NoReason {
		r = RanItsTasks
	}
	w.asked = true
	e := p.emit(Stop)
	e.Worker, e.Reason = w.id, r
	p.move(w, leaving)
}

func (p *Pool) signal(w *worker, r Reason) {
	w.reason = r
	e := p.emit(Signal)
	e.Worker, e.Reason = w.id, r
	p.move(w, signalled)
}

func (p *Pool) kill(w *worker, r Reason) {
	if w.state == killed {
		return
	}
	w.reason = r
	e := p.emit(Kill)
	e.Worker, e.Reason = w.id, r
	p.move(w, killed)
}

// Misbehaved says that a worker has broken the protocol in a way that shows before the core sees it: why says how.
func (p *Pool) Misbehaved(now time.Time, id WorkerID, why string) {
	p.clock(now)
	if w := p.workers[id]; w != nil && !p.terminated {
		p.misbehaved(w, why)
	}
}

// misbehaved ends a worker that has broken the protocol: why says how.
func (p *Pool) misbehaved(w *worker, why string) {
	if w.state < killed {
		p.kill(w, Misbehaved)
		p.out.effects[len(p.out.effects)-1].Why = why
	}
}

// Spawned says that the process of a Spawn runs. A process that could not be started has Exited instead.
func (p *Pool) Spawned(now time.Time, id WorkerID) {
	p.clock(now)
	if w := p.workers[id]; w != nil {
		w.born = p.now
	}
}

// Registered says that a worker has said Hello. The first one of a generation tells which functions its workers have, once and for all.
func (p *Pool) Registered(now time.Time, id WorkerID, h Hello) {
	p.clock(now)
	w := p.workers[id]
	if w == nil || w.state != starting {
		return
	}
	h.CreditTasks, h.CreditBytes = max(1, h.CreditTasks), max(0, h.CreditBytes)
	w.hello = h
	switch g := w.generation; {
	case g.functions == nil:
		g.functions = append([]Function{}, h.Functions...)
		if g == p.generation {
			p.adopt()
		}
	case !slices.Equal(g.functions, h.Functions):
		p.misbehaved(w, "its functions are not those of the pool's first worker")
		return
	}
	p.move(w, booting)
}

// Ready says that a worker can run tasks.
func (p *Pool) Ready(now time.Time, id WorkerID) {
	p.clock(now)
	w := p.workers[id]
	if w == nil || w.state != booting {
		return
	}
	w.ready, w.since = p.now, p.now
	unfit := w.generation == p.coming && !p.takeOver()
	w.spare = unfit || p.crew >= p.want()
	p.span(w)
	p.move(w, live)
	p.aged(w)
	p.booted()
	if unfit {
		p.retire(w, Replaced)
	}
}
