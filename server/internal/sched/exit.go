package sched

import "time"

// What becomes of the tasks of a worker that has exited.

// Exited says that a worker process has been reaped. Its task in hand is to blame, if it had one; the others that it held run elsewhere.
func (p *Pool) Exited(now time.Time, id WorkerID, exit Exit) {
	p.clock(now)
	w := p.workers[id]
	if w == nil {
		return
	}
	blamed := false
	w.why = exit.Why
	if !p.terminated {
		for i := range exit.Recovered {
			p.recover(w, &exit.Recovered[i])
		}
		blamed = p.bury(w, &exit)
	}
	p.move(w, killed)
	delete(p.workers, id)
	if p.leaver == w {
		p.leaver = nil
	}
	if w.old {
		p.old--
		if w.retiring != NotNeeded { // nobody takes its place
			p.replaced++
		}
	}
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
	front := w.chunks.front.of
	var guilty, cut *chunk
	lost := 0 // up to this place of it
	switch k, condemned := w.find(exit.Chunk), w.find(w.condemned); {
	case !exit.Known || w.reason == Misbehaved || exit.absurd(k, front):
		guilty, lost = front, front.done+1
	case exit.Running && k != nil && exit.Offset >= k.done:
		if p.cut(k, exit.Offset) {
			cut = k
		} else {
			guilty, lost = k, exit.Offset+1
		}
	case condemned != nil && w.offset >= condemned.done && w.offset < condemned.end: // it was killed for this one, begun or not
		guilty, lost = condemned, w.offset+1
	case exit.Kind == ExitAbnormal && w.reason == NoReason && front.call.suspect(front.todo.next()):
		guilty, lost = front, front.done+1
	}
	for l := w.chunks.back; l != nil; {
		k := l.of
		l = l.prev
		if k == cut {
			if exit.Offset+1 < k.end {
				p.giveBack(k, exit.Offset+1)
			}
			p.putBack(k, exit.Offset, k.interrupted())
		}
		if k != guilty {
			if k.done < k.end {
				p.giveBack(k, k.done)
			}
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

// cut tells whether the task at a place of k was interrupted because of an earlier one, for which its worker was signalled, and which had ended just
// then. It is nobody's fault but ours: it runs again, and that is no attempt. If it was to be cancelled anyway, it is.
func (p *Pool) cut(k *chunk, offset int) bool {
	w, c := k.worker, k.call
	if w.condemned == 0 || w.state < signalled || k.ID < w.condemned || k.ID == w.condemned && offset <= w.offset || c.cancelled {
		return false
	}
	at := k.todo
	at.skip(offset - k.done)
	return !c.cancelledTask(at.next())
}

// interrupted is the past of a task that was cut.
func (k *chunk) interrupted() past { return past{k.past.attempts, true} }

// absurd tells whether a record names a task that its worker cannot have run: one of a chunk that it has not had, or that it has given back. k
// is the chunk, if the worker holds it, front the first one that it holds. Of one that has ended the record may still speak.
func (x *Exit) absurd(k, front *chunk) bool {
	return x.Running && (k == nil && x.Chunk > front.ID || k != nil && x.Offset >= k.end)
}

// tolerated is how many workers may die when it is the turn of a task, and their record say that it had not begun.
const tolerated = 3

// suspect takes note of the death of a worker that had not begun this task, as its record says. It tells whether that was once too often: a record
// may be wrong, and a task must not be tried for ever.
func (c *call) suspect(seq uint64) bool {
	if c.deaths == nil {
		c.deaths = make(map[uint64]int)
	}
	c.deaths[seq]++
	return c.deaths[seq] >= tolerated
}

// lose gives the tasks that are left of k, which is one if the worker kept its record well, their outcome.
func (p *Pool) lose(w *worker, k *chunk, why any) {
	c := k.call
	n := k.end - k.done
	seq := k.todo.next() + uint64(n-1)
	o, r := WorkerLost, NoReason
	switch {
	case c.cancelledTask(seq):
		o, r = Cancelled, c.cancelReason()
	case w.reason == TaskTimedOut && w.condemned == k.ID && w.offset < k.end:
		o, r = Timeout, TaskTimedOut
	case w.reason == Misbehaved:
		r = Misbehaved
	}
	c.flying -= n
	c.owe(p.now - w.clocked - moment(n)*k.cost - w.overrun)
	p.blame(k, n, o, r, why, max(1, p.now-w.clocked))
}

// blame gives the next n tasks of k, which ran for so long together, an outcome that their worker has not reported; or another attempt. What they have in
// common is the last one of them.
func (p *Pool) blame(k *chunk, n int, o Outcome, r Reason, why any, ran moment) {
	c := k.call
	again := c.retries(k.todo.next()+uint64(n-1), k.Attempt, o)
	parts := p.settle(k, nil, n)
	if again {
		p.requeue(c, parts, past{attempts: k.Attempt})
		return
	}
	d := p.fail(c, parts, k.Attempt, o, r)
	d.Worker, d.Why, d.Ran = k.worker.id, why, ran
}

// overrule gives the next task of k the outcome for which its worker has been signalled: whatever the worker says about it since comes too late.
func (p *Pool) overrule(k *chunk, ran moment) {
	w, c := k.worker, k.call
	o, r := Timeout, TaskTimedOut
	if c.cancelledTask(k.todo.next()) {
		o, r = Cancelled, c.cancelReason()
	}
	p.blame(k, 1, o, r, w.why, ran)
}
