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
	id    WorkerID
	slot  *slot
	hello Hello
	state workerState
	moved moment // when it came into this state
	born  moment
	ready moment // 0: never
	alarm node[alarm]
	line  link[*worker] // idle, hungry or neither

	chunks  list[*chunk] // what it holds; it runs the first task without outcome of the first one
	tasks   int          // in them, without outcome
	bytes   int          // of items of those
	work    moment       // estimated run time of those
	since   moment       // it has not been heard of since, or has had nothing to do until then
	clocked moment       // its run time is accounted for up to here
	done    uint64       // tasks that ended with a report

	overrun    moment // what sweep has charged for the current task
	loaded     bool   // holds tasks that it has not started, and none are being taken back
	revoking   int    // unanswered Revokes…
	unanswered int    // …of them for chunks that have ended

	cancelledAt moment // when the current task was cancelled; 0: it is not
	inspectAt   moment // not late before

	reason    Reason  // why it was signalled or killed
	condemned ChunkID // the task that was the reason
	offset    int
}

// function is a Function with what is known about it.
type function struct {
	Function
	place int
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
		} else {
			p.loaded--
		}
	}
	var to *list[*worker]
	switch {
	case w.state != live:
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
	default:
		w.line.leave()
	}
}

// hungers tells whether a busy worker should get more. Once it does, it gets chunks as long as another one like the last fits.
func (p *Pool) hungers(w *worker) bool {
	ahead, enough := w.ahead(), p.cfg.Prefetch/2
	if k := w.chunks.back.of; w.line.in == &p.hungry {
		ahead, enough = ahead+moment(k.end-k.done)*k.cost, p.cfg.Prefetch+1
	}
	return w.chunks.front.of.cost <= p.cfg.Prefetch && ahead < enough &&
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
	}
	if to == live {
		p.ready++
	}
	w.state, w.moved = to, p.now
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

func (p *Pool) stop(w *worker) {
	p.emit(Stop).Worker = w.id
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

// Spawned says that the process of a Spawn runs. A process that could not be started has Exited instead.
func (p *Pool) Spawned(now time.Time, id WorkerID) {
	p.clock(now)
	if w := p.workers[id]; w != nil {
		w.born = p.now
	}
}

// Registered says that a worker has said Hello. The first one tells the pool its functions, once and for all.
func (p *Pool) Registered(now time.Time, id WorkerID, h Hello) {
	p.clock(now)
	w := p.workers[id]
	if w == nil || w.state != starting {
		return
	}
	h.CreditTasks, h.CreditBytes = max(1, h.CreditTasks), max(0, h.CreditBytes)
	w.hello = h
	if p.functions == nil {
		p.functions = make([]function, len(h.Functions))
		for i, f := range h.Functions {
			p.functions[i] = function{Function: f, place: i}
		}
		for _, c := range p.inOrder() {
			p.open(c)
		}
	} else if !slices.EqualFunc(p.functions, h.Functions, func(have function, f Function) bool { return have.Function == f }) {
		p.kill(w, Misbehaved)
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
	p.move(w, live)
	p.booted()
}

// Results says that tasks have ended. A worker that reports anything but the next tasks of the chunk that it runs is killed.
func (p *Pool) Results(now time.Time, id WorkerID, r Report) {
	p.clock(now)
	w := p.serving(id)
	if w == nil {
		return
	}
	if w.chunks.empty() {
		p.kill(w, Misbehaved)
		return
	}
	k := w.chunks.front.of
	if k.ID != r.Chunk || r.First != k.done || !r.valid(k.end) {
		p.kill(w, Misbehaved)
		return
	}
	p.absorb(k, &r)
	p.place(w)
}

// valid tells whether a worker may say so about a chunk with end tasks.
func (r *Report) valid(end int) bool {
	if r.First < 0 || r.N <= 0 || r.N > end-r.First || r.Bytes < 0 {
		return false
	}
	last := r.First - 1
	for _, f := range r.Failed {
		if f.Offset <= last || f.Offset >= r.First+r.N || f.Outcome < TaskError || f.Outcome > Cancelled {
			return false
		}
		last = f.Offset
	}
	return true
}

// absorb delivers the tasks of r, which are the next ones of k, except for those that are to be tried again. Some of the first may have been
// delivered before.
func (p *Pool) absorb(k *chunk, r *Report) {
	w, c := k.worker, k.call
	n := r.First + r.N - k.done
	ran := min(r.Ran, p.now-w.clocked)
	if ran <= 0 {
		ran = p.now - w.clocked
	}
	c.owe(ran - moment(n)*k.cost - w.overrun)
	w.clocked += ran
	w.since, w.overrun, w.cancelledAt = p.now, 0, 0
	c.est.observe(n, ran, r.Bytes)
	c.function.est = c.est
	c.measured = true
	c.flying -= n
	w.done += uint64(n)
	w.slot.failures, p.trouble = 0, 0

	for _, f := range r.Failed {
		if f.Offset < k.done {
			continue
		}
		again := false
		if k.Attempt < c.spec.MaxAttempts {
			skip := k.todo
			skip.skip(f.Offset - k.done)
			again = c.retries(skip.next(), k.Attempt, f.Outcome)
		}
		if !again {
			c.failed++
			continue
		}
		p.deliverReport(k, r, f.Offset)
		parts := p.settle(k, nil, 1)
		p.requeue(c, parts, k.Attempt)
	}
	p.deliverReport(k, r, r.First+r.N)
	if k.done == k.end {
		p.drop(k)
	}
	p.update(c)
	p.watch(w)
}

// settle passes over the next n tasks of k and appends them to parts.
func (p *Pool) settle(k *chunk, parts []Part, n int) []Part {
	parts, bytes := k.todo.take(parts, n)
	k.done += n
	k.worker.hold(-n, -bytes, k.cost)
	return parts
}

// deliverReport delivers the tasks of a report before place to.
func (p *Pool) deliverReport(k *chunk, r *Report, to int) {
	c, first := k.call, k.done
	if to == first {
		return
	}
	bytes := r.Bytes * (to - first) / r.N
	mark := len(p.out.parts)
	p.out.parts = p.settle(k, p.out.parts, to-first)
	if len(c.cancels) > 0 {
		for _, part := range p.out.parts[mark:] {
			c.settled(part)
		}
	}
	c.unread += bytes
	c.unreadN += to - first
	d := p.deliver(c, mark, to-first)
	d.Attempts, d.Outcome, d.Report, d.First, d.Worker, d.Bytes = k.Attempt, Value, *r, first, k.worker.id, bytes
}

// Returned says that a worker has given back the tasks of a chunk from place from on. There is no harm in a place beyond the last one: it had
// nothing to give back.
func (p *Pool) Returned(now time.Time, id WorkerID, chunk ChunkID, from int) {
	p.clock(now)
	w := p.serving(id)
	if w == nil {
		return
	}
	k := w.find(chunk)
	switch {
	case k == nil && w.unanswered > 0: // it had ended them before it was asked
		w.unanswered--
		w.revoking--
	case k == nil || from < k.done:
		p.kill(w, Misbehaved)
		return
	default:
		if k.revokes > 0 {
			k.revokes--
			w.revoking--
		}
		if from < k.end {
			p.giveBack(k, from)
			p.update(k.call)
			p.watch(w)
		}
	}
	p.place(w)
}

// find is the chunk, if w holds it. What is asked for is mostly the last one.
func (w *worker) find(id ChunkID) *chunk {
	for l := w.chunks.back; l != nil; l = l.prev {
		if l.of.ID == id {
			return l.of
		}
	}
	return nil
}

// recall cancels what is left of a chunk: what runs by CancelTask, the rest by Revoke.
func (p *Pool) recall(k *chunk) {
	w, from := k.worker, k.done
	if w.state > signalled {
		return
	}
	if k == w.chunks.front.of {
		p.watch(w)
		from++
	}
	if from < k.end {
		p.revoke(k, from)
		p.place(w)
	}
}

// cancelIn cancels those tasks of a chunk that are in seqs.
func (p *Pool) cancelIn(k *chunk, seqs []uint64) {
	w, c := k.worker, k.call
	todo := k.todo
	parts, _ := todo.take(nil, k.end-k.done)
	offset := k.done
	for _, part := range parts {
		sift(part, seqs, func(hit Part) {
			i, ok := slices.BinarySearch(c.cancels, hit.Seq)
			if !ok {
				c.cancels = slices.Insert(c.cancels, i, hit.Seq)
				p.cancelTask(w, k, offset)
			}
			offset++
		}, func(miss Part) { offset += miss.N })
	}
	if k == w.chunks.front.of {
		p.watch(w)
	}
}

func (p *Pool) cancelTask(w *worker, k *chunk, offset int) {
	e := p.emit(CancelTask)
	e.Worker, e.Call, e.ChunkID, e.Offset = w.id, k.Call, k.ID, offset
}

// lateness is what a task gets beyond its timeout before the daemon looks: the worker ends it by itself, and its report takes a while.
const lateness = 100 * time.Millisecond

// watch must be called when a worker has a new current task, or its current task has been cancelled: it sets the limits.
func (p *Pool) watch(w *worker) {
	if w.chunks.empty() || w.state != live {
		w.cancelledAt = 0
		return
	}
	k := w.chunks.front.of
	c := k.call
	switch {
	case !c.cancelled && len(c.cancels) == 0:
		w.cancelledAt = 0
	case !c.cancelledTask(k.todo.next()):
		w.cancelledAt = 0
	case w.cancelledAt == 0:
		w.cancelledAt = p.now
		if c.cancelled {
			p.cancelTask(w, k, k.done)
		}
		p.wake(&w.alarm, p.now+p.cfg.CancelGrace)
	}
	if c.spec.TaskTimeout > 0 {
		p.wake(&w.alarm, w.since+c.spec.TaskTimeout+lateness)
	}
}

// check looks whether the current task of a live worker has outlived a limit. Limits are not moved when tasks end, but here.
func (p *Pool) check(w *worker) {
	if w.chunks.empty() {
		return
	}
	k := w.chunks.front.of
	if w.cancelledAt != 0 {
		limit := w.cancelledAt + p.cfg.CancelGrace
		if p.now >= limit {
			p.condemn(w, k, k.done, CallCancelled)
			return
		}
		p.wake(&w.alarm, limit)
	}
	timeout := k.call.spec.TaskTimeout
	if timeout == 0 {
		return
	}
	limit := max(w.since+timeout+lateness, w.inspectAt)
	switch {
	case p.now < limit:
		p.wake(&w.alarm, limit)
	case w.hello.CreditTasks == 1: // there is no record to inspect, but the task began when it was sent
		p.judge(w, k, k.done, w.since)
	default:
		p.emit(Inspect).Worker = w.id
		w.inspectAt = p.now + timeout // in case there is no answer
		p.wake(&w.alarm, w.inspectAt)
	}
}

// Progress is what the progress record of a worker says, in answer to Inspect: which task runs, and since when.
func (p *Pool) Progress(now time.Time, id WorkerID, chunk ChunkID, offset int, started time.Time, running bool) {
	p.clock(now)
	w := p.workers[id]
	if w == nil || w.state != live || !running {
		return
	}
	k := w.find(chunk)
	if k == nil || k.call.spec.TaskTimeout == 0 || offset < k.done || offset >= k.end {
		return
	}
	p.judge(w, k, offset, p.moment(started))
}

// judge condemns a task that has outlived its timeout by the grace.
func (p *Pool) judge(w *worker, k *chunk, offset int, started moment) {
	started = min(max(started, k.sent), p.now)
	late := p.now - started - k.call.spec.TaskTimeout
	switch {
	case late >= p.cfg.CancelGrace:
		p.condemn(w, k, offset, TaskTimedOut)
		return
	case late >= 0:
		w.inspectAt = started + k.call.spec.TaskTimeout + p.cfg.CancelGrace
	default:
		w.inspectAt = started + k.call.spec.TaskTimeout + lateness
	}
	p.wake(&w.alarm, w.inspectAt)
}

// condemn ends a task by the end of its worker.
func (p *Pool) condemn(w *worker, k *chunk, offset int, r Reason) {
	w.condemned, w.offset = k.ID, offset
	p.signal(w, r)
}

// Exited says that a worker process has been reaped. Its task in hand is to blame, if it had one; the others that it held run elsewhere.
func (p *Pool) Exited(now time.Time, id WorkerID, exit Exit) {
	p.clock(now)
	w := p.workers[id]
	if w == nil {
		return
	}
	blamed := false
	if !p.terminated {
		for i := range exit.Recovered {
			p.recover(w, &exit.Recovered[i])
		}
		blamed = p.bury(w, &exit)
	}
	p.move(w, killed)
	delete(p.workers, id)
	p.vacate(w, &exit, blamed)
}

// recover takes over a report that the stream did not bring, or not all of it.
func (p *Pool) recover(w *worker, r *Report) {
	if w.chunks.empty() || w.reason == Misbehaved {
		return
	}
	k := w.chunks.front.of
	if r.Chunk == k.ID && r.valid(k.end) && r.First <= k.done && r.First+r.N > k.done {
		if r.Ran <= 0 { // the record does not say; the time since the last report would include what the guilty task took
			r.Ran = max(1, moment(r.N)*k.cost)
		}
		p.absorb(k, r)
	}
}

// bury finds the task to blame for the end of w and gives back the rest. It says whether there was one.
func (p *Pool) bury(w *worker, exit *Exit) bool {
	if w.chunks.empty() {
		return false
	}
	var guilty *chunk
	lost := 0 // up to this place of it
	switch {
	case !exit.Known || w.reason == Misbehaved:
		guilty = w.chunks.front.of
		lost = guilty.done + 1
	case exit.Running:
		if k := w.find(exit.Chunk); k != nil && exit.Offset >= k.done && exit.Offset < k.end {
			guilty, lost = k, exit.Offset+1
		}
	}
	for l := w.chunks.back; l != nil; {
		k := l.of
		l = l.prev
		if k != guilty {
			p.giveBack(k, k.done)
			p.update(k.call)
		} else if lost < k.end {
			p.giveBack(k, lost)
		}
	}
	if guilty == nil {
		return false
	}
	p.lose(w, guilty, exit.Why)
	p.drop(guilty)
	p.update(guilty.call)
	return true
}

// lose gives the tasks that are left of k, which is one if the worker kept its record well, their outcome.
func (p *Pool) lose(w *worker, k *chunk, why any) {
	c, o, r := k.call, WorkerLost, NoReason
	n := k.end - k.done
	seq := k.todo.next() + uint64(n-1)
	switch {
	case c.cancelled:
		o, r = Cancelled, c.reason
	case c.cancelledTask(seq):
		o, r = Cancelled, CallCancelled
	case w.reason == TaskTimedOut && w.condemned == k.ID && w.offset < k.end:
		o, r = Timeout, TaskTimedOut
	case w.reason == Misbehaved:
		r = Misbehaved
	}
	c.flying -= n
	c.owe(p.now - w.clocked - moment(n)*k.cost - w.overrun)
	again := c.retries(seq, k.Attempt, o)
	parts := p.settle(k, nil, n)
	if again {
		p.requeue(c, parts, k.Attempt)
		return
	}
	p.fail(c, parts, k.Attempt, o, r)
	d := &p.out.deliveries[len(p.out.deliveries)-1]
	d.Worker, d.Why = w.id, why
}
