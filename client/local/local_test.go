package local_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/proto/wire"
	"github.com/procpool/procpool/workerproc"
)

var (
	square = workerproc.Func("square", func(_ context.Context, i int) (int, error) { return i * i, nil })
	picky  = workerproc.Func("picky", func(_ context.Context, i int) (int, error) {
		if i == 77_777 {
			return 0, errors.New("I do not like this one")
		}
		return i, nil
	})
	hold = workerproc.Func("hold", func(ctx context.Context, _ int) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	size   = workerproc.Func("size", func(_ context.Context, b []byte) (int, error) { return len(b), nil })
	say    = workerproc.Func("say", func(_ context.Context, s string) (int, error) { return fmt.Println(s) })
	nested = workerproc.Func("nested", func(ctx context.Context, i int) (int, error) {
		pool, err := local.OpenPool(ctx, client.Workers(1))
		if err != nil {
			return 0, err
		}
		defer func() { _ = pool.Terminate() }()
		return client.Apply(ctx, pool, square, i)
	})
)

func TestMain(m *testing.M) {
	if os.Getenv("FORGOTTEN_MAIN") == "" {
		workerproc.Main()
	}
	os.Exit(m.Run())
}

func open(t *testing.T, opts ...client.PoolOption) *client.Pool {
	t.Helper()
	pool, err := local.OpenPool(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pool.Terminate(); err != nil {
			t.Errorf("terminate: %v", err)
		}
	})
	return pool
}

func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

func TestMapOfAMillionTasksIsInOrder(t *testing.T) {
	n := 1_000_000
	if raceEnabled {
		n = 100_000
	}
	pool := open(t, client.Workers(2))
	got, err := client.Map(t.Context(), pool, square, upTo(n))
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range got {
		if v != i*i {
			t.Fatalf("result %d is %d, want %d", i, v, i*i)
		}
	}
}

func TestOneFailureAmongManyKeepsTheOthers(t *testing.T) {
	pool := open(t, client.Workers(2))
	got, err := client.Map(t.Context(), pool, picky, upTo(100_000))
	var failed *client.MapError
	if !errors.As(err, &failed) || failed.Failed != 1 || failed.Errors[0].Index != 77_777 {
		t.Fatalf("got error %v, want one failed task, number 77777", err)
	}
	for i, v := range got {
		if i != 77_777 && v != i {
			t.Fatalf("result %d is %d", i, v)
		}
	}
}

func TestItemOverTheLimitIsRejectedAlone(t *testing.T) {
	pool := open(t, client.Workers(1))
	input := func(yield func([]byte) bool) {
		for i := range 1010 {
			n := i % 7
			if i == 999 {
				n = wire.MaxItem + 1
			}
			if !yield(make([]byte, n)) {
				return
			}
		}
	}
	seen := 0
	for out, err := range client.IMap(t.Context(), pool, size, iter.Seq[[]byte](input)) {
		if err != nil {
			t.Fatal(err)
		}
		if rejected := errors.Is(out.Err, client.ErrRejected); rejected != (seen == 999) || (!rejected && out.Value != seen%7) {
			t.Fatalf("item %d: got %d, %v", seen, out.Value, out.Err)
		}
		seen++
	}
	if seen != 1010 {
		t.Errorf("got %d outcomes, want 1010", seen)
	}
}

func TestEndlessInputIsReadNoFurtherThanTheWindow(t *testing.T) {
	pool := open(t, client.Workers(2))
	drawn, over := 0, make(chan struct{})
	endless := func(yield func(int) bool) {
		defer close(over)
		for ; yield(drawn); drawn++ {
		}
	}
	taken := 0
	for out, err := range client.IMap(t.Context(), pool, square, iter.Seq[int](endless)) {
		if err != nil || out.Err != nil {
			t.Fatal(err, out.Err)
		}
		if taken++; taken == 20_000 {
			break
		}
	}
	<-over // a loop does not wait for its input for long
	if ahead := drawn - taken; ahead > 4096+1 {
		t.Errorf("the input was read %d items ahead of its consumer, want at most the window of 4096", ahead)
	}
}

func TestOutputOfWorkersReachesTheClientBeforeJoinReturns(t *testing.T) {
	var mu sync.Mutex
	var lines []string
	pool := open(t, client.Workers(2), client.Output(func(o client.WorkerOutput) {
		mu.Lock()
		lines = append(lines, string(o.Line))
		mu.Unlock()
	}))
	if _, err := client.Map(t.Context(), pool, say, []string{"a", "b", "c"}); err != nil {
		t.Fatal(err)
	}
	if err := pool.Close(); err != nil {
		t.Fatal(err)
	}
	if err := pool.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	if got := strings.Join(lines, ""); got != "abc" {
		t.Errorf("got lines %q, want a, b and c", lines)
	}
}

func TestEndsMayBeRepeated(t *testing.T) {
	pool := open(t, client.Workers(1))
	for i, end := range []func() error{
		pool.Close, pool.Close, func() error { return pool.Join(t.Context()) }, func() error { return pool.Join(t.Context()) },
		pool.Terminate, pool.Terminate, pool.Close, func() error { return pool.Join(t.Context()) },
	} {
		if err := end(); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
}

func TestCancelledContextEndsTheTask(t *testing.T) {
	pool := open(t, client.Workers(1))
	ctx, cancel := context.WithCancel(t.Context())
	r := client.ApplyAsync(ctx, pool, hold, 0)
	cancel()
	if _, err := r.Get(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context canceled", err)
	}
	if v, err := client.Apply(t.Context(), pool, square, 3); v != 9 || err != nil {
		t.Errorf("the worker then answers %d, %v; want 9", v, err)
	}
}

func TestTaskTimeout(t *testing.T) {
	pool := open(t, client.Workers(1))
	_, err := client.Apply(t.Context(), pool, hold, 0, client.TaskTimeout(50*time.Millisecond))
	if !errors.Is(err, client.ErrTimeout) {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestPoolInsideAFunctionWorks(t *testing.T) {
	pool := open(t, client.Workers(1))
	if v, err := client.Apply(t.Context(), pool, nested, 5); v != 25 || err != nil {
		t.Errorf("got %d, %v; want 25", v, err)
	}
}

func TestInlineRunsHere(t *testing.T) {
	pool, err := local.Inline(t.Context(), client.Workers(2))
	if err != nil {
		t.Fatal(err)
	}
	got, err := client.Map(t.Context(), pool, whereAmI, []int{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	if got[0] != os.Getpid() || got[1] != os.Getpid() {
		t.Errorf("tasks ran in processes %v, want %d", got, os.Getpid())
	}
	if err := pool.Terminate(); err != nil {
		t.Error(err)
	}
}

func TestInlineRefusesWhatItCannotKeep(t *testing.T) {
	for name, option := range map[string]client.PoolOption{
		"drain_memory":                   client.DrainMemory(1 << 30),
		"max_memory":                     client.MaxMemory(1 << 30),
		"max_processes":                  client.MaxProcesses(100),
		"run another program":            client.Program("/bin/sh"),
		"have another working directory": client.Dir("/"),
		"have another environment":       client.Env("A=B"),
	} {
		pool, err := local.Inline(t.Context(), option)
		if err == nil {
			err = errors.Join(errors.New("it opens"), pool.Terminate())
		}
		if !errors.Is(err, client.ErrUnsupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want ErrUnsupported that says %q", err, name)
		}
	}
}

var whereAmI = workerproc.Func("where_am_i", func(context.Context, int) (int, error) { return os.Getpid(), nil })

func TestProgramThatForgotMain(t *testing.T) {
	started := time.Now()
	pool := open(t, client.Workers(2), client.Env(append(os.Environ(), "FORGOTTEN_MAIN=1")...),
		client.Output(func(client.WorkerOutput) {})) // it runs this whole test, and says so
	_, err := client.Apply(t.Context(), pool, square, 1)
	if !errors.Is(err, client.ErrBootFailure) || !strings.Contains(err.Error(), "call workerproc.Main() first in main (and in TestMain)") {
		t.Errorf("got %v, want the sentence about workerproc.Main", err)
	}
	if took := time.Since(started); took > 20*2*time.Second {
		t.Errorf("it took %v to say so, the published bound is 2s", took)
	} else {
		t.Logf("it took %v to say so", took)
	}
}

func TestManyClientsAtOnce(t *testing.T) {
	pool := open(t, client.Workers(2))
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			got, err := client.Map(t.Context(), pool, square, upTo(2000))
			if err != nil || got[1999] != 1999*1999 {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
}

func TestPoolsLeaveNothingBehind(t *testing.T) {
	cycle := func() {
		pool, err := local.OpenPool(t.Context(), client.Workers(2))
		if err != nil {
			t.Fatal(err)
		}
		if v, err := client.Apply(t.Context(), pool, square, 4); v != 16 || err != nil {
			t.Errorf("got %d, %v", v, err)
		}
		if err := pool.Terminate(); err != nil {
			t.Error(err)
		}
	}
	cycle() // what is made once stays
	n := 100
	if raceEnabled || testing.Short() {
		n = 20
	}
	before := used(t)
	before.children = 0
	for range n {
		cycle()
	}
	before.back(t)
}

func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("NOT TESTED: that no descriptor is left open, which /proc/self/fd tells (mount -t proc proc /proc)")
	}
	return len(entries)
}

// children is the processes that this one has started and not reaped.
func children(t *testing.T) (pids []int) {
	t.Helper()
	out, err := exec.Command("ps", "-o", "pid=,comm=", "--ppid", strconv.Itoa(os.Getpid())).Output()
	if err != nil {
		return nil // there are none
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 2 && f[1] != "ps" {
			pid, _ := strconv.Atoi(f[0])
			pids = append(pids, pid)
		}
	}
	return pids
}

// patience is how long anything here may take at most, on a busy machine; nothing waits for it to pass.
const patience = 2 * time.Minute

// eventually waits until wrong has nothing to complain about.
func eventually(t *testing.T, wrong func() string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		complaint := wrong()
		if complaint == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(complaint)
		}
	}
}
