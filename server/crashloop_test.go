package server_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// TestWorkersThatDoNotStart is every way not to become a worker. Calls are told why, instead of waiting for ever, and the pool tries on, with
// one process at a time.
func TestWorkersThatDoNotStart(t *testing.T) {
	script := func(text string) client.PoolOption {
		path := filepath.Join(t.TempDir(), "worker")
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		return client.Program(path)
	}
	const (
		patience = 400 * time.Millisecond
		three    = 3 * crashBound         // the third start that fails is the last that is waited for…
		soon     = 300 * time.Millisecond // …after these back-offs
	)
	for _, row := range []struct {
		worker string
		option client.PoolOption // another program, or a limit that is to be reached
		says   string
		within time.Duration // published
	}{
		{worker: "exits at once", says: "exit status 5", within: three + soon},
		{worker: "never registers", option: client.StartTimeout(patience), says: "it did not say Hello within the start timeout of " + patience.String() + ": killed by SIGKILL", within: 2*patience + three + soon},
		{worker: "attaches and says nothing", option: client.StartTimeout(patience), says: "it did not say Hello within the start timeout of " + patience.String() + ": killed by SIGKILL", within: 2*patience + three + soon},
		{worker: "says something else than hello", says: "exit status 0", within: three + soon},
		{worker: "has a wrong token", says: "exit status 78", within: crashBound},
		{worker: "has a wrong token and stays", option: client.StartTimeout(patience), says: "it did not say Hello within the start timeout of " + patience.String() + ": killed by SIGKILL", within: 2*patience + three + soon},
		{worker: "has a used token", says: "exit status 78", within: crashBound},
		{worker: "speaks another version of the protocol", says: "the worker speaks protocol versions 7 to 9, this daemon 1 to 1", within: crashBound},
		{worker: "has a function without a name", says: `the function name "" has 0 bytes`, within: crashBound},
		{worker: "is never ready", option: client.ReadyTimeout(patience), says: "its init function did not return within the ready timeout of " + patience.String() + ": killed by SIGKILL", within: 2*patience + three + soon},
		{worker: "fails to initialise", says: "its init function failed: no licence", within: three + soon},
		{worker: "leaves before it is ready", says: "exit status 0", within: three + soon},
		{worker: "dies when it is ready", says: "exit status 1", within: 6*crashBound + soon}, // the sixth crash in a minute
		{option: script("#!/no/such/python -u\n"), says: "its interpreter is not: /no/such/python -u", within: three + soon},
		{option: script("hello\n"), says: "not an executable of this machine", within: three + soon},
		{option: client.Program("/bin/false"), says: "exit status 1", within: three + soon},
	} {
		name := row.worker
		if name == "" {
			name = row.says
		}
		t.Run(name, func(t *testing.T) {
			promptly(t, "the reason", row.within, func() time.Duration {
				d := serve(t)
				before := used(t)
				var options []client.PoolOption
				if row.option != nil {
					options = append(options, row.option)
				}
				began := time.Now()
				pool := d.open(t, row.worker, options...)
				err := pool.untilDegraded(t)
				took := time.Since(began)
				if !strings.Contains(err.Error(), row.says) {
					t.Errorf("got %v, want to hear of %q", err, row.says)
				}
				t.Log(err)
				if info, err := pool.Info(t.Context()); err != nil || info.State != pb.PoolState_POOL_STATE_DEGRADED || info.Starting > 1 {
					t.Errorf("the pool is %v, %v; want it degraded, with one process at a time", info, err)
				}
				pool.end(t)
				before.back(t)
				return took
			})
		})
	}
}

// untilDegraded calls until the pool says that its workers do not start. A call before that may be lost with its worker.
func (p *pool) untilDegraded(t *testing.T) error {
	t.Helper()
	for {
		_, err := client.Map(t.Context(), p.Pool, do, []string{"x"})
		switch {
		case errors.Is(err, client.ErrBootFailure):
			var refused *client.RefusedError
			if !errors.As(err, &refused) || refused.Exit == nil {
				t.Errorf("%v does not carry the end of the worker", err)
			}
			return err
		case errors.Is(err, client.ErrRejected) && strings.Contains(err.Error(), "do not start"):
			return err
		case !errors.Is(err, client.ErrWorkerLost):
			t.Fatalf("got %v, want to hear why the workers do not start", err)
		}
	}
}

// A program that is repaired, as an installation that was not complete is, is found by the next attempt: nobody has to tell the pool.
func TestDegradedPoolRecoversByItself(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, repaired := filepath.Join(dir, "worker"), filepath.Join(dir, "repaired")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n[ -e "+repaired+" ] && exec "+self+"\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	d := serve(t)
	pool := d.open(t, "", client.Program(path))
	t.Log(pool.untilDegraded(t))
	if starts := len(pool.exits); starts > 20 {
		t.Errorf("it was started %d times before that", starts)
	}
	if err := os.WriteFile(repaired, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	pool.rest(t, 2)
	took := time.Since(began)
	t.Logf("recovery took %v, published is 2s", took) // the back-off after three failures, and the start of two workers
	if took > 40*time.Second {
		t.Errorf("recovery took %v, more than twenty times the published 2s", took)
	}
	if info, err := pool.Info(t.Context()); err != nil || info.State != pb.PoolState_POOL_STATE_OPEN {
		t.Errorf("the pool is %v, %v; want it open", info, err)
	}
	pool.mustAnswer(t)
}

// Calls that wait when the pool is degraded are told why, as those that come later are: here the workers have been there before.
func TestWaitingCallsAreToldTheLastReason(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, broken := filepath.Join(dir, "worker"), filepath.Join(dir, "broken")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n[ -e "+broken+" ] && { echo the licence has run out >&2; exit 9; }\nexec "+self+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	d := serve(t)
	pool := d.open(t, "", client.Program(path), client.Workers(1))
	pool.mustAnswer(t)
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lost, waiting := 0, 0
	tasks := slices.Concat([]string{"kills itself"}, good(1000))
	for out, err := range client.IMapUnordered(t.Context(), pool.Pool, do, slices.Values(tasks), client.ChunkSize(1)) {
		switch {
		case err != nil:
			t.Fatal(err)
		case out.Index == 0 && errors.Is(out.Err, client.ErrWorkerLost):
			lost++
		case errors.Is(out.Err, client.ErrRejected) && strings.Contains(out.Err.Error(), "exit status 9") && strings.Contains(out.Err.Error(), "the licence has run out"):
			waiting++
		default:
			t.Fatalf("task %d has %q, %v", out.Index, out.Value, out.Err)
		}
	}
	if lost != 1 || waiting != 1000 {
		t.Errorf("%d lost and %d told why, want 1 and 1000", lost, waiting)
	}
}

// A process that says hello a second time, with its token, is refused, and its first conversation goes on.
func TestWorkerThatRegistersTwice(t *testing.T) {
	promptly(t, "the refusal", crashBound, func() time.Duration {
		d := serve(t)
		before := used(t)
		const workers = 2
		said := make(chan string, workers) // a line of each
		began := time.Now()
		pool := d.open(t, "registers twice", client.Workers(workers), client.Output(func(o client.WorkerOutput) { said <- string(o.Line) }))
		for range workers {
			select {
			case line := <-said:
				if !strings.Contains(line, "refused: the token is wrong or has been used") {
					t.Errorf("the worker hears %q, want that it is refused", line)
				}
			case <-time.After(patience):
				t.Fatal("a worker has not heard that it is refused")
			}
		}
		took := time.Since(began)
		pool.mustAnswer(t)
		pool.rest(t, workers)
		if ended := len(pool.exits); ended > 0 {
			t.Errorf("%d workers have ended, want that their first conversations go on", ended)
		}
		pool.end(t)
		before.back(t)
		return took
	})
}

// A process with the token, and with the pid that was started, is refused if it has become another user. It can reach the private socket only with a privilege.
func TestWorkerThatHasBecomeAnotherUser(t *testing.T) {
	const stranger = 12005 // needs no account
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	become := []string{"setpriv", fmt.Sprint("--reuid=", stranger), "--inh-caps=+dac_override", "--ambient-caps=+dac_override"}
	if out, err := exec.Command(become[0], append(become[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: that a worker of another uid is refused: %v %s(as root, with apt-get install util-linux: go test ./server -run AnotherUser)", err, out)
	}
	promptly(t, "the reason", crashBound, func() time.Duration {
		d := serve(t)
		before := used(t)
		began := time.Now()
		pool := d.open(t, "", client.Program(become[0], append(become[1:], self)...))
		err := pool.untilDegraded(t)
		took := time.Since(began)
		if want := fmt.Sprintf("the worker runs as uid %d, but was started as uid %d", stranger, os.Getuid()); !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want to hear that %s", err, want)
		}
		t.Log(err)
		pool.end(t)
		before.back(t)
		return took
	})
}

// A worker with other functions than the first one's is killed, and the pool goes on with those that fit.
func TestWorkersWithOtherFunctions(t *testing.T) {
	d := serve(t)
	pool := d.open(t, "has other functions each time")
	pool.mustAnswer(t)
	pool.exited(t, "its functions are not those of the pool's first worker")
	pool.mustAnswer(t)
}

// A worker that is stopped before its task has begun is treated as one that has.
func TestStoppedWorkers(t *testing.T) {
	d := serve(t)
	pool := d.open(t, "")
	pool.mustAnswer(t)
	for _, end := range []string{"timeout", "cancel"} {
		t.Run(end, func(t *testing.T) {
			bound := timeout + lateness + killBound
			if end == "cancel" {
				bound = killBound
			}
			promptly(t, "its outcome", bound, func() (took time.Duration) {
				pool.rest(t, 2)
				before := used(t)
				pool.signal(t, stop)
				began := time.Now()
				switch end {
				case "timeout":
					_, err := client.Map(t.Context(), pool.Pool, do, []string{"hangs"}, client.TaskTimeout(timeout)) // should it not be stopped yet
					if !errors.Is(err, client.ErrTimeout) {
						t.Errorf("got %v, want a timeout", err)
					}
				case "cancel":
					r := client.MapAsync(t.Context(), pool.Pool, do, []string{"hangs", "hangs"}, client.ChunkSize(1))
					eventually(t, func() string { return pool.cancelCalls(t, 2) })
					if _, err := r.Get(t.Context()); !errors.Is(err, client.ErrCancelled) {
						t.Errorf("got %v, want it cancelled", err)
					}
				}
				took = time.Since(began)
				pool.signal(t, resume) // those that had no task
				pool.mustAnswer(t)
				pool.rest(t, 2)
				before.back(t)
				return took
			})
		})
	}
}
