package sched

import "time"

// Where workers come from. A pool has a slot per process. When the process of a slot ends, the next one is started at once if the last
// one had done its duty or a task was to blame, else after a back-off that doubles. When no worker is ready and it does not look as if
// any process would do, the pool is degraded: it tries with one at a time, and calls do not wait for it.

// slot is the place of a worker. It is vacant, or has a worker, or waits for the end of its back-off.
type slot struct {
	index    int // in the pool's slots
	worker   *worker
	failures int // exits in a row that nothing excuses
	place    link[*slot]
	alarm    node[alarm]
}

const (
	proven        = 30 * time.Second // a worker that has been ready for so long works
	maxBoot       = 3                // boot failures in a row that degrade the pool
	crashInterval = time.Minute      // so do more than max(5, 2·Workers) crashes within this
)

func (p *Pool) addSlot() *slot {
	s := &slot{index: len(p.slots)}
	s.place.of, s.alarm.of = s, s
	p.slots = append(p.slots, s)
	return s
}

// removeSlot takes away a slot that has no worker and no back-off.
func (p *Pool) removeSlot(s *slot) {
	s.place.leave()
	last := len(p.slots) - 1
	p.slots[s.index] = p.slots[last]
	p.slots[s.index].index = s.index
	p.slots[last] = nil
	p.slots = p.slots[:last]
}

// due is the end of the back-off.
func (s *slot) due(p *Pool) { p.vacant.pushBack(&s.place) }

// fill starts processes for vacant slots.
func (p *Pool) fill() {
	if p.closed && len(p.calls) == 0 {
		return
	}
	p.staff()
	limit := p.cfg.MaxStarting
	if p.degraded {
		if p.now < p.probeAt {
			return
		}
		limit = 1
	}
	for p.starting < limit && !p.vacant.empty() {
		s := p.vacant.front.of
		s.place.leave()
		p.spawn(s, p.generation)
	}
}

// spawn starts a process.
func (p *Pool) spawn(s *slot, g *generation) {
	p.lastWorker++
	w := &worker{id: p.lastWorker, slot: s, generation: g, born: p.now}
	w.line.of, w.alarm.of, w.flawed.of = w, w, w
	s.worker = w
	p.workers[w.id] = w
	p.starting++
	p.move(w, starting)
	e := p.emit(Spawn)
	e.Worker, e.Generation = w.id, g.number
}

// booted is good news: a worker is ready.
func (p *Pool) booted() {
	p.everReady = true
	p.bootFailures = 0
	if !p.degraded {
		return
	}
	p.degraded = false
	for _, s := range p.slots {
		if s.alarm.pos > 0 {
			p.alarms.remove(&s.alarm)
			p.vacant.pushBack(&s.place)
		}
	}
}

// vacate frees the slot of a worker that has exited.
func (p *Pool) vacate(w *worker, exit *Exit, blamed bool) {
	s := w.slot
	s.worker = nil
	if p.closed && len(p.calls) == 0 {
		return
	}
	if s == p.trial {
		p.endRestart(BootFailure, exit.Why)
		p.removeSlot(s)
		return
	}
	ready := w.ready != 0
	if blamed || w.asked || ready && (w.done > 0 || p.now-w.ready >= proven || w.condemned != 0) {
		s.failures = 0
		p.vacant.pushBack(&s.place)
		return
	}
	p.why = exit.Why
	p.trouble++
	crashed := p.crashed()
	if !ready {
		p.bootFailures++
	}
	s.failures++
	n := s.failures - 1
	if ready {
		n-- // once is no pattern
	}
	if n < 0 {
		p.vacant.pushBack(&s.place)
	} else {
		p.alarms.set(&s.alarm, p.now+p.backoff(n))
	}
	hopeless := exit.Kind == ExitPermanent && !p.everReady
	if hopeless {
		p.trouble = maxDoublings
	}
	// As long as one worker is ready, calls are served: the others have their back-off, and that is enough.
	p.degraded = p.degraded || p.ready == 0 && (hopeless || crashed || p.bootFailures >= maxBoot)
	if p.degraded {
		p.probeAt = p.now + p.backoff(p.trouble-1)
		p.alarms.set(&p.prober, p.probeAt) // later than it was, if several failed before one could be tried
	}
}

// crashed takes note of a crash, and tells whether there were too many lately.
func (p *Pool) crashed() bool {
	p.crashes[p.crash] = p.now
	p.crash = (p.crash + 1) % len(p.crashes)
	oldest := p.crashes[p.crash]
	return oldest != 0 && p.now-oldest <= crashInterval
}

const maxDoublings = 30

// backoff is the delay after n+1 failures.
func (p *Pool) backoff(n int) moment {
	d := p.cfg.BackoffMax
	if n < maxDoublings && p.cfg.BackoffMin<<n>>n == p.cfg.BackoffMin {
		d = min(d, p.cfg.BackoffMin<<n)
	}
	return moment(float64(d) * (0.8 + 0.4*p.cfg.Rand()))
}
