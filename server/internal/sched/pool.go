package sched

import (
	"maps"
	"slices"
	"time"
)

// Pool is the state of one pool. Every method but the reading ones is an event, which takes the time at which it happened and may be
// called at any moment: what does not fit the state (an unknown id, late news of a call or worker that has ended) is ignored.
// Events only take note; Settle draws the conclusions and returns the effects.
//
// A Pool is not safe for concurrent use. It keeps what it was given (Items.Sizes, Hello.Functions, Report) without copying.
type Pool struct {
	cfg   Config
	epoch time.Time // the moment zero
	last  time.Time // as it was given
	now   moment

	closed     bool
	terminated bool
	dismissed  bool // the workers have been told
	joined     bool
	degraded   bool
	told       State // the last StateChange

	functions []*function // nil until the first Hello
	workers   map[WorkerID]*worker
	calls     map[CallID]*call
	users     map[uint32]*user
	fair      heap[*user]   // those with a call that could be dispatched, by virtual time
	virtual   moment        // virtual time of the user served last
	alarms    heap[alarm]   // one per worker, call, slot at most
	sweepAt   moment        // running chunks are charged again from then on; see sweep
	idle      list[*worker] // hold nothing; the one that was busy last is first
	hungry    list[*worker] // hold less than they could; the one that has waited longest is first

	loaded    int    // workers with work that could be taken back
	takeAt    moment // take back no earlier; see takeBack
	takeEvery moment
	taker     node[alarm]

	target   int           // workers that should run tasks…
	asleep   int           // …less so many, which were stopped because they were idle
	crew     int           // workers that are ready to run tasks
	retiring int           // of these, the ones that get no more
	standby  list[*worker] // spares that are ready; the first one joins next
	spares   int           // how many that are
	overdue  list[*worker] // those that should be replaced, and wait for their turn
	leaver   *worker       // the one whose turn it is, until it has exited
	rester   node[alarm]   // somebody may have been idle for too long then

	generation     *generation // of processes that are started; see restart.go
	lastGeneration int
	coming         *generation // that has not had a ready worker yet
	trial          *slot       // of its first worker
	rolling        bool        // old workers are being replaced
	old            int         // how many there are
	replaced       int         // how many there have been

	slots        []*slot
	vacant       list[*slot] // slots whose process can be started now
	probeAt      moment      // when degraded: start the next process no earlier
	prober       node[alarm]
	starting     int      // workers that are not ready yet
	ready        int      // workers that are
	everReady    bool     // some worker has been
	bootFailures int      // in a row
	trouble      int      // exits without any good in between: the exponent of the probe's back-off
	crashes      []moment // the last exits that nothing excuses, a ring
	crash        int      // place of the oldest
	why          any      // of the last such exit

	lastWorker WorkerID
	lastChunk  ChunkID
	pending    uint64 // tasks added that have no outcome
	done       uint64 // tasks that have one

	out, shown *outbox  // being filled; handed out by the last Settle
	ended      []*chunk // since the last Settle: its effects may still be looked at
	free       []*chunk
}

// moment is a time as the pool counts it: since its first event, which is at 1. Zero is never.
type moment = time.Duration

// Forever is the longest of all durations that a pool is given; longer ones are cut to it. No daemon lives to see the difference, and a moment has room for
// sums of many: one that overflowed would lie in the past, and Settle would not return.
const Forever = 10 * 365 * 24 * time.Hour

// alarm is something that has a deadline. It is told once, and asks again if it has more.
type alarm interface{ due(p *Pool) }

// wakeUp is a deadline at which Settle has something to do anyway.
type wakeUp struct{}

func (wakeUp) due(*Pool) {}

// outbox is the effects of one Settle and what they point to.
type outbox struct {
	effects    []Effect
	deliveries []Delivery
	parts      []Part
}

// New is a pool that has no processes yet: the first Settle asks for them.
func New(cfg Config) *Pool {
	cfg = cfg.withDefaults()
	p := &Pool{
		cfg:     cfg,
		target:  cfg.Workers,
		told:    Open,
		workers: make(map[WorkerID]*worker, cfg.Workers),
		calls:   make(map[CallID]*call),
		users:   make(map[uint32]*user),
		crashes: make([]moment, crashRing(cfg.Workers)),
		out:     new(outbox),
		shown:   new(outbox),
	}
	p.taker.of, p.prober.of, p.rester.of = wakeUp{}, wakeUp{}, wakeUp{}
	p.takeEvery = takeEvery
	p.lastGeneration = 1
	p.generation = &generation{number: 1}
	return p
}

func (c Config) withDefaults() Config {
	c.Workers = max(1, c.Workers)
	if c.MaxStarting <= 0 {
		c.MaxStarting = c.Workers + max(0, c.Spares)
	}
	if c.Rand == nil {
		c.Rand = func() float64 { return 0.5 }
	}
	or := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
		*d = min(*d, Forever)
	}
	or(&c.StartTimeout, 10*time.Second)
	or(&c.ReadyTimeout, time.Minute)
	or(&c.CancelGrace, 5*time.Second)
	or(&c.KillDelay, 2*time.Second)
	or(&c.BackoffMin, 100*time.Millisecond)
	or(&c.BackoffMax, 30*time.Second)
	or(&c.TargetChunk, 4*time.Millisecond)
	or(&c.Prefetch, 2*time.Millisecond)
	or(&c.MaxAge, 0)
	or(&c.MaxIdle, 0)
	size := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	size(&c.WindowBytes, 16<<20)
	size(&c.MaxChunkTasks, 4096)
	size(&c.MaxChunkBytes, 1<<20)
	return c
}

// clock takes note of the time. It never goes back.
func (p *Pool) clock(now time.Time) {
	if p.now != 0 && now.Equal(p.last) { // as most events of a batch
		return
	}
	if p.now == 0 {
		p.epoch = now.Add(-1)
	}
	p.last = now
	p.now = max(p.now, p.moment(now))
}

func (p *Pool) moment(t time.Time) moment { return t.Sub(p.epoch) }
func (p *Pool) time(m moment) time.Time   { return p.epoch.Add(m) }

// wake sees to it that n is told at t, or earlier.
func (p *Pool) wake(n *node[alarm], t moment) {
	if n.pos == 0 || t < p.alarms.key(n) {
		p.alarms.set(n, t)
	}
}

// NextDeadline is when Settle must be called again if nothing happens before; false if that is never.
func (p *Pool) NextDeadline() (time.Time, bool) {
	if p.alarms.len() == 0 {
		return time.Time{}, false
	}
	return p.time(p.alarms.minKey()), true
}

// Settle brings the pool to rest and returns what must be done now, in order. The effects and their deliveries are valid until the next
// Settle. All rules that look at the whole pool are applied here, and only here.
func (p *Pool) Settle(now time.Time) []Effect {
	p.clock(now)
	p.recycle()
	for p.alarms.len() > 0 && p.alarms.minKey() <= p.now {
		a := p.alarms.entries[0].node
		p.alarms.remove(a)
		a.of.due(p)
	}
	if !p.terminated {
		for again := true; again; again = p.rouse() {
			p.fill()
			p.dispatch()
		}
		p.takeBack()
		if p.degraded {
			p.failWaiting()
		}
	}
	if p.closed && len(p.calls) == 0 {
		if !p.dismissed {
			p.dismissed = true
			p.dismiss()
		}
		p.joined = len(p.workers) == 0
	}
	if s := p.State(); s != p.told {
		p.told = s
		p.emit(StateChange).State = s
	}
	if p.joined {
		p.alarms = heap[alarm]{}
	}
	return p.handOut()
}

// handOut swaps the outboxes.
func (p *Pool) handOut() []Effect {
	p.out, p.shown = p.shown, p.out
	p.out.empty()
	return p.shown.effects
}

// empty keeps the memory and lets go of what was in it. See extend.
func (o *outbox) empty() {
	clear(o.effects)
	clear(o.deliveries)
	clear(o.parts)
	o.effects, o.deliveries, o.parts = o.effects[:0], o.deliveries[:0], o.parts[:0]
}

// extend adds a zero element to a slice whose spare capacity is zero already.
func extend[T any](s []T) ([]T, *T) {
	if len(s) == cap(s) {
		s = slices.Grow(s, 1)
	}
	s = s[:len(s)+1]
	return s, &s[len(s)-1]
}

// emit adds an effect. The caller fills it in.
func (p *Pool) emit(k Kind) (e *Effect) {
	p.out.effects, e = extend(p.out.effects)
	e.Kind = k
	return e
}

// deliver adds a delivery of the parts in the outbox from mark on. The caller fills in the rest.
func (p *Pool) deliver(c *call, mark, n int) (d *Delivery) {
	c.unreadN += n
	c.done += uint64(n)
	p.done += uint64(n)
	p.pending -= uint64(n)
	p.out.deliveries, d = extend(p.out.deliveries)
	d.Parts, d.N = p.out.parts[mark:len(p.out.parts):len(p.out.parts)], n
	e := p.emit(Deliver)
	e.Call, e.Delivery = c.spec.ID, d
	return d
}

// Close refuses new calls, and new tasks of calls whose tasks are independent. When the calls that are there have ended, the workers are
// stopped.
func (p *Pool) Close(now time.Time) {
	p.clock(now)
	if p.closed {
		return
	}
	p.closed = true
	for _, c := range p.inOrder() {
		if c.spec.Single {
			c.ended = true
			p.update(c)
		}
	}
}

// Terminate ends the pool at once: every task without outcome is Cancelled, calls that were not Opened are Refused, workers are killed.
// If the daemon is Stopping, tasks that were never dispatched are Rejected instead, so that their owners know that they may be sent again.
// No reason means PoolTerminated.
func (p *Pool) Terminate(now time.Time, reason Reason) {
	p.clock(now)
	if p.terminated || p.joined {
		return
	}
	if reason == NoReason {
		reason = PoolTerminated
	}
	p.closed, p.terminated = true, true
	for _, c := range p.inOrder() {
		p.abandon(c, reason)
	}
	for _, s := range p.slots {
		if w := s.worker; w != nil {
			w.chunks = list[*chunk]{}
			p.kill(w, PoolTerminated)
		}
	}
}

// inOrder is the calls in the order of their ids.
func (p *Pool) inOrder() []*call {
	calls := make([]*call, 0, len(p.calls))
	for _, id := range slices.Sorted(maps.Keys(p.calls)) {
		calls = append(calls, p.calls[id])
	}
	return calls
}

// dismiss asks the workers of a closed pool without calls to stop. Those that cannot hear it yet are killed.
func (p *Pool) dismiss() {
	if p.restarting() {
		p.endRestart(PoolClosed, nil)
	}
	for _, s := range p.slots {
		w := s.worker
		switch {
		case w == nil:
		case w.state < live:
			p.kill(w, PoolClosed)
		case w.state == live:
			p.stop(w)
		}
	}
}

// State is where the pool is in its life.
func (p *Pool) State() State {
	switch {
	case p.joined:
		return Joined
	case p.terminated:
		return Terminated
	case p.closed:
		return Closed
	case p.degraded:
		return Degraded
	default:
		return Open
	}
}
