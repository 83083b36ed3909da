package server_test

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// One task of a Map is cancelled while it runs, whatever it does about that, and when the client has sent half of the items. It has its outcome soon, once; every
// other one has its result; the pool goes on; nothing is left.
func TestOneTaskIsCancelledAndTheOthersGoOn(t *testing.T) {
	const indulgent = cancelGrace + gentle // for what happens at SIGTERM
	for _, row := range []badTask{
		{task: "obeys", want: client.ErrCancelled, within: gentle},
		{task: "hangs", want: client.ErrCancelled, says: "was cancelled and did not return", within: killBound},
		{task: "computes for ever", want: client.ErrCancelled, says: "was cancelled and did not return", within: killBound},
		{task: "ignores SIGTERM", want: client.ErrCancelled, says: "was cancelled and did not return", within: killBound},
		{task: "stops itself", want: client.ErrCancelled, says: "was cancelled and did not return", within: killBound},
		{worker: "answers when it is cancelled", within: gentle},
		{worker: "answers at SIGTERM", want: client.ErrCancelled, says: "was cancelled", within: indulgent},
	} {
		t.Run(row.worker+row.task, func(t *testing.T) {
			promptly(t, "its outcome", row.within, func() (took time.Duration) {
				for tries, begun := 0, false; !begun; tries++ {
					if tries == 20 {
						t.Fatal("it was cancelled before its function was called, each time")
					}
					took, begun = row.cancelled(t)
				}
				return took
			})
		})
	}
}

// cancelled cancels the bad task, and says after how long it had its outcome, and whether its function had been called: a worker says which task it is at before it calls.
func (row badTask) cancelled(t *testing.T) (took time.Duration, begun bool) {
	t.Helper()
	begun = true
	const bad, n = 17, 30
	d := serve(t)
	pool := d.open(t, row.worker, client.CancelGrace(row.grace()))
	pool.rest(t, 2)
	pool.mustAnswer(t)
	before := used(t)
	tasks := good(n)
	tasks[bad] = row.task
	if row.worker != "" {
		tasks[bad] = "now"
	}
	var at time.Time                 // of the cancel
	cancelled := make(chan struct{}) // closed then; the input goes on
	input := func(yield func(string) bool) {
		for i, task := range tasks {
			if i == bad+1 {
				<-cancelled
			}
			if !yield(task) {
				return
			}
		}
	}
	go func() { // ends before the loop below, which needs what it sends
		defer close(cancelled)
		var mine *pb.Worker
		for tick := time.NewTicker(time.Millisecond); mine == nil; <-tick.C {
			workers, err := d.Workers(t.Context(), pool.Name())
			if err != nil {
				t.Errorf("workers: %v", err)
				return
			}
			for _, w := range workers {
				if w.CallId != "" && w.Index == bad {
					mine = w
				}
			}
		}
		at = time.Now()
		if err := d.Cancel(t.Context(), mine.GetCallId(), bad); err != nil {
			t.Errorf("cancel: %v", err)
		}
	}()
	seen := make(map[int]int)
	for out, err := range client.IMapUnordered(t.Context(), pool.Pool, do, iter.Seq[string](input)) {
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		if seen[out.Index]++; seen[out.Index] > 1 {
			t.Errorf("task %d has another outcome: %q, %v", out.Index, out.Value, out.Err)
		}
		if out.Index == bad {
			<-cancelled
			took = now.Sub(at)
		}
		switch want := strings.ToUpper(tasks[out.Index]); {
		case out.Index != bad || row.want == nil:
			if out.Value != want || out.Err != nil || out.Attempt != 1 {
				t.Errorf("task %d has %.40q, %v after %d attempts, want %q after one", out.Index, out.Value, out.Err, out.Attempt, want)
			}
		case row.says != "" && errors.Is(out.Err, client.ErrCancelled) && !strings.Contains(out.Err.Error(), row.says):
			t.Log(out.Err)
			begun = false
		case !errors.Is(out.Err, row.want) || !strings.Contains(fmt.Sprint(out.Err), row.says) || out.Attempt != 1:
			t.Errorf("the cancelled task has %v after %d attempts, want %v by %q after one", out.Err, out.Attempt, row.want, row.says)
		default:
			t.Log(out.Err)
		}
	}
	if len(seen) != n {
		t.Errorf("%d tasks have an outcome, want %d", len(seen), n)
	}
	pool.mustAnswer(t)
	pool.rest(t, 2)
	before.back(t)
	return took, begun
}

// Tasks for which no worker is free in time are told so; the one that keeps them waiting goes on.
func TestTasksThatWaitTooLongForAWorker(t *testing.T) {
	d := serve(t)
	pool := d.open(t, "", client.Workers(1))
	pool.rest(t, 1)
	before := used(t)
	busy := client.MapAsync(t.Context(), pool.Pool, do, []string{"stays a minute"})
	eventually(t, func() string {
		info, err := pool.Info(t.Context())
		if err != nil || info.Busy != 1 {
			return fmt.Sprintf("the pool is %v, %v, want its worker to be busy", info, err)
		}
		return ""
	})
	promptly(t, "its outcome", timeout+gentle, func() time.Duration {
		began := time.Now()
		_, err := client.Map(t.Context(), pool.Pool, do, good(3), client.QueueTimeout(timeout))
		took := time.Since(began)
		var failed *client.MapError
		if !errors.As(err, &failed) || failed.Failed != 3 {
			t.Fatalf("got %v, want three tasks to fail", err)
		}
		for _, task := range failed.Errors {
			if !errors.Is(task, client.ErrTimeout) || task.Attempts != 0 || !strings.Contains(task.Error(), "no worker was free within the queue timeout") {
				t.Errorf("task %d has %v after %d attempts, want a timeout after none", task.Index, task, task.Attempts)
			}
		}
		if took < timeout {
			t.Errorf("the tasks have waited for %v, want %v at least", took, timeout)
		}
		return took
	})
	if busy.Ready() {
		t.Error("the task that ran has ended")
	}
	if complaint := pool.cancelCalls(t, 1); complaint != "" {
		t.Error(complaint)
	}
	if _, err := busy.Get(t.Context()); !errors.Is(err, client.ErrCancelled) {
		t.Errorf("the task that ran has %v, want that it was cancelled", err)
	}
	pool.mustAnswer(t)
	pool.rest(t, 1)
	before.back(t)
}
