package sched

import (
	"fmt"
	"testing"
	"time"
)

// bench is a pool whose workers end every task as soon as they have it, and whose clients read at once and always have more.
type bench struct {
	pool    *Pool
	now     time.Time
	sent    []sentChunk // without report; a ring would do, but this is simpler
	next    []sentChunk
	results int
}

type sentChunk struct {
	worker WorkerID
	chunk  ChunkID
	n      int
}

func newBench(workers, calls, chunk int) *bench {
	b := &bench{pool: New(Config{Workers: workers}), now: time.Unix(1_000_000_000, 0)}
	b.pool.Settle(b.now)
	for w := range workers {
		b.pool.Registered(b.now, WorkerID(w+1), Hello{functions, 1 << 20, 1 << 30})
		b.pool.Ready(b.now, WorkerID(w+1))
	}
	window := max(4096, 4*workers/calls)
	for c := range calls {
		id := CallID(c + 1)
		b.pool.Open(b.now, CallSpec{ID: id, UID: uint32(c % 4), Function: "f", ChunkSize: chunk})
		b.pool.Add(b.now, id, Items{N: window, ItemSize: 8})
	}
	b.settle()
	return b
}

// settle carries out the effects. What a call has had in a row is read at once and replaced by as many new tasks.
func (b *bench) settle() {
	var call CallID
	n, bytes := 0, 0
	read := func() {
		if n > 0 {
			b.results += n
			b.pool.Written(b.now, call, n, bytes)
			b.pool.Add(b.now, call, Items{N: n, ItemSize: 8})
		}
	}
	defer func() { read() }()
	effects := b.pool.Settle(b.now)
	for i := range effects {
		e := &effects[i]
		switch e.Kind {
		case Dispatch:
			b.next = append(b.next, sentChunk{e.Worker, e.Chunk.ID, e.Chunk.N})
		case Deliver:
			if e.Call != call {
				read()
				call, n, bytes = e.Call, 0, 0
			}
			n += e.Delivery.N
			bytes += e.Delivery.Bytes
		case Revoke:
			b.pool.Returned(b.now, e.Worker, e.ChunkID, 1<<30)
		}
	}
}

// round lets every worker end what it holds: in batches, as a shell does that drains its mailbox.
func (b *bench) round(batch int) {
	b.sent, b.next = b.next, b.sent[:0]
	for i, s := range b.sent {
		b.pool.Results(b.now, s.worker, Report{Chunk: s.chunk, N: s.n, Bytes: 8 * s.n, Ran: time.Duration(s.n) * time.Microsecond})
		if i%batch == batch-1 {
			b.now = b.now.Add(10 * time.Microsecond)
			b.settle()
		}
	}
	b.now = b.now.Add(10 * time.Microsecond)
	b.settle()
}

// BenchmarkTask is the time the core needs for one task, with everything that belongs to it: adding, dispatching, reporting, delivering,
// settling (64 reports at a time). It should not depend on the number of workers and calls.
func BenchmarkTask(b *testing.B) {
	for _, chunk := range []int{1, 10, 0} {
		for _, workers := range []int{2, 64, 1000, 10_000} {
			for _, calls := range []int{1, 1000, 10_000} {
				name := fmt.Sprintf("chunk=%d", chunk)
				if chunk == 0 {
					name = "chunk=auto"
				}
				b.Run(fmt.Sprintf("%s/workers=%d/calls=%d", name, workers, calls), func(b *testing.B) {
					x := newBench(workers, calls, chunk)
					for range 20 {
						x.round(64)
					}
					x.results = 0
					b.ReportAllocs()
					b.ResetTimer()
					for x.results < b.N {
						x.round(64)
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(x.results), "ns/task")
				})
			}
		}
	}
}
