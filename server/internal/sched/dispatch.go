package sched

// How work gets to workers. An idle worker always gets some. A worker that runs something gets more when what it holds besides falls
// below half the prefetch, until it reaches the prefetch: so the next chunk is there when the last one ends, and nothing
// waits long behind work that has been given away. When work has run out, an idle worker takes some back from a loaded one; what waits behind
// a task that hangs is taken back in any case (stuck.go).

const (
	firstChunk = 16             // tasks in a chunk as long as only the function's estimate is known…
	firstTasks = 4 * firstChunk // …and at a worker
	leastChunk = 100_000        // ns of work: smaller chunks cost more than they level out
	mostResult = 1 << 20        // bytes of expected results in a chunk
	worthwhile = 1_000_000      // ns of work: less is not taken back
	takeEvery  = moment(1e6)    // how often workers are looked at for work to take back…
	takeRarely = 64 * takeEvery // …and how often, in the end, if there was none
	lookCost   = 200            // ns per worker: the look takes less than one per cent
	keepFree   = 4096           // chunks kept for later
)

// estimate is what a task costs, as far as it is known. Zero is unknown.
type estimate struct {
	run   moment // of a task; at least 1 once it is known
	bytes int    // of a result
}

// observe takes n tasks into account, which ran for run together and returned so many bytes. Later tasks count more: the last four
// make up half.
func (e *estimate) observe(n int, run moment, bytes int) {
	if e.run == 0 {
		e.run, e.bytes = max(1, run/moment(n)), bytes/n
		return
	}
	e.run = max(1, e.run+(run-moment(n)*e.run)/moment(n+4))
	e.bytes += (bytes - n*e.bytes) / (n + 4)
}

// chunk is tasks that a worker holds.
type chunk struct {
	Chunk
	past    past // of its tasks, when it was dispatched
	call    *call
	worker  *worker
	todo    cursor // stands at the first task without outcome
	done    int    // the first so many tasks have their outcome
	end     int    // tasks from here on have been given back
	cost    moment // estimated, of each task
	sent    moment
	revokes int // unanswered

	ofWorker, ofCall link[*chunk]
}

// reset makes a chunk as good as new. It keeps the memory of its parts.
func (k *chunk) reset() {
	parts := k.Parts[:cap(k.Parts)]
	clear(parts)
	*k = chunk{Chunk: Chunk{Parts: parts[:0]}}
	k.ofWorker.of, k.ofCall.of = k, k
}

// recycle keeps some of the chunks that have ended for later.
func (p *Pool) recycle() {
	for i, k := range p.ended {
		p.ended[i] = nil
		if len(p.free) < keepFree {
			k.reset()
			p.free = append(p.free, k)
		}
	}
	p.ended = p.ended[:0]
}

func (p *Pool) newChunk() *chunk {
	if n := len(p.free); n > 0 {
		k := p.free[n-1]
		p.free[n-1] = nil
		p.free = p.free[:n-1]
		return k
	}
	k := new(chunk)
	k.reset()
	return k
}

// dispatch gives work to whoever can take it.
func (p *Pool) dispatch() {
	if p.idle.empty() && p.hungry.empty() {
		return
	}
	p.sweep()
	for {
		line := p.idle.front
		if line == nil {
			line = p.hungry.front
		}
		if line == nil {
			return
		}
		c := p.next()
		if c == nil {
			return
		}
		w := line.of
		if n := p.size(c, w); n == 0 || !p.send(w, c, n) {
			w.line.leave() // it is full; its next report brings it back
		} else if p.hungry.front == &w.line && p.hungry.back != &w.line {
			w.line.leave()
			p.hungry.pushBack(&w.line)
		}
	}
}

// prefetch is how much work of a call a worker may hold besides what it runs. Where results linger there has to be enough until those have
// come that call for more.
func (p *Pool) prefetch(c *call) moment { return max(p.cfg.Prefetch, 2*c.spec.Linger) }

// size is how many tasks of c the worker should get; 0 if it holds enough. An idle worker gets one at least.
func (p *Pool) size(c *call, w *worker) int {
	if w.tasks > 0 && p.now-w.since > w.work+p.prefetch(c) {
		return 0 // it is stuck
	}
	n := min(c.queued, p.cfg.MaxChunkTasks, w.left)
	if c.spec.ChunkSize > 0 {
		n = min(n, c.spec.ChunkSize)
	}
	task := c.est.run
	if task == 0 {
		return 1
	}
	if !c.measured {
		n = min(n, firstChunk, firstTasks-w.tasks)
	}
	if n*c.est.bytes > mostResult {
		n = max(1, mostResult/c.est.bytes)
	}
	waiting, budget := 0, p.cfg.TargetChunk
	if !w.chunks.empty() {
		k := w.chunks.front.of
		waiting, budget = w.tasks-(k.end-k.done), p.prefetch(c)-w.ahead()
		n = min(n, w.hello.CreditTasks-w.tasks, p.cfg.MaxChunkTasks-waiting)
	}
	if moment(n)*task > budget {
		n = max(1, int(budget/task))
	}
	// Toward the end of what is known of a call chunks become smaller, so that all workers finish together.
	if all, parts := c.queued+c.flying, 2*max(1, p.want()); (waiting+n)*parts > all && moment(waiting+n)*task > leastChunk {
		n = max(all/parts, int(leastChunk/task), 1) - waiting
	}
	return max(0, n)
}

// send dispatches n tasks of c, or fewer: a chunk holds tasks with the same past, and has a limit in bytes. False
// if the worker has not enough credit for any.
func (p *Pool) send(w *worker, c *call, n int) bool {
	n = min(n, max(1, w.hello.CreditTasks-w.tasks))
	limit := min(p.cfg.MaxChunkBytes, w.hello.CreditBytes-w.bytes)
	k := p.newChunk()
	so, bytes := c.queue.at(0).past, 0
	for k.N < n && c.queue.n > 0 && c.queue.at(0).past == so {
		front := c.queue.at(0)
		// One item passes alone, however large.
		part := front.takeWithin(n-k.N, limit-bytes, k.N == 0 && (w.tasks == 0 || front.batch.size(front.From, 1) <= w.hello.CreditBytes-w.bytes))
		if part.N == 0 {
			break
		}
		if k.N == 0 {
			k.Waited = p.now - part.batch.added
		}
		k.Parts = append(k.Parts, part)
		k.N += part.N
		bytes += part.Bytes
		if front.N == 0 {
			c.queue.popFront()
		}
	}
	if k.N == 0 {
		p.free = append(p.free, k)
		return false
	}
	p.lastChunk++
	k.ID, k.Call, k.Function, k.Attempt = p.lastChunk, c.spec.ID, c.function.place[w.generation.side], so.attempts+1
	k.past = so
	k.TaskTimeout, k.Linger, k.Deadline = c.spec.TaskTimeout, c.spec.Linger, c.spec.Deadline
	k.call, k.worker, k.end, k.sent = c, w, k.N, p.now
	k.todo.parts = k.Parts
	if k.cost = c.est.run; k.cost == 0 {
		k.cost = p.cfg.TargetChunk
	}
	w.left -= k.N
	c.queued -= k.N
	c.flying += k.N
	c.chunks.pushBack(&k.ofCall)
	idle := w.chunks.empty()
	w.chunks.pushBack(&k.ofWorker)
	w.hold(k.N, bytes, k.cost)
	if idle {
		w.since, w.clocked = p.now, p.now
		p.watch(w)
	}
	e := p.emit(Dispatch)
	e.Worker, e.Call, e.Chunk, e.ChunkID = w.id, c.spec.ID, &k.Chunk, k.ID
	p.spend(c, moment(k.N)*k.cost)
	p.update(c)
	p.place(w)
	return true
}

// giveBack returns the tasks of k from place from on to their queue. They count as not dispatched.
func (p *Pool) giveBack(k *chunk, from int) { p.putBack(k, from, k.past) }

// putBack is giveBack of tasks of which one may have begun: so says what has become of them.
func (p *Pool) putBack(k *chunk, from int, so past) {
	n, w, c := k.end-from, k.worker, k.call
	tail := k.todo
	tail.skip(from - k.done)
	parts, bytes := tail.take(nil, n)
	k.end = from
	w.left += n
	c.flying -= n
	c.owe(-moment(n) * k.cost)
	w.hold(-n, -bytes, k.cost)
	p.requeue(c, parts, so)
	if k.done == k.end {
		p.drop(k)
	}
}

// drop ends a chunk all of whose tasks are settled or have been given back.
func (p *Pool) drop(k *chunk) {
	w := k.worker
	if k.revokes > 0 {
		w.unanswered += k.revokes
		delete(w.revoked, k.ID)
	}
	if w.chunks.front == &k.ofWorker {
		w.cancelledAt, w.inspectAt = 0, 0
	}
	k.ofWorker.leave()
	k.ofCall.leave()
	p.ended = append(p.ended, k)
}

// takeBack takes work from loaded workers when there are idle ones with nothing to do. It looks at every worker, so it is done
// seldom; how seldom depends on whether it was of use.
func (p *Pool) takeBack() {
	if p.idle.empty() || p.loaded == 0 || p.fair.len() > 0 {
		return
	}
	if p.now >= p.takeAt {
		if p.takeFrom() {
			p.takeEvery = takeEvery
		} else {
			p.takeEvery = min(2*p.takeEvery, takeRarely)
		}
		p.takeAt = p.now + max(p.takeEvery, p.look())
	}
	if p.loaded > 0 {
		p.wake(&p.taker, p.takeAt)
	}
}

// look is the least time between two looks at all workers.
func (p *Pool) look() moment { return max(takeEvery, moment(len(p.slots))*lookCost) }

// takeFrom takes work back from those workers that have the most left, as many as there are idle ones, and says whether there was any.
func (p *Pool) takeFrom() bool {
	most := moment(0)
	for _, s := range p.slots {
		if w := s.worker; w != nil && w.loaded {
			most = max(most, p.left(w))
		}
	}
	if most < worthwhile {
		return false
	}
	takers := 0
	for l := p.idle.front; l != nil; l = l.next {
		takers++
	}
	taken := false
	for _, s := range p.slots {
		if w := s.worker; takers > 0 && w != nil && w.loaded && p.left(w) >= max(worthwhile, most/2) && p.revokeHalf(w) {
			takers--
			taken = true
		}
	}
	return taken
}

// left estimates how long a worker will be busy with what it holds. One that should have finished by now, but has not, may need as
// long as it is late.
func (p *Pool) left(w *worker) moment {
	left := max(w.work, moment(w.tasks)*w.chunks.front.of.call.est.run) - (p.now - w.since)
	return max(left, -left)
}

// revokeHalf asks for half of what w has not started, the last tasks first. False if that is of no use, because their calls are stalled.
func (p *Pool) revokeHalf(w *worker) bool {
	want := w.tasks / 2 // one runs
	head := w.chunks.front.of
	if late := p.now - w.since; late > w.work {
		head.call.est.observe(1, late, head.call.est.bytes)
	}
	for l := w.chunks.back; l != nil && want > 0; l = l.prev {
		k := l.of
		n := k.end - k.done
		if k == head {
			n--
		}
		n = min(n, want)
		if n == 0 || k.call.unread >= p.cfg.WindowBytes {
			continue
		}
		p.revoke(k, k.end-n)
		want -= n
	}
	p.place(w)
	return w.revoking > 0
}

func (p *Pool) revoke(k *chunk, from int) {
	w := k.worker
	if w.revoked == nil {
		w.revoked = map[ChunkID]*chunk{}
	}
	w.revoked[k.ID] = k
	k.revokes++
	w.revoking++
	e := p.emit(Revoke)
	e.Worker, e.Call, e.ChunkID, e.Offset = w.id, k.Call, k.ID, from
}
