package local_test

import (
	"context"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/workerproc"
)

// A task of 0.1 ms: one that waits, and one that computes.
var (
	waiting = workerproc.Func("waiting", func(_ context.Context, i int) (int, error) {
		time.Sleep(100 * time.Microsecond)
		return i, nil
	})
	computing = workerproc.Func("computing", func(_ context.Context, i int) (int, error) {
		for end := time.Now().Add(100 * time.Microsecond); time.Now().Before(end); {
		}
		return i, nil
	})
)

// BenchmarkRecycling is what it costs to replace a worker every 25 tasks of 0.1 ms, in a pool of two with two spares, against a pool that keeps its
// workers, in the same run. A thousand tasks are 40 workers or more.
func BenchmarkRecycling(b *testing.B) {
	for _, task := range []struct {
		name string
		f    client.Function[int, int]
	}{{"waiting", waiting}, {"computing", computing}} {
		b.Run(task.name, func(b *testing.B) {
			const tasks = 1000
			items := upTo(tasks)
			run := func(opts ...client.PoolOption) func() time.Duration {
				pool, err := local.OpenPool(b.Context(), append(opts, client.Workers(2))...)
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { _ = pool.Terminate() })
				once := func() time.Duration {
					began := time.Now()
					if got, err := client.Map(b.Context(), pool, task.f, items); err != nil || got[tasks-1] != tasks-1 {
						b.Fatal(got[tasks-1], err)
					}
					return time.Since(began)
				}
				once() // the workers are up
				return once
			}
			keep, recycle := run(), run(client.MaxTasksPerWorker(25), client.Spares(2))
			var kept, recycled time.Duration
			for b.Loop() {
				kept += keep()
				recycled += recycle()
			}
			b.ReportMetric(tasks*float64(b.N)/kept.Seconds(), "kept-tasks/s")
			b.ReportMetric(tasks*float64(b.N)/recycled.Seconds(), "recycled-tasks/s")
			b.ReportMetric(100*(1-kept.Seconds()/recycled.Seconds()), "%-lost")
			b.ReportMetric(float64((recycled-kept).Microseconds())/float64(b.N)/(tasks/25), "µs-lost/recycle")
			b.ReportMetric(0, "ns/op")
		})
	}
}
