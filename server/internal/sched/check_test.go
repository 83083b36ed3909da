package sched

import "testing"

// What must always hold. checkPool looks at the pool from the inside, after every Settle; world looks at the effects from
// the outside, as clients and workers see them.
//
//  1. Every task has exactly one outcome; nothing follows Ended or Refused; Ended comes when every task has had its outcome.
//  2. The parts of a delivery or dispatch name the right items: place and bytes agree with what was added.
//  3. A worker holds no more tasks and bytes than its credits allow (one task always passes), and what the pool thinks it holds is
//     what it was sent and has not answered for.
//  4. No task is held by two workers, and no task is dispatched that has had an outcome or was cancelled.
//  5. A task is dispatched again under a new attempt number only after an outcome that its call retries; take-back and an innocent
//     worker's end do not count.
//  6. No worker is idle while a task could be dispatched. A call that could be dispatched is in the fair queue, and no other is.
//  7. A process is started only while there are fewer than Workers, Spares, and one during a restart. Never more than Workers run tasks,
//     but those that finish their last ones after Workers has been made smaller.
//  8. When everybody behaves, every call ends, however badly they behaved before. Ended calls leave nothing behind.
//  9. A closed or terminated pool joins once its calls and processes are gone; there is no effect and no deadline after Joined.
//  10. Shares are fair within a bound (sim_test.go).
//  11. A worker is not given more tasks than Config.MaxTasks allows, counting those that it did not give back. A spare is given none, and one that
//     has been asked to stop holds none.
//  12. Somebody will look whether a worker that holds tasks behind the one that it runs is stuck.
//  13. A worker is given tasks of functions only that it offers, by the place that it has given them.
//  14. A degraded pool that tries nothing will try again by itself.

func checkPool(t testing.TB, p *Pool) {
	t.Helper()
	if p.joined {
		if len(p.workers) > 0 || len(p.calls) > 0 || p.alarms.len() > 0 {
			t.Fatalf("joined with %d workers, %d calls, %d deadlines", len(p.workers), len(p.calls), p.alarms.len())
		}
		return
	}
	if n := p.want() + p.extra(); !p.dismissed && (len(p.slots) < n || len(p.slots) > n && !p.vacant.empty()) {
		t.Fatalf("%d slots, some of them vacant: %v; want %d", len(p.slots), !p.vacant.empty(), n)
	}
	if !p.dismissed && (p.crew-p.retiring > p.want() || p.crew < p.want() && p.spares > 0 || p.spares > p.extra()) {
		t.Fatalf("a crew of %d of which %d are retiring and %d spares, want %d and %d", p.crew, p.retiring, p.spares, p.want(), p.extra())
	}
	if p.degraded && !p.terminated && !p.dismissed && p.starting == 0 && !p.vacant.empty() && p.prober.pos == 0 {
		t.Fatal("the pool is degraded, and nobody will try again")
	}
	if p.leaver != nil && p.workers[p.leaver.id] != p.leaver {
		t.Fatalf("worker %d has its turn to leave, and has left", p.leaver.id)
	}
	starting, ready, loaded, idle, crew, retiring, spares, old := 0, 0, 0, 0, 0, 0, 0, 0
	inFlight := map[*call]int{}
	for i, s := range p.slots {
		w := s.worker
		if s.index != i {
			t.Fatalf("slot %d thinks it is %d", i, s.index)
		}
		if places := b(w != nil) + b(s.place.in != nil) + b(s.alarm.pos > 0); places != 1 && !p.closed {
			t.Fatalf("a slot is in %d places, want 1", places)
		}
		if w == nil {
			continue
		}
		starting += b(w.state < live)
		ready += b(w.state == live)
		loaded += b(w.loaded)
		idle += b(w.line.in == &p.idle)
		old += b(w.old)
		if w.state == live {
			crew += b(!w.spare)
			spares += b(w.spare)
			retiring += b(!w.spare && w.retiring != NoReason)
		}
		if w.left < 0 || w.spare && w.tasks > 0 || w.asked && w.tasks > 0 || w.state == live && (w.left == 0 || w.retiring != NoReason) && w.tasks == 0 {
			t.Fatalf("worker %d holds %d tasks, may get %d more; spare %v, retiring %v, asked to stop %v", w.id, w.tasks, w.left, w.spare, w.retiring, w.asked)
		}
		if p.terminated {
			continue
		}
		tasks, bytes, work, revokes := 0, 0, moment(0), w.unanswered
		for l := w.chunks.front; l != nil; l = l.next {
			k := l.of
			todo := k.todo
			if k.done >= k.end || k.end > k.N {
				t.Fatalf("worker %d holds chunk %d with tasks %d to %d of %d", w.id, k.ID, k.done, k.end, k.N)
			}
			_, size := todo.take(nil, k.end-k.done)
			tasks += k.end - k.done
			bytes += size
			work += moment(k.end-k.done) * k.cost
			revokes += k.revokes
			inFlight[k.call] += k.end - k.done
			if p.calls[k.Call] != k.call {
				t.Fatalf("worker %d holds a chunk of call %d, which has ended", w.id, k.Call)
			}
			if got, want := w.generation.functions[k.Function], k.call.function.Function; got != want {
				t.Fatalf("worker %d is to run %v for call %d, which is of %v", w.id, got, k.Call, want)
			}
		}
		if tasks != w.tasks || bytes != w.bytes || work != w.work || revokes != w.revoking {
			t.Fatalf("worker %d holds %d tasks, %d bytes, %v of work, %d revokes; its account says %d, %d, %v, %d",
				w.id, tasks, bytes, work, revokes, w.tasks, w.bytes, w.work, w.revoking)
		}
		if tasks > max(1, w.hello.CreditTasks) || tasks > 1 && bytes > w.hello.CreditBytes {
			t.Fatalf("worker %d holds %d tasks, %d bytes; its credits are %d, %d", w.id, tasks, bytes, w.hello.CreditTasks, w.hello.CreditBytes)
		}
		if (w.line.in == &p.idle) != (w.state == live && w.tasks == 0 && !w.spare) {
			t.Fatalf("worker %d with %d tasks: idle %v", w.id, w.tasks, w.line.in == &p.idle)
		}
		if w.loaded && w.alarm.pos == 0 {
			t.Fatalf("worker %d has tasks behind the one that it runs, and nobody looks whether it is stuck", w.id)
		}
		if w.loaded != (w.state == live && w.tasks > 1 && w.revoking == 0) {
			t.Fatalf("worker %d: loaded %v", w.id, w.loaded)
		}
	}
	if crew != p.crew || retiring != p.retiring || spares != p.spares || p.rolling && old != p.old {
		t.Fatalf("%d in the crew, %d retiring, %d spares, %d old; the pool thinks %d, %d, %d, %d", crew, retiring, spares, old, p.crew, p.retiring, p.spares, p.old)
	}
	if starting != p.starting || ready != p.ready || loaded != p.loaded {
		t.Fatalf("%d starting, %d ready, %d loaded; the pool thinks %d, %d, %d", starting, ready, loaded, p.starting, p.ready, p.loaded)
	}
	if idle > 0 && p.fair.len() > 0 {
		t.Fatalf("%d workers are idle while tasks wait", idle)
	}
	pending := 0
	for id, c := range p.calls {
		queued := 0
		for i := range c.queue.n {
			r := c.queue.at(i)
			if r.N <= 0 {
				t.Fatalf("call %d queues an empty run", id)
			}
			queued += r.N
			if len(c.cancels) > 0 {
				sift(r.Part, c.cancels, func(p Part) { t.Fatalf("cancelled task %d of call %d waits", p.Seq, id) }, func(Part) {})
			}
		}
		if queued != c.queued || inFlight[c] != c.flying {
			t.Fatalf("call %d has %d tasks waiting, %d in flight; its account says %d, %d", id, queued, inFlight[c], c.queued, c.flying)
		}
		if len(c.cancels) > c.flying {
			t.Fatalf("call %d remembers %d cancelled tasks, but has %d in flight", id, len(c.cancels), c.flying)
		}
		if ready := c.queued > 0 && c.function != nil && !p.stalled(c); ready != (c.turn.pos > 0) {
			t.Fatalf("call %d could be dispatched: %v; is in the fair queue: %v", id, ready, c.turn.pos > 0)
		}
		if c.cancelled && c.queued > 0 {
			t.Fatalf("cancelled call %d has %d tasks waiting", id, c.queued)
		}
		pending += c.queued + c.flying
	}
	if uint64(pending) != p.pending {
		t.Fatalf("%d tasks pending, the pool thinks %d", pending, p.pending)
	}
	checkHeap(t, &p.fair)
	checkHeap(t, &p.alarms)
	for _, u := range p.users {
		checkHeap(t, &u.calls)
		if (u.calls.len() > 0) != (u.turn.pos > 0) {
			t.Fatalf("a user with %d calls: in the fair queue %v", u.calls.len(), u.turn.pos > 0)
		}
	}
}

func checkHeap[T any](t testing.TB, h *heap[T]) {
	t.Helper()
	for i, e := range h.entries {
		if e.node.pos != i+1 || i > 0 && h.entries[(i-1)/2].key > e.key {
			t.Fatalf("heap is out of order at %d", i)
		}
	}
}

func b(x bool) int {
	if x {
		return 1
	}
	return 0
}
