package sched

import (
	"fmt"
	"math"
	"time"
)

// What workers say about their work.

// Results says that tasks have ended. A worker that reports anything but the next tasks of the chunk that it runs is killed.
func (p *Pool) Results(now time.Time, id WorkerID, r Report) {
	p.clock(now)
	w := p.serving(id)
	if w == nil {
		return
	}
	if w.chunks.empty() {
		p.misbehaved(w, fmt.Sprintf("it reported tasks of chunk %d and holds no chunk", r.Chunk))
		return
	}
	k := w.chunks.front.of
	if k.ID != r.Chunk || r.First != k.done || !r.valid(k.end) {
		p.misbehaved(w, fmt.Sprintf("it reported %d tasks of chunk %d from place %d on; next is place %d of chunk %d, which ends at %d",
			r.N, r.Chunk, r.First, k.done, k.ID, k.end))
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

// absorb delivers the tasks of r, which are the next ones of k, except for those that are to be tried again, and one for which its worker has been signalled:
// what that one comes to has been decided. Some of the first may have been delivered before.
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

	each := max(1, ran/moment(n)) // they have run, also if an earlier report that came with this one has taken all the time there was
	if late := w.offset; w.state >= signalled && w.condemned == k.ID && late >= k.done && late < r.First+r.N {
		p.pass(k, r, late, each)
		p.overrule(k, each)
	}
	p.pass(k, r, r.First+r.N, each)
	if k.done == k.end {
		p.drop(k)
	}
	p.update(c)
	p.watch(w)
}

// pass delivers the tasks of a report before place to, each of which ran for about so long, except for those that are to be tried again.
func (p *Pool) pass(k *chunk, r *Report, to int, each moment) {
	c := k.call
	for _, f := range r.Failed {
		if f.Offset < k.done || f.Offset >= to {
			continue
		}
		again, so := false, past{attempts: k.Attempt}
		if f.Outcome == Cancelled && p.cut(k, f.Offset) {
			again, so = true, k.interrupted()
		} else if k.Attempt < c.spec.MaxAttempts && c.spec.RetryOn.Has(f.Outcome) {
			skip := k.todo
			skip.skip(f.Offset - k.done)
			again = c.retries(skip.next(), k.Attempt, f.Outcome)
		}
		if !again {
			c.failed++
			continue
		}
		p.deliverReport(k, r, f.Offset, each)
		parts := p.settle(k, nil, 1)
		p.requeue(c, parts, so)
	}
	p.deliverReport(k, r, to, each)
}

// settle passes over the next n tasks of k and appends them to parts.
func (p *Pool) settle(k *chunk, parts []Part, n int) []Part {
	parts, bytes := k.todo.take(parts, n)
	k.done += n
	k.worker.hold(-n, -bytes, k.cost)
	return parts
}

// deliverReport delivers the tasks of a report before place to, each of which ran for about so long.
func (p *Pool) deliverReport(k *chunk, r *Report, to int, each moment) {
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
	d := p.deliver(c, mark, to-first)
	d.Attempts, d.Outcome, d.Report, d.First, d.Worker, d.Bytes = k.Attempt, Value, *r, first, k.worker.id, bytes
	d.Ran = each * moment(to-first)
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
	case k == nil && from >= math.MaxInt32: // nothing; it gave the chunk back when it began to leave, and had not heard yet that it was asked
	case k == nil:
		p.misbehaved(w, fmt.Sprintf("it returned chunk %d, which it does not hold", chunk))
		return
	case from < k.done:
		p.misbehaved(w, fmt.Sprintf("it returned chunk %d from place %d on, but has reported tasks up to %d", chunk, from, k.done))
		return
	default:
		if k.revokes > 0 {
			w.revoking--
			if k.revokes--; k.revokes == 0 {
				delete(w.revoked, k.ID)
			}
		}
		if from < k.end {
			p.giveBack(k, from)
			p.update(k.call)
			p.watch(w)
		}
	}
	p.place(w)
}

// find is the chunk, if w holds it. One that it has not been asked for is mostly the first, or has ended: their numbers grow.
func (w *worker) find(id ChunkID) *chunk {
	if k := w.revoked[id]; k != nil {
		return k
	}
	for l := w.chunks.front; l != nil && l.of.ID <= id; l = l.next {
		if l.of.ID == id {
			return l.of
		}
	}
	return nil
}
