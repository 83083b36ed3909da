package main_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

func TestAKilledWorkerIsReportedWithWhatItDid(t *testing.T) {
	d := startDaemon(t)
	c := d.dial()
	pool, err := c.CreatePool(t.Context(), "p", client.Program(filepath.Join(bin, "e2eworker")), client.Workers(1),
		client.CancelGrace(100*time.Millisecond), client.KillDelay(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	var ends []string // of errors
	check := func(what string, err, kind error, function, by, limit, state string) {
		t.Helper()
		var task *client.TaskError
		if !errors.As(err, &task) || !errors.Is(err, kind) || task.Exit == nil || task.Exit.Kill == nil {
			t.Fatalf("%s: got %v, want %v with a kill report", what, err, kind)
		}
		k := task.Exit.Kill
		if k.Function != function || k.Attempt != 1 || len(k.CallId) != 32 || !strings.HasPrefix(k.By, by) || !strings.Contains(k.Limit, limit) || !strings.HasPrefix(k.State, state) {
			t.Fatalf("%s: got %v, want by %q, limit %q, state %q", what, k, by, limit, state)
		}
		if k.Since.AsTime().After(time.Now()) || time.Since(k.Since.AsTime()) > time.Minute {
			t.Errorf("%s: since %v", what, k.Since.AsTime())
		}
		if !strings.Contains(err.Error(), fmt.Sprintf("it ran %s (call %s, task %d, attempt 1) for ", function, k.CallId[:8], k.Index)) || !strings.Contains(err.Error(), "state "+state) {
			t.Errorf("%s: the error says %q", what, err)
		}
		doing := fmt.Sprintf("(call %s, task %d", k.CallId[:8], k.Index)
		if !strings.Contains(err.Error(), ", limit: "+k.Limit) {
			t.Errorf("%s: the error says %q, without the limit %q", what, err, k.Limit)
		}
		ends = append(ends, doing, k.Limit)
		t.Logf("%s: %v", what, err)
	}

	_, err = client.Apply(t.Context(), pool, spin, 0, client.TaskTimeout(200*time.Millisecond))
	check("timeout", err, client.ErrTimeout, "spin", "task timeout", "the task timeout of 200ms and the grace of 100ms", "R")

	// The first task of a chunk is done, the second one is stopped.
	var failed *client.MapError
	eventually(t, patience, func() string { // until it is stopped before its time is over
		stopping, done := context.WithCancel(t.Context())
		go stopAtTask(stopping, c, 1)
		_, err = client.Map(t.Context(), pool, nap, []int{0, 600_000}, client.ChunkSize(2), client.TaskTimeout(2*time.Second))
		done()
		if !errors.As(err, &failed) || failed.Failed != 1 || failed.Errors[0].Index != 1 || failed.Errors[0].Exit == nil {
			return fmt.Sprintf("got %v, want task 1 to fail, and its worker to end", err)
		}
		return ""
	})
	check("stopped", failed.Errors[0], client.ErrTimeout, "nap", "task timeout", "the task timeout of 2s", "T")

	// A task that is cancelled before its function has been called needs no kill.
	eventually(t, patience, func() string {
		r := client.MapAsync(t.Context(), pool, spin, []int{0})
		eventually(t, patience, func() string {
			calls, err := c.Calls(t.Context(), "p")
			if err != nil {
				t.Fatal(err)
			}
			if len(calls) == 0 || calls[0].RunningTasks == 0 {
				return "no task runs"
			}
			if err := c.Cancel(t.Context(), calls[0].Id); err != nil {
				t.Fatal(err)
			}
			return ""
		})
		_, err = r.Get(t.Context())
		var task *client.TaskError
		if errors.As(err, &task) && task.Exit == nil {
			return err.Error()
		}
		return ""
	})
	check("cancel", err, client.ErrCancelled, "spin", "cancel by Cancel of uid", "the grace of 100ms", "R")

	// The call is over for its client at its deadline, and for its worker when the grace is over as well.
	expire := func() (exit *pb.WorkerExit) {
		if _, err := client.Apply(t.Context(), pool, nap, 0); err != nil { // a worker is there
			t.Fatal(err)
		}
		info, err := pool.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before := info.LastExit.GetPid()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := client.Map(ctx, pool, spin, []int{0}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("deadline: got %v", err)
		}
		eventually(t, patience, func() string {
			if info, err = pool.Info(t.Context()); err != nil {
				t.Fatal(err)
			}
			if info.LastExit.GetPid() != before {
				exit = info.LastExit
				return ""
			}
			if info.Busy == 0 && info.Calls == 0 { // the task has not been called in that second
				return ""
			}
			return "the worker of the call that is over lives on"
		})
		return exit
	}
	var exit *pb.WorkerExit
	eventually(t, patience, func() string { // on a busy machine the request may have been on its way for so long that its end looks like the client's wish
		if exit = expire(); exit.GetKill().GetBy() != "call deadline" {
			return fmt.Sprintf("deadline: got %v", exit)
		}
		return ""
	})
	if k := exit.Kill; k.Function != "spin" || !strings.HasPrefix(k.Limit, "the deadline of the call, ") || !strings.HasSuffix(k.Limit, " after it began, and the grace of 100ms") ||
		!strings.HasPrefix(exit.Reason, "a task did not return when the deadline of its call had passed: killed by SIG") || !strings.Contains(exit.Reason, "limit: "+k.Limit) {
		t.Errorf("deadline: got %v", exit)
	}
	t.Logf("deadline: %s", exit.Reason)
	ends = append(ends, fmt.Sprintf("(call %s, task 0", exit.Kill.GetCallId()[:8]), exit.Kill.GetLimit())

	d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.done // it has written its last line
	for i := 0; i < len(ends); i += 2 {
		for _, event := range []string{"SIGTERM to worker", "worker ended"} {
			if !slices.ContainsFunc(strings.Split(d.log.String(), "\n"), func(line string) bool {
				return strings.Contains(line, event) && strings.Contains(line, ends[i]) && strings.Contains(line, "limit: "+ends[i+1])
			}) {
				t.Errorf("the log has no %q with %q and %q", event, ends[i], ends[i+1])
			}
		}
	}
}

// stopAtTask stops the worker of pool p as soon as it is at a task with this index.
func stopAtTask(ctx context.Context, c *client.Client, index uint64) {
	for ctx.Err() == nil {
		workers, err := c.Workers(ctx, "p")
		if err == nil && len(workers) == 1 && workers[0].CallId != "" && workers[0].Index == index {
			syscall.Kill(int(workers[0].Pid), syscall.SIGSTOP)
			return
		}
		<-time.After(time.Millisecond)
	}
}

func TestAWorkerThatNeverAttachesIsReported(t *testing.T) {
	d := startDaemon(t)
	c := d.dial()
	exits := make(chan client.WorkerExit, 10)
	pool, err := c.OpenPool(t.Context(), client.Program("sleep", "1000"), client.Workers(1), client.StartTimeout(100*time.Millisecond),
		client.OnExit(func(e client.WorkerExit) { exits <- e }))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Terminate()
	e := <-exits
	for range 10 { // on a busy machine sleep may not have come to sleep yet; there is another process after it
		if strings.HasPrefix(e.Kill.GetState(), "S") {
			break
		}
		e = <-exits
	}
	if e.Kill.GetBy() != "start timeout" || e.Kill.Limit != "the start timeout of 100ms" || e.Kill.Signal != "SIGKILL" || !strings.HasPrefix(e.Kill.State, "S") || e.Kill.Function != "" {
		t.Errorf("got %v", e.Kill)
	}
	if !strings.Contains(e.Reason, "state S (sleeping)") {
		t.Errorf("the reason is %q", e.Reason)
	}
}
