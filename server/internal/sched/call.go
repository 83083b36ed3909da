package sched

import (
	"slices"
	"time"
)

// call is a call that has not ended.
type call struct {
	spec     CallSpec
	user     *user
	function *function // nil until Opened

	ended     bool // input has ended
	cancelled bool
	reason    Reason // why it was cancelled

	queue   queue
	queued  int
	flying  int            // dispatched, without outcome
	chunks  list[*chunk]   // those that hold them
	cancels []uint64       // tasks in flight that were cancelled one by one; ascends
	deaths  map[uint64]int // of workers, when it was the turn of a task, none of which was to blame; see suspect

	est      estimate
	measured bool // est is its own, not that of the function
	unread   int  // bytes of values delivered that the client has not read
	unreadN  int  // outcomes likewise

	turn  node[*call] // in the heap of its user, if it could be dispatched
	spent moment      // virtual time
	owed  moment      // run time to be charged before its next turn
	alarm node[alarm] // queue timeout

	accepted uint64
	done     uint64
	failed   uint64
}

// Open is a new call. If the functions of the pool are known, it is Opened or Refused in the same Settle, else when they are.
func (p *Pool) Open(now time.Time, spec CallSpec) {
	p.clock(now)
	if _, ok := p.calls[spec.ID]; ok || p.joined {
		return
	}
	spec.MaxAttempts = max(1, spec.MaxAttempts)
	for _, d := range []*time.Duration{&spec.TaskTimeout, &spec.QueueTimeout, &spec.Linger} {
		*d = min(max(0, *d), Forever)
	}
	if spec.RetryOn == 0 {
		spec.RetryOn = 1 << WorkerLost
	}
	switch {
	case p.terminated:
		p.refuse(spec.ID, PoolTerminated, nil)
		return
	case p.closed:
		p.refuse(spec.ID, PoolClosed, nil)
		return
	case p.degraded:
		p.refuse(spec.ID, BootFailure, p.why)
		return
	}
	c := &call{spec: spec, user: p.user(spec)}
	c.turn.of, c.alarm.of = c, c
	p.calls[spec.ID] = c
	if p.functions != nil {
		p.open(c)
	}
}

func (p *Pool) refuse(id CallID, r Reason, why any) {
	e := p.emit(Refused)
	e.Call, e.Reason, e.Why = id, r, why
}

// open finds the function of c. While a restart goes on it may have to wait for it.
func (p *Pool) open(c *call) {
	i := slices.IndexFunc(p.functions, func(f *function) bool { return f.Name == c.spec.Function })
	switch {
	case i < 0:
		p.refuse(c.spec.ID, UnknownFunction, nil)
		p.forget(c)
		return
	case c.spec.Encoding != "" && c.spec.Encoding != p.functions[i].Encoding:
		p.refuse(c.spec.ID, WrongEncoding, nil)
		p.forget(c)
		return
	}
	if !p.offered(p.functions[i]) {
		return // not before the end of the restart
	}
	c.function = p.functions[i]
	c.est = c.function.est
	e := p.emit(Opened)
	e.Call, e.Encoding = c.spec.ID, c.function.Encoding
	p.update(c)
}

// Add is more tasks of a call.
func (p *Pool) Add(now time.Time, id CallID, items Items) {
	p.clock(now)
	c := p.calls[id]
	if n := max(len(items.Small), len(items.Sizes)); n > 0 {
		items.N = n
	}
	late := c != nil && c.ended && !c.cancelled
	if c == nil || items.N <= 0 || late && !(c.spec.Single && p.closed) {
		return
	}
	b := &batch{small: items.Small, sizes: items.Sizes, itemSize: int(items.ItemSize), added: p.now}
	part := Part{Ref: items.Ref, Seq: c.accepted, N: items.N, Bytes: b.size(0, items.N), batch: b}
	c.accepted += uint64(items.N)
	p.pending += uint64(items.N)
	if c.cancelled {
		p.fail(c, []Part{part}, 0, Cancelled, c.reason)
		return
	}
	if late {
		p.fail(c, []Part{part}, 0, Rejected, PoolClosed)
		return
	}
	p.enqueue(c, part)
	if c.spec.QueueTimeout > 0 {
		p.wake(&c.alarm, p.now+c.spec.QueueTimeout)
	}
	p.update(c)
}

// enqueue queues new tasks, except for those whose item is too large: they are Rejected.
func (p *Pool) enqueue(c *call, part Part) {
	push := func(some Part) {
		c.queue.pushBack(run{Part: some})
		c.queued += some.N
	}
	limit := p.cfg.MaxItem
	if largest := part.batch.largest(part.N); limit == 0 || largest <= limit {
		push(part)
		return
	}
	for part.N > 0 {
		n := 0
		for n < part.N && part.batch.size(part.From+n, 1) <= limit {
			n++
		}
		if n > 0 {
			push(part.take(n))
		}
		if part.N > 0 {
			p.fail(c, []Part{part.take(1)}, 0, Rejected, TooLarge)
		}
	}
}

// EndInput says that no more tasks come.
func (p *Pool) EndInput(now time.Time, id CallID) {
	p.clock(now)
	if c := p.calls[id]; c != nil {
		c.ended = true
		p.update(c)
	}
}

// Written says that the client has read outcomes, of whatever kind: how many, and Delivery.Bytes of them together.
func (p *Pool) Written(now time.Time, id CallID, tasks, bytes int) {
	p.clock(now)
	c := p.calls[id]
	if c == nil {
		return
	}
	c.unreadN -= tasks
	c.unread = max(0, c.unread-bytes)
	if c.unreadN <= 0 {
		c.unreadN, c.unread = 0, 0
	}
	p.update(c)
}

// Cancel ends a call early. Tasks that wait are Cancelled at once; those that run have the cancel grace to return. Reason is handed back
// in the deliveries; no reason means CallCancelled. With Stopping, tasks that were never dispatched are Rejected.
func (p *Pool) Cancel(now time.Time, id CallID, reason Reason) {
	p.clock(now)
	c := p.calls[id]
	if c == nil || c.cancelled {
		return
	}
	if reason == NoReason {
		reason = CallCancelled
	}
	c.cancelled, c.ended, c.reason = true, true, reason
	p.failQueue(c, reason)
	for l := c.chunks.front; l != nil; l = l.next {
		p.recall(l.of)
	}
	p.update(c)
}

// CancelTasks ends tasks of a call early.
func (p *Pool) CancelTasks(now time.Time, id CallID, seqs []uint64) {
	p.clock(now)
	c := p.calls[id]
	if c == nil || c.cancelled {
		return
	}
	seqs = slices.Compact(slices.Sorted(slices.Values(seqs)))
	for range c.queue.n {
		r := c.queue.popFront()
		c.queued -= r.N
		p.sortOut(c, r, seqs, c.queue.pushBack)
	}
	for l := c.chunks.front; l != nil; l = l.next {
		p.cancelIn(l.of, seqs)
	}
	p.update(c)
}

// sortOut queues the tasks of r by push, except for those in seqs: they are Cancelled.
func (p *Pool) sortOut(c *call, r run, seqs []uint64, push func(run)) {
	sift(r.Part, seqs,
		func(hit Part) { p.fail(c, []Part{hit}, r.told(), Cancelled, CallCancelled) },
		func(miss Part) {
			c.queued += miss.N
			push(run{miss, r.past})
		})
}

// requeue puts tasks that did not run, or run again, at the front of their call.
func (p *Pool) requeue(c *call, parts []Part, so past) {
	if c.cancelled {
		p.fail(c, parts, so.told(), Cancelled, c.reason)
		return
	}
	var kept []run
	cancels := slices.Clone(c.cancels) // failing takes them out
	for _, part := range parts {
		p.sortOut(c, run{part, so}, cancels, func(r run) { kept = append(kept, r) })
	}
	for _, r := range slices.Backward(kept) {
		c.queue.pushFront(r)
	}
	if c.spec.QueueTimeout > 0 && so.told() == 0 && c.queue.n > 0 {
		p.wake(&c.alarm, c.queue.at(0).batch.added+c.spec.QueueTimeout)
	}
}

// fail delivers tasks that have no report.
func (p *Pool) fail(c *call, parts []Part, attempts int, o Outcome, r Reason) *Delivery {
	mark, n := len(p.out.parts), 0
	for _, part := range parts {
		p.out.parts = append(p.out.parts, part)
		n += part.N
		c.settled(part)
	}
	c.failed += uint64(n)
	d := p.deliver(c, mark, n)
	d.Attempts, d.Outcome, d.Reason = attempts, o, r
	return d
}

// failQueue empties the queue of c: Cancelled, or for some reasons Rejected if no attempt has begun.
func (p *Pool) failQueue(c *call, r Reason) {
	var parts []Part
	for c.queue.n > 0 {
		so := c.queue.at(0).past
		parts = parts[:0]
		for c.queue.n > 0 && c.queue.at(0).past == so {
			parts = append(parts, c.queue.popFront().Part)
		}
		o, attempts := Cancelled, so.told()
		if attempts == 0 && (r == BootFailure || r == Stopping) {
			o = Rejected
		}
		d := p.fail(c, parts, attempts, o, r)
		if r == BootFailure {
			d.Why = p.why
		}
	}
	c.queued = 0
}

// settled forgets which of these tasks were cancelled.
func (c *call) settled(part Part) {
	if len(c.cancels) == 0 {
		return
	}
	i, _ := slices.BinarySearch(c.cancels, part.Seq)
	j, _ := slices.BinarySearch(c.cancels, part.Seq+uint64(part.N))
	c.cancels = slices.Delete(c.cancels, i, j)
}

// cancelledTask tells whether the task must not run on.
func (c *call) cancelledTask(seq uint64) bool {
	if c.cancelled {
		return true
	}
	_, ok := slices.BinarySearch(c.cancels, seq)
	return ok
}

// cancelReason is why a task was cancelled.
func (c *call) cancelReason() Reason {
	if c.cancelled {
		return c.reason
	}
	return CallCancelled
}

// retries tells whether a task that ended like this has another attempt.
func (c *call) retries(seq uint64, attempt int, o Outcome) bool {
	return attempt < c.spec.MaxAttempts && c.spec.RetryOn.Has(o) && !c.cancelledTask(seq)
}

// due is the queue timeout: tasks that have waited for too long for their first dispatch have had it.
func (c *call) due(p *Pool) {
	late := p.now - c.spec.QueueTimeout
	var parts []Part
	oldest := moment(0)
	for range c.queue.n {
		r := c.queue.popFront()
		if r.told() == 0 && r.batch.added <= late {
			parts = append(parts, r.Part)
			c.queued -= r.N
			continue
		}
		if r.told() == 0 && (oldest == 0 || r.batch.added < oldest) {
			oldest = r.batch.added
		}
		c.queue.pushBack(r)
	}
	if oldest != 0 {
		p.wake(&c.alarm, oldest+c.spec.QueueTimeout)
	}
	if len(parts) > 0 {
		p.fail(c, parts, 0, Timeout, QueueTimedOut)
	}
	p.update(c)
}

// update must be called when anything of c has changed: it ends c if it is over, and else puts it in or out of the fair queue.
func (p *Pool) update(c *call) {
	if c.ended && c.queued == 0 && c.flying == 0 && (c.function != nil || c.cancelled) {
		p.emit(Ended).Call = c.spec.ID
		p.forget(c)
		return
	}
	if ready := c.queued > 0 && c.function != nil && !p.stalled(c); ready != (c.turn.pos > 0) {
		if ready {
			p.enter(c)
		} else {
			p.leave(c)
		}
	}
}

// stalled tells whether the results that c has and expects fill its window.
func (p *Pool) stalled(c *call) bool {
	return c.unread+c.flying*c.est.bytes >= p.cfg.WindowBytes
}

// abandon ends c here and now, whatever its workers do.
func (p *Pool) abandon(c *call, r Reason) {
	if c.function == nil && !c.cancelled {
		p.refuse(c.spec.ID, r, nil)
		p.forget(c)
		return
	}
	p.failQueue(c, r)
	for l := c.chunks.front; l != nil; l = l.next {
		k := l.of
		parts, _ := k.todo.take(nil, k.end-k.done)
		p.fail(c, parts, k.Attempt, Cancelled, r)
	}
	p.emit(Ended).Call = c.spec.ID
	p.forget(c)
}

// failWaiting ends the wait for workers that do not come.
func (p *Pool) failWaiting() {
	for _, c := range p.inOrder() {
		switch {
		case c.function == nil:
			p.refuse(c.spec.ID, BootFailure, p.why)
			p.forget(c)
		case c.flying == 0:
			p.failQueue(c, BootFailure)
			p.update(c)
		}
	}
}

// forget takes c out of everything, with the tasks of a refused call.
func (p *Pool) forget(c *call) {
	p.pending -= uint64(c.queued)
	p.leave(c)
	p.alarms.remove(&c.alarm)
	delete(p.calls, c.spec.ID)
}
