package sched

import (
	stdheap "container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// sim is a pool in a world that costs time: messages take a while, chunks and messages cost a worker something, clients have a
// window. It tells how long things take, and how the workers were shared.
type sim struct {
	t       testing.TB
	pool    *Pool
	now     moment
	events  simHeap
	n       int
	workers map[WorkerID]*simWorker
	calls   map[CallID]*simCall
	left    int // calls
	revokes int
	chunks  int
	window  int // of each call
}

const (
	simHop     = 60 * time.Microsecond  // from the pool to a worker or back, or to a client
	simChunk   = 1 * time.Microsecond   // of a worker, for a chunk
	simMessage = 10 * time.Microsecond  // of a worker, for a report
	simFlush   = 500 * time.Microsecond // a worker reports at least this often
)

type simCall struct {
	spec   CallSpec
	cost   []moment // of each task
	added  int
	done   int
	end    moment
	begin  moment
	worked moment
	first  moment // of the first outcome
}

type simWorker struct {
	id       WorkerID
	chunks   []*simHeld
	running  bool
	reported moment
}

type simHeld struct {
	id       ChunkID
	call     *simCall
	seqs     []uint64
	reported int
	done     int // may be ahead of what has been reported
	end      int
	ran      moment
}

type simEvent struct {
	at moment
	n  int
	do func()
}

type simHeap []simEvent

func (h simHeap) Len() int { return len(h) }
func (h simHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].n < h[j].n
}
func (h simHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *simHeap) Push(x any)   { *h = append(*h, x.(simEvent)) }
func (h *simHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func newSim(t testing.TB, workers int) *sim {
	t.Helper()
	s := &sim{t: t, window: 4096, pool: New(Config{Workers: workers}), workers: map[WorkerID]*simWorker{}, calls: map[CallID]*simCall{}}
	s.settle()
	for w := range workers {
		id := WorkerID(w + 1)
		s.workers[id] = &simWorker{id: id}
		s.pool.Registered(s.time(), id, Hello{functions, 4096, 16 << 20})
		s.pool.Ready(s.time(), id)
	}
	return s
}

func (s *sim) time() time.Time { return time.Unix(1_000_000_000, int64(s.now)) }

func (s *sim) at(m moment, do func()) {
	s.n++
	stdheap.Push(&s.events, simEvent{m, s.n, do})
}

// open makes a call at a time.
func (s *sim) open(at moment, spec CallSpec, cost []moment) *simCall {
	spec.Function = "f"
	c := &simCall{spec: spec, cost: cost, begin: at}
	s.calls[spec.ID] = c
	s.left++
	s.at(at, func() {
		s.pool.Open(s.time(), spec)
		s.more(c, s.window)
	})
	return c
}

func (s *sim) more(c *simCall, n int) {
	if n = min(n, len(c.cost)-c.added); n > 0 {
		s.pool.Add(s.time(), c.spec.ID, Items{N: n, ItemSize: 8})
		c.added += n
		if c.added == len(c.cost) {
			s.pool.EndInput(s.time(), c.spec.ID)
		}
	}
}

// run lets time pass until every call has ended, or until the end.
func (s *sim) run(end moment) {
	for s.left > 0 && s.now < end {
		next := moment(math.MaxInt64)
		if len(s.events) > 0 {
			next = s.events[0].at
		}
		if d, ok := s.pool.NextDeadline(); ok {
			next = min(next, max(s.now, d.Sub(time.Unix(1_000_000_000, 0))))
		}
		if next == math.MaxInt64 {
			s.t.Fatalf("nothing happens any more at %v", s.now)
		}
		s.now = next
		for len(s.events) > 0 && s.events[0].at <= s.now {
			stdheap.Pop(&s.events).(simEvent).do()
		}
		s.settle()
	}
}

func (s *sim) settle() {
	for _, e := range s.pool.Settle(s.time()) {
		switch e.Kind {
		case Dispatch:
			s.chunks++
			w, h := s.workers[e.Worker], &simHeld{id: e.Chunk.ID, call: s.calls[e.Call], end: e.Chunk.N}
			for _, p := range e.Chunk.Parts {
				for i := range p.N {
					h.seqs = append(h.seqs, p.Seq+uint64(i))
				}
			}
			s.at(s.now+simHop, func() {
				w.chunks = append(w.chunks, h)
				if !w.running {
					w.running = true
					s.at(s.now+simChunk, func() { s.work(w) })
				}
			})
		case Revoke:
			s.revokes++
			w, id, from := s.workers[e.Worker], e.ChunkID, e.Offset
			s.at(s.now+simHop, func() { s.giveBack(w, id, from) })
		case Deliver:
			c, n, bytes := s.calls[e.Call], e.Delivery.N, e.Delivery.Bytes
			if c.done == 0 {
				c.first = s.now
			}
			c.done += n
			s.at(s.now+2*simHop, func() {
				s.pool.Written(s.time(), c.spec.ID, n, bytes)
				s.more(c, n)
			})
		case Ended:
			s.calls[e.Call].end = s.now
			s.left--
		}
	}
}

// work runs the next task, or as many short ones as make a step, and reports when it is time.
func (s *sim) work(w *simWorker) {
	if len(w.chunks) == 0 {
		w.running = false
		return
	}
	h := w.chunks[0]
	took := moment(0)
	for h.done < h.end && took < 20*time.Microsecond {
		took += h.call.cost[h.seqs[h.done]]
		h.done++
	}
	h.ran += took
	h.call.worked += took
	end := s.now + took
	last := h.done == h.end
	if n := h.done - h.reported; n > 0 && (last || end-w.reported >= simFlush) {
		r := Report{Chunk: h.id, First: h.reported, N: n, Bytes: 8 * n, Ran: h.ran}
		h.reported, h.ran = h.done, 0
		if end-w.reported >= simFlush || len(w.chunks) == 1 {
			end += simMessage
			w.reported = end
		}
		s.at(end+simHop, func() { s.pool.Results(s.time(), w.id, r) })
	}
	if last {
		w.chunks = w.chunks[1:]
		end += simChunk
	}
	s.at(end, func() { s.work(w) })
}

func (s *sim) giveBack(w *simWorker, id ChunkID, from int) {
	at := 1 << 30 // it has ended already
	for i, h := range w.chunks {
		if h.id == id {
			at = max(from, h.done)
			at = min(at, h.end)
			h.end = at
			if h.done == h.end && h.reported == h.done && !(i == 0 && w.running && h.done > 0) {
				w.chunks = append(w.chunks[:i:i], w.chunks[i+1:]...)
			}
			break
		}
	}
	s.at(s.now+simHop, func() { s.pool.Returned(s.time(), w.id, id, at) })
}

// fixed is how long chunks of one size take, with no cost for messages and none for waiting for them: nobody can do better with that size.
func fixed(workers, size int, cost []moment) moment {
	free := make([]moment, workers)
	for from := 0; from < len(cost); from += size {
		first := 0
		for w := range free {
			if free[w] < free[first] {
				first = w
			}
		}
		free[first] += simChunk
		for _, c := range cost[from:min(from+size, len(cost))] {
			free[first] += c
		}
	}
	end := moment(0)
	for _, f := range free {
		end = max(end, f)
	}
	return end + 2*simHop
}

// TestAutomaticChunksAreAsGoodAsTheBestFixedSize: within 10 % plus two round trips of learning.
func TestAutomaticChunksAreAsGoodAsTheBestFixedSize(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{2, 8} {
		for _, mean := range []moment{1e3, 1e4, 1e5, 1e6, 1e7, 1e8} {
			if workers == 8 && mean == 1e3 {
				continue // the window is too small for what eight workers can do in the time it takes to refill it
			}
			for _, shape := range []string{"equal", "uniform", "heavy tail", "sorted", "front loaded"} {
				n := min(400_000, max(200, int(time.Second*moment(workers)/mean)))
				cost := costs(shape, mean, n)
				best, size := moment(math.MaxInt64), 0
				for s := 1; s <= 4096; s *= 2 {
					if f := fixed(workers, s, cost); f < best {
						best, size = f, s
					}
				}
				s := newSim(t, workers)
				c := s.open(0, CallSpec{ID: 1}, cost)
				s.run(1 << 62)
				limit := best*110/100 + 2*time.Millisecond
				if c.end > limit {
					t.Errorf("%d workers, %d tasks, %s, mean %v: took %v with %d chunks, %d revokes; the best size %d takes %v, so want at most %v",
						workers, n, shape, mean, c.end, s.chunks, s.revokes, size, best, limit)
				}
				if testing.Verbose() {
					t.Logf("%d workers, %6d tasks, %-12s mean %8v: took %v with %d chunks, %d revokes; best size %d takes %v, ratio %.3f",
						workers, n, shape, mean, c.end, s.chunks, s.revokes, size, best, float64(c.end)/float64(best))
				}
			}
		}
	}
}

func costs(shape string, mean moment, n int) []moment {
	r := rand.New(rand.NewPCG(7, 7))
	cost := make([]moment, n)
	for i := range cost {
		switch shape {
		case "equal":
			cost[i] = mean
		case "uniform":
			cost[i] = moment(2 * float64(mean) * r.Float64())
		case "heavy tail": // Pareto, α = 1.5
			cost[i] = min(moment(float64(mean)/3*math.Pow(1-r.Float64(), -1/1.5)), 300*mean)
		case "sorted": // short ones first
			cost[i] = 2 * mean * moment(i+1) / moment(n)
		case "front loaded": // the first tenth is ten times as long as the others
			cost[i] = mean / 2
			if i < n/10 {
				cost[i] = 5 * mean
			}
		}
	}
	return cost
}

// TestSharesAreFair: while all clients want more, what each has had of the workers is within 5 % of its share after ten seconds, or after a hundred
// times the longest task if that is longer. Nothing is known of the tasks before they run.
func TestSharesAreFair(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		mean   []moment // of the tasks of each client
		weight []int
	}{
		{"equal", []moment{1e5, 1e5}, []int{1, 1}},
		{"short against long", []moment{1e4, 2e7}, []int{1, 1}},
		{"tiny against short", []moment{1e3, 1e5}, []int{1, 1}},
		{"three", []moment{1e4, 1e5, 5e6}, []int{1, 1, 1}},
		{"weighted", []moment{1e5, 1e5}, []int{3, 1}},
		{"weighted, short against long", []moment{1e4, 1e7}, []int{1, 3}},
		{"short against a second each", []moment{1e6, 5e8}, []int{1, 1}}, // of 0.5 to 1.5 times the mean
	} {
		for _, workers := range []int{1, 2, 8} {
			t.Run(fmt.Sprintf("%s, %d workers", tt.name, workers), func(t *testing.T) {
				s := newSim(t, workers)
				s.window = 16 * 4096                                // so that nobody waits for its own client
				end := max(10*time.Second, 200*slices.Max(tt.mean)) // the longest task has twice the mean
				if most := 2_000_000 * slices.Min(tt.mean) / moment(workers); end > most {
					end = max(time.Second, most) // or there would be too many of them
				}
				var calls []*simCall
				total := 0
				for i, mean := range tt.mean {
					calls = append(calls, s.open(0, CallSpec{ID: CallID(i + 1), UID: uint32(i), Weight: tt.weight[i]}, costs("uniform", mean, int(end+end/2)*workers/int(mean))))
					total += tt.weight[i]
				}
				s.run(end)
				all := moment(0)
				for _, c := range calls {
					all += c.worked
				}
				for i, c := range calls {
					want := all * moment(tt.weight[i]) / moment(total)
					slack := want * 5 / 100
					if testing.Verbose() {
						t.Logf("client %d has had %.2f %% of its share after %v", i+1, 100*float64(c.worked)/float64(want), end)
					}
					if d := max(c.worked-want, want-c.worked); d > slack {
						t.Errorf("client %d has had %v of %v, want %v ± %v", i+1, c.worked, all, want, slack)
					}
				}
			})
		}
	}
}

// TestApplyUnderAMap: an Apply does not wait for the Map of another client, nor for one of its own.
func TestApplyUnderAMap(t *testing.T) {
	t.Parallel()
	for _, uid := range []uint32{1, 2} {
		for _, mean := range []moment{1e3, 1e4, 1e5, 1e6, 1e7} {
			s := newSim(t, 2)
			s.open(0, CallSpec{ID: 1, UID: 1}, costs("uniform", mean, int(2*2*time.Second/mean)))
			var worst moment
			var applies []*simCall
			for i := range 50 {
				applies = append(applies, s.open(100*time.Millisecond+moment(i)*17*time.Millisecond, CallSpec{ID: CallID(i + 2), UID: uid, Single: true}, []moment{1e4}))
			}
			s.run(time.Second)
			for _, a := range applies {
				if a.end == 0 {
					t.Fatalf("an Apply has not ended")
				}
				worst = max(worst, a.end-a.begin)
			}
			// What a worker holds: a target chunk and the prefetch, or one longer task; and the way there and back.
			limit := max(2*mean, 4*time.Millisecond+2*time.Millisecond) + time.Millisecond
			if worst > limit {
				t.Errorf("uid %d, mean %v: an Apply waited for %v, want at most %v", uid, mean, worst, limit)
			}
			if testing.Verbose() {
				t.Logf("uid %d, mean %v: worst %v", uid, mean, worst)
			}
		}
	}
}
