package local_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/proto/payload"
	"github.com/procpool/procpool/workerproc"
)

// moody is encoded in a way of its own, which fails where its text says so.
type moody string

var moodily = payload.Encoding[moody]{
	Name: "json",
	Append: func(dst []byte, m moody) ([]byte, error) {
		switch m {
		case "cannot be encoded in the client", "has a result that cannot be encoded":
			return dst, errors.New("I will not be written down")
		}
		b, err := json.Marshal(string(m))
		return append(dst, b...), err
	},
	Decode: func(b []byte) (moody, error) {
		var s string
		err := json.Unmarshal(b, &s)
		switch s {
		case "cannot be decoded in the worker", "has a result that cannot be decoded":
			return "", errors.New("I will not be read")
		}
		return moody(s), err
	},
}

// misbehave does what its argument says.
var misbehave = workerproc.FuncWith("misbehave", moodily, moodily, func(_ context.Context, m moody) (moody, error) {
	switch m {
	case "kills itself":
		return "", syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "exits with status 0":
		os.Exit(0)
	case "exits with status 3":
		os.Exit(3)
	case "panics":
		panic("so long")
	case "panics with an error that panics":
		panic(badError{})
	case "calls Goexit":
		runtime.Goexit()
	case "returns an error that panics":
		return "", badError{}
	case "returns what cannot be encoded":
		return "has a result that cannot be encoded", nil
	case "returns what cannot be decoded":
		return "has a result that cannot be decoded", nil
	}
	return m, nil
})

type badError struct{}

func (badError) Error() string { panic("not even my text") }

// The table of the Python pools, in which each of them hangs or breaks somewhere: eight tasks on two workers, the third misbehaves. It alone has an
// error, the others have their results, and the pool can be used.
func TestOneBadTaskOfEight(t *testing.T) {
	pool := open(t, client.Workers(2), client.Output(func(client.WorkerOutput) {}),
		client.Env(append(os.Environ(), "GORACE=atexit_sleep_ms=0")...)) // the race detector waits for a second when a process exits well
	awaitStaff(t, pool, 2, 0)
	awaitGuardian(t, pool)
	for _, row := range []struct {
		bad  moody
		want error
		says string
	}{
		{"kills itself", client.ErrWorkerLost, "killed by SIGKILL"},
		{"exits with status 0", client.ErrWorkerLost, "exit status 0"},
		{"exits with status 3", client.ErrWorkerLost, "exit status 3"},
		{"panics", client.ErrTask, "panic: so long"},
		{"panics with an error that panics", client.ErrTask, "panic"},
		{"calls Goexit", client.ErrTask, "runtime.Goexit"},
		{"returns an error that panics", client.ErrTask, "not even my text"},
		{"returns what cannot be encoded", client.ErrTask, "encode the result of misbehave: I will not be written down"},
		{"returns what cannot be decoded", client.ErrTask, "decode result: I will not be read"},
		{"cannot be decoded in the worker", client.ErrTask, "decode the argument of misbehave"},
		{"cannot be encoded in the client", client.ErrRejected, "I will not be written down"},
	} {
		for _, how := range []string{"ApplyAsync", "Map"} {
			t.Run(fmt.Sprintf("%s/%s", row.bad, how), func(t *testing.T) {
				promptly(t, "everything", crashBound, func() time.Duration { return oneBadTaskOfEight(t, pool, how, row.bad, row.want, row.says) })
			})
		}
	}
}

// oneBadTaskOfEight is one row, and says how long all eight tasks took.
func oneBadTaskOfEight(t *testing.T, pool *client.Pool, how string, bad moody, want error, says string) (took time.Duration) {
	t.Helper()
	answers := func(m moody) {
		t.Helper()
		if v, err := client.Apply(t.Context(), pool, misbehave, m); v != m || err != nil {
			t.Errorf("the pool answers %q, %v to %q", v, err, m)
		}
	}
	answers("one before") // its stream stays for a while
	before := used(t)
	tasks := []moody{"0", "1", bad, "3", "4", "5", "6", "7"}
	got, errs := make([]moody, len(tasks)), make([]error, len(tasks))
	began := time.Now()
	switch how {
	case "ApplyAsync":
		var results []*client.Result[moody]
		for _, m := range tasks {
			results = append(results, client.ApplyAsync(t.Context(), pool, misbehave, m))
		}
		for i, r := range results {
			got[i], errs[i] = r.Get(t.Context())
		}
	case "Map":
		var err error
		got, err = client.Map(t.Context(), pool, misbehave, tasks)
		var failed *client.MapError
		if !errors.As(err, &failed) || failed.Failed != 1 || failed.Err != nil {
			t.Fatalf("got %v, want one failed task", err)
		}
		errs[failed.Errors[0].Index] = failed.Errors[0]
	}
	took = time.Since(began)
	for i, m := range tasks {
		switch {
		case i == 2 && (!errors.Is(errs[i], want) || !strings.Contains(errs[i].Error(), says)):
			t.Errorf("the bad task has %v, want %v by %q", errs[i], want, says)
		case i != 2 && (got[i] != m || errs[i] != nil):
			t.Errorf("task %d has %q, %v", i, got[i], errs[i])
		}
	}
	answers("one more")
	awaitStaff(t, pool, 2, 0)
	before.back(t)
	return took
}

// The last row of that table: Python starts workers for ever, and its callers wait.
func TestInitThatFails(t *testing.T) {
	other := open(t, client.Workers(1)) // whose daemon it shares, and which stays
	awaitStaff(t, other, 1, 0)
	awaitGuardian(t, other)
	promptly(t, "the reason", bootBound, func() time.Duration {
		before := used(t)
		exits := make(chan client.WorkerExit, 1000)
		began := time.Now()
		pool, err := local.OpenPool(t.Context(), client.Workers(2), client.Env(append(os.Environ(), "INIT_FAILS=1")...),
			client.Output(func(client.WorkerOutput) {}), client.OnExit(func(e client.WorkerExit) { exits <- e }))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []*client.Result[int]{
			client.ApplyAsync(t.Context(), pool, square, 1), client.ApplyAsync(t.Context(), pool, square, 2),
		} {
			if _, err := r.Get(t.Context()); !strings.Contains(fmt.Sprint(err), "its init function failed: no licence") {
				t.Errorf("got %v, want to hear of the init function", err)
			}
		}
		took := time.Since(began)
		if _, err := client.Map(t.Context(), pool, square, []int{3}); !errors.Is(err, client.ErrBootFailure) {
			t.Errorf("got %v, want a boot failure at once", err)
		}
		if err := pool.Terminate(); err != nil {
			t.Error(err)
		}
		if n := len(exits); n > 8 {
			t.Errorf("%d processes were started, want a few", n)
		}
		before.back(t)
		return took
	})
}

func init() {
	if os.Getenv("INIT_FAILS") != "" {
		workerproc.Init(func(context.Context, int) error { return errors.New("no licence") })
	}
}
