package sched

import (
	"slices"
	"time"
)

// How a task is ended before it ends: because it was cancelled, or because it outlived its timeout. Its worker is asked first; the
// process gets SIGTERM when the grace is over, and SIGKILL after the kill delay. There is one deadline per worker for all that can happen to it, whatever
// the number of tasks, and it is not moved when a task ends: when it is due, the core looks what the current task is.

// recall cancels what is left of a chunk: what runs by CancelTask, the rest by Revoke. A worker that has been stopped does not answer that, and may have
// begun the chunk although it has not reported the end of the one before.
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
	p.suspect(w, k, k.done)
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
				p.suspect(w, k, offset)
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

// maxLateness is what a task gets beyond its timeout before the daemon looks: the worker ends it by itself, and its report takes a while. A shorter grace leaves less.
const maxLateness = 100 * time.Millisecond

func (p *Pool) lateness() moment { return min(maxLateness, p.cfg.CancelGrace) }

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
		p.wake(&w.alarm, w.since+c.spec.TaskTimeout+p.lateness())
	}
}

// check looks whether the current task of a live worker has outlived a limit. Limits are not moved when tasks end, but here.
func (p *Pool) check(w *worker) {
	p.aged(w)
	if w.chunks.empty() {
		w.suspectAt = 0
		return
	}
	p.unburden(w)
	if w.suspectAt != 0 && p.now >= w.suspectAt {
		w.suspectAt = 0
		p.emit(Inspect).Worker = w.id
	} else if w.suspectAt != 0 {
		p.wake(&w.alarm, w.suspectAt)
	}
	k := w.chunks.front.of
	if w.cancelledAt != 0 {
		limit := w.cancelledAt + p.cfg.CancelGrace
		if p.now >= limit {
			p.condemn(w, k, k.done, k.call.cancelReason())
			return
		}
		p.wake(&w.alarm, limit)
	}
	timeout := k.call.spec.TaskTimeout
	if timeout == 0 {
		return
	}
	limit := max(w.since+timeout+p.lateness(), w.inspectAt)
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

// Progress is what the progress record of a worker says, in answer to Inspect: which task runs, and since when. If it names none that the worker
// holds, it does not excuse the worker: whether it was stopped before it began or keeps its record badly, its first task is as old as the last
// news of it.
func (p *Pool) Progress(now time.Time, id WorkerID, chunk ChunkID, offset int, started time.Time, running bool) {
	p.clock(now)
	w := p.workers[id]
	if w == nil || w.state != live || w.chunks.empty() {
		return
	}
	k, since := w.find(chunk), p.moment(started)
	if !running || k == nil || offset < k.done || offset >= k.end {
		k = w.chunks.front.of
		offset, since = k.done, w.since
	} else if p.defies(w, k, offset) {
		return
	}
	if k.call.spec.TaskTimeout > 0 {
		p.judge(w, k, offset, since)
	}
}

// suspect must be called when a task that w holds has been cancelled. If that is not the current one as far as the worker has reported, it may run
// all the same: the reports of those before it may wait in a worker that has been stopped. Its record tells, now and when the grace is over.
func (p *Pool) suspect(w *worker, k *chunk, offset int) {
	if w.suspectAt != 0 || w.state != live || k == w.chunks.front.of && offset == k.done {
		return
	}
	p.emit(Inspect).Worker = w.id
	w.suspectAt = p.now + p.cfg.CancelGrace
	p.wake(&w.alarm, w.suspectAt)
}

// defies condemns the task that a worker runs as its record says, if it was seen running and cancelled as long ago as the grace.
func (p *Pool) defies(w *worker, k *chunk, offset int) bool {
	at := k.todo
	at.skip(offset - k.done)
	if !k.call.cancelledTask(at.next()) {
		return false
	}
	if w.defiant != k.ID || w.defiantOffset != offset {
		w.defiant, w.defiantOffset, w.defiantAt = k.ID, offset, p.now
	}
	w.suspectAt = w.defiantAt + p.cfg.CancelGrace
	if p.now < w.suspectAt {
		p.wake(&w.alarm, w.suspectAt)
		return false
	}
	p.condemn(w, k, offset, k.call.cancelReason())
	return true
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
		w.inspectAt = started + k.call.spec.TaskTimeout + p.lateness()
	}
	p.wake(&w.alarm, w.inspectAt)
}

// condemn ends a task by the end of its worker.
func (p *Pool) condemn(w *worker, k *chunk, offset int, r Reason) {
	w.condemned, w.offset = k.ID, offset
	p.signal(w, r)
}
