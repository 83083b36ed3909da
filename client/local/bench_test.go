package local_test

import (
	"fmt"
	"testing"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
)

// benchPool is a pool of two workers that have answered.
func benchPool(b *testing.B) *client.Pool {
	b.Helper()
	pool, err := local.OpenPool(b.Context(), client.Workers(2))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = pool.Terminate() })
	if _, err := client.Map(b.Context(), pool, square, upTo(1000), client.ChunkSize(1)); err != nil {
		b.Fatal(err)
	}
	return pool
}

// perTask reports what one task took.
func perTask(b *testing.B, tasks int) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(tasks), "ns/task")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkMap is Map of a trivial function over small integers, embedded, with two workers.
func BenchmarkMap(b *testing.B) {
	for _, c := range []struct{ chunk, tasks int }{{0, 1_000_000}, {10, 200_000}, {1, 100_000}} {
		name := fmt.Sprintf("chunk=%d", c.chunk)
		if c.chunk == 0 {
			name = "chunk=auto"
		}
		b.Run(name, func(b *testing.B) {
			pool := benchPool(b)
			items := upTo(c.tasks)
			for b.Loop() {
				got, err := client.Map(b.Context(), pool, square, items, client.ChunkSize(c.chunk))
				if err != nil || got[c.tasks-1] != (c.tasks-1)*(c.tasks-1) {
					b.Fatal(got[c.tasks-1], err)
				}
			}
			perTask(b, c.tasks)
		})
	}
}

// BenchmarkApplyAsync is ApplyAsync with all tasks under way at once.
func BenchmarkApplyAsync(b *testing.B) {
	pool := benchPool(b)
	const tasks = 100_000
	results := make([]*client.Result[int], tasks)
	for b.Loop() {
		for i := range results {
			results[i] = client.ApplyAsync(b.Context(), pool, square, i)
		}
		for i, r := range results {
			if v, err := r.Get(b.Context()); err != nil || v != i*i {
				b.Fatal(v, err)
			}
		}
	}
	perTask(b, tasks)
}

// BenchmarkApply is one task after the other.
func BenchmarkApply(b *testing.B) {
	pool := benchPool(b)
	for b.Loop() {
		if v, err := client.Apply(b.Context(), pool, square, 3); err != nil || v != 9 {
			b.Fatal(v, err)
		}
	}
}
