package sched

import "time"

// A worker is stuck when nothing has been heard of it for much longer than what it runs was estimated to take: its task hangs, or is of another kind
// than those before it. What it holds behind that task would wait as long, however many other workers there are, so it is taken back and is the
// next to be dispatched. A mistake does little harm: what is taken back is at most the prefetch and the rest of a chunk, and that is no attempt.

const (
	stuckFactor = 8                      // times the estimate: estimates are averages, and chunks of uneven tasks are right
	stuckLeast  = 100 * time.Millisecond // no sooner: a machine with more to do than CPUs lets a process wait for 20 or 50
)

// stuckAt is when a worker that holds something counts as stuck, if it is not heard of before: results that linger are no silence. One that has been asked for its tasks and still
// holds some (what a line program has in its pipe cannot be given back) is asked again when it has been silent for twice as long.
func (w *worker) stuckAt() moment {
	k := w.chunks.front.of
	at := w.since + k.Linger + max(stuckLeast, stuckFactor*moment(k.end-k.done)*k.cost)
	if w.relieved > w.since {
		at = max(at, 2*w.relieved-w.since)
	}
	return at
}

// unburden takes back what a stuck worker has not started, and looks later at one that is not. Like the other limits of workers this one is
// not moved when a task ends, but here.
func (p *Pool) unburden(w *worker) {
	if !w.loaded {
		return
	}
	if at := w.stuckAt(); p.now < at {
		p.wake(&w.alarm, at)
		return
	}
	w.relieved = p.now
	p.revokeRest(w)
	p.place(w)
}

// revokeRest asks for all that w has not started, the last chunk first: each goes to the front of its call, so they end up in order there.
func (p *Pool) revokeRest(w *worker) {
	for l := w.chunks.back; l != nil; l = l.prev {
		k, from := l.of, l.of.done
		if l.prev == nil {
			from++
		}
		if from < k.end {
			p.revoke(k, from)
		}
	}
}
