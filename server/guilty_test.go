package server_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/workerproc"
)

// poison kills its worker for every hundredth argument, and says when.
var poison = workerproc.Func("poison", func(_ context.Context, n int) (int64, error) {
	if n%100 == 42 {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it takes a moment
	}
	return int64(n) + 1, nil
})

// Of ten thousand tasks of a microsecond, one in a hundred kills its worker. Exactly those are lost, however the tasks travel, and after as many
// attempts as they were allowed.
func TestExactlyThePoisonTasksAreLost(t *testing.T) {
	d := serve(t)
	for _, c := range []struct{ tasks, chunk, attempts int }{
		{10_000, 0, 1},
		{1000, 1, 1},
		{2000, 7, 1},
		{2000, 1000, 1},
		{1000, 0, 2},
	} {
		if raceEnabled && c.chunk == 0 && c.attempts == 1 {
			c.tasks = 3000 // a start takes ten times as long
		}
		pool := d.open(t, "")
		pool.rest(t, 2)
		began := time.Now()
		seen := make([]bool, c.tasks)
		lost := 0
		for out, err := range client.IMapUnordered(t.Context(), pool.Pool, poison, slices.Values(upTo(c.tasks)), client.ChunkSize(c.chunk), client.MaxAttempts(c.attempts)) {
			if err != nil {
				t.Fatal(err)
			}
			if seen[out.Index] {
				t.Errorf("task %d has two outcomes", out.Index)
			}
			seen[out.Index] = true
			switch guilty := out.Index%100 == 42; {
			case guilty:
				lost++
				var task *client.TaskError
				if !errors.As(out.Err, &task) || !errors.Is(task, client.ErrWorkerLost) || task.Exit == nil || task.Exit.Signal != "SIGKILL" || task.Attempts != c.attempts {
					t.Errorf("chunk size %d: poison task %d has %d, %v, want worker lost by SIGKILL after %d attempts", c.chunk, out.Index, out.Value, out.Err, c.attempts)
				}
			case out.Err != nil || out.Value != int64(out.Index)+1 || out.Attempt != 1:
				t.Errorf("chunk size %d: task %d has %d, %v after %d attempts, want %d after 1", c.chunk, out.Index, out.Value, out.Err, out.Attempt, out.Index+1)
			}
		}
		if slices.Contains(seen, false) || lost != c.tasks/100 {
			t.Errorf("chunk size %d: task %d has no outcome; %d are lost, want %d", c.chunk, slices.Index(seen, false), lost, c.tasks/100)
		}
		took := time.Since(began)
		t.Logf("chunk size %d, %d attempts: %d crashes in %v, %v for each", c.chunk, c.attempts, lost*c.attempts, took, took/time.Duration(lost*c.attempts))
		pool.rest(t, 2) // a pool whose tasks are to blame is not degraded
		pool.end(t)
	}
}

func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// From a crash to the error of its task, and from the end of the grace to the error of a task that had to be killed. Each p99 is that of a hundred. There is one
// pool at a time: the start of another one's next process would be measured, too.
func TestCrashesAndKillsAreToldSoon(t *testing.T) {
	const (
		grace = 20 * time.Millisecond // less than the daemon waits with a longer one before it looks at a late task
		delay = 10 * time.Millisecond
		late  = 20 * time.Millisecond // after the beginning of a task
	)
	n := 100
	if raceEnabled {
		n = 50
	}
	d := serve(t)
	for _, c := range []struct {
		what      string
		task      string
		opts      []client.CallOption
		cancel    bool
		want      error
		after     time.Duration // what it takes at least
		published time.Duration // beyond that
	}{
		{"from a crash to its error", "kills itself", nil, false, client.ErrWorkerLost, 0, crashBound},
		{"from a timeout's grace to its error", "ignores SIGTERM", limit(late), false, client.ErrTimeout, late + grace + delay, gentle},
		{"from a cancellation's grace to its error", "ignores SIGTERM", nil, true, client.ErrCancelled, grace + delay, gentle},
	} {
		pool := d.open(t, "", client.Workers(1), client.CancelGrace(grace), client.KillDelay(delay))
		promptly(t, c.what, c.published, func() time.Duration {
			began, waited := time.Now(), waitedForCPU()
			var took []time.Duration
			for range n {
				took = append(took, pool.told(t, c.task, c.opts, c.cancel, c.want)-c.after)
			}
			slices.Sort(took)
			p50, p99 := took[n/2], took[(n*99+99)/100-1]
			t.Logf("%s: p50 %v, p99 %v of %d", c.what, p50, p99, n)
			if busy := waitedForCPU()-waited >= time.Since(began)/2; busy || raceEnabled {
				return p50 // the worst is ten times as slow as what is published, or as long as others may have the CPUs
			}
			return p99
		})
		pool.end(t)
	}
}

// told is how long it takes until the error of a bad task is there that ends its worker; from its cancel on, if it is to be cancelled.
func (p *pool) told(t *testing.T, bad string, opts []client.CallOption, cancel bool, want error) time.Duration {
	t.Helper()
	for {
		p.rest(t, 1)
		began := time.Now()
		r := client.MapAsync(t.Context(), p.Pool, do, []string{bad}, opts...)
		if cancel {
			eventually(t, func() string {
				began = time.Now()
				return p.cancelCalls(t, 1)
			})
		}
		_, err := r.Get(t.Context())
		took := time.Since(began)
		var task *client.TaskError
		if !errors.As(err, &task) || !errors.Is(err, want) {
			t.Fatalf("%s: got %v, want %v", bad, err, want)
		}
		if task.Exit != nil {
			return took
		} // else it was cancelled before it began
	}
}
