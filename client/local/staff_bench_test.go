package local_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/workerproc"
)

// A task of 0.1 ms: one that waits, and one that computes.
var (
	waiting = workerproc.Func("waiting", func(_ context.Context, i int) (int, error) {
		time.Sleep(100 * time.Microsecond) //nolint:forbidigo // this is the task
		return i, nil
	})
	computing = workerproc.Func("computing", func(_ context.Context, i int) (int, error) {
		for end := time.Now().Add(100 * time.Microsecond); time.Now().Before(end); {
		}
		return i, nil
	})
)

// BenchmarkRecycling is what it costs to replace a worker every so many tasks of 0.1 ms, in a pool of two with two spares, against a pool that keeps
// its workers, in turns in the same run. The time that replaced workers have used is mostly that of their start; it is the part that spares cannot
// hide when no CPU is free.
func BenchmarkRecycling(b *testing.B) {
	for _, every := range []int{25, 250, 2500} {
		for name, task := range map[string]client.Function[int, int]{"waiting": waiting, "computing": computing} {
			b.Run(fmt.Sprintf("every=%d/%s", every, name), func(b *testing.B) { benchRecycling(b, every, task) })
		}
	}
}

func benchRecycling(b *testing.B, every int, task client.Function[int, int]) {
	b.Helper()
	tasks := max(1000, 8*every)
	items := upTo(tasks)
	open := func(opts ...client.PoolOption) (once func() time.Duration) {
		pool, err := local.OpenPool(b.Context(), append(opts, client.Workers(2))...)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = pool.Terminate() })
		once = func() time.Duration {
			began := time.Now()
			if got, err := client.Map(b.Context(), pool, task, items); err != nil || got[tasks-1] != tasks-1 {
				b.Fatal(got[tasks-1], err)
			}
			return time.Since(began)
		}
		once() // the workers are up
		return once
	}
	var ended atomic.Int64
	keep := open()
	recycle := open(client.MaxTasksPerWorker(every), client.Spares(2), client.OnExit(func(client.WorkerExit) { ended.Add(1) }))
	var kept, recycled time.Duration
	before, used := ended.Load(), timeOfChildren(b)
	for b.Loop() {
		kept += keep()
		recycled += recycle()
	}
	used = timeOfChildren(b) - used
	b.ReportMetric(float64(tasks*b.N)/kept.Seconds(), "kept-tasks/s")
	b.ReportMetric(float64(tasks*b.N)/recycled.Seconds(), "recycled-tasks/s")
	b.ReportMetric(100*(1-kept.Seconds()/recycled.Seconds()), "%-lost")
	b.ReportMetric(used.Seconds()*1e3/float64(ended.Load()-before), "cpu-ms/worker")
	b.ReportMetric(0, "ns/op")
}

// timeOfChildren is the CPU time of all processes that this one has started and reaped.
func timeOfChildren(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(unix.RUSAGE_CHILDREN, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
