package local_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/workerproc"
)

// leak keeps as many MiB as it is told, and says who did.
var leak = workerproc.Func("leak", func(_ context.Context, mib int) (int, error) {
	b := make([]byte, mib<<20)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	leaked = append(leaked, b)
	return os.Getpid(), nil
})

var leaked [][]byte

// gate waits until the file exists that it is given, and says who did.
var gate = workerproc.Func("gate", func(ctx context.Context, file string) (int, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(file); err == nil {
			return os.Getpid(), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
})

// generation says which program a worker runs.
var generation = workerproc.Func("generation", func(context.Context, int) (string, error) { return os.Getenv("GENERATION"), nil })

// exits collects how workers end.
type exits struct {
	mu   sync.Mutex
	list []client.WorkerExit
}

func (e *exits) option() client.PoolOption {
	return client.OnExit(func(x client.WorkerExit) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.list = append(e.list, x)
	})
}

// count is how many have ended with a reason that contains the text.
func (e *exits) count(text string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.list {
		if strings.Contains(x.Reason, text) {
			n++
		}
	}
	return n
}

// awaitCount waits until so many workers have ended with a reason that contains the text.
func (e *exits) awaitCount(t *testing.T, want int, text string) {
	t.Helper()
	eventually(t, func() string {
		if got := e.count(text); got != want {
			e.mu.Lock()
			defer e.mu.Unlock()
			return fmt.Sprintf("%d workers have ended with %q, want %d: %+v", got, text, want, e.list)
		}
		return ""
	})
}

func info(t *testing.T, pool *client.Pool) *pb.Pool {
	t.Helper()
	i, err := pool.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// awaitStaff waits until a pool has so many workers, and spares, that are ready, and no others.
func awaitStaff(t *testing.T, pool *client.Pool, workers, spares uint32) {
	t.Helper()
	eventually(t, func() string {
		if i := info(t, pool); i.Idle+i.Busy != workers || i.Spares != spares || i.Starting > 0 {
			return fmt.Sprintf("the pool has %d workers idle, %d busy, %d spares, %d starting; want %d and %d spares", i.Idle, i.Busy, i.Spares, i.Starting, workers, spares)
		}
		return ""
	})
}

func awaitBusy(t *testing.T, pool *client.Pool, want uint32) {
	t.Helper()
	eventually(t, func() string {
		if i := info(t, pool); i.Busy != want {
			return fmt.Sprintf("%d workers are busy, want %d", i.Busy, want)
		}
		return ""
	})
}

func TestRecyclingLosesNothing(t *testing.T) {
	for _, test := range []struct{ chunk, spares int }{{0, 0}, {0, 2}, {7, 1}, {1, 0}} {
		var ended exits
		pool := open(t, client.Workers(2), client.MaxTasksPerWorker(20), client.Spares(test.spares), ended.option())
		n := 400
		if raceEnabled {
			n = 200
		}
		got, err := client.Map(t.Context(), pool, whereAmI, upTo(n), client.ChunkSize(test.chunk))
		if err != nil {
			t.Fatalf("chunk size %d, %d spares: %v", test.chunk, test.spares, err)
		}
		tasks := map[int]int{}
		for _, pid := range got {
			tasks[pid]++
		}
		if most := slices.Max(slices.Collect(maps.Values(tasks))); most > 20 {
			t.Errorf("chunk size %d, %d spares: a worker has run %d tasks, want at most 20", test.chunk, test.spares, most)
		}
		i := 0
		for out, err := range client.IMap(t.Context(), pool, square, slices.Values(upTo(n)), client.ChunkSize(test.chunk)) {
			if err != nil || out.Err != nil || out.Value != i*i || out.Attempt != 1 {
				t.Fatalf("chunk size %d, %d spares: outcome %d is %+v, %v; want %d after one attempt", test.chunk, test.spares, i, out, err, i*i)
			}
			i++
		}
		if i != n {
			t.Errorf("chunk size %d, %d spares: %d outcomes, want %d", test.chunk, test.spares, i, n)
		}
		if err := pool.Terminate(); err != nil {
			t.Fatal(err)
		}
		if got, want := ended.count("recycled after 20 tasks")+ended.count("recycled after 19 tasks"), 2*n/20-4; got < want {
			t.Errorf("chunk size %d, %d spares: %d workers were recycled after 19 or 20 tasks, want at least %d: %+v", test.chunk, test.spares, got, want, ended.list)
		}
	}
}

func TestSpareTakesOverFromAWorkerThatDies(t *testing.T) {
	var ended exits
	pool := open(t, client.Workers(1), client.Spares(1), ended.option())
	awaitStaff(t, pool, 1, 1)
	first, err := client.Apply(t.Context(), pool, whereAmI, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended.awaitCount(t, 1, "SIGKILL")
	began := time.Now()
	second, err := client.Apply(t.Context(), pool, whereAmI, 0)
	if err != nil || second == first {
		t.Fatalf("process %d answers, %v; want another than %d", second, err, first)
	}
	t.Logf("the spare answered after %v", time.Since(began))
	awaitStaff(t, pool, 1, 1)
}

func TestWorkerThatTakesTooMuchMemoryIsReplaced(t *testing.T) {
	var ended exits
	pool := open(t, client.Workers(1), client.DrainMemory(200<<20), ended.option())
	pid, err := client.Apply(t.Context(), pool, leak, 300)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if now, err := client.Apply(t.Context(), pool, leak, 0); err != nil || now == pid {
			return fmt.Sprintf("worker %d is still there, %v", now, err)
		}
		return ""
	})
	ended.awaitCount(t, 1, "MiB of memory")
}

func TestIdlePoolShrinksAndGrowsAgain(t *testing.T) {
	for _, least := range []uint32{0, 1} {
		var ended exits
		pool := open(t, client.Workers(3), client.MaxWorkerIdle(time.Second), client.MinWorkers(int(least)), ended.option())
		ended.awaitCount(t, 3-int(least), "without a task")
		awaitStaff(t, pool, least, 0)
		free := filepath.Join(t.TempDir(), "free")
		r := client.MapAsync(t.Context(), pool, gate, []string{free, free, free})
		awaitBusy(t, pool, 3)
		if err := os.WriteFile(free, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		pids, err := r.Get(t.Context())
		if err != nil || pids[0] == pids[1] || pids[1] == pids[2] || pids[0] == pids[2] {
			t.Errorf("the tasks ran in processes %v, %v; want three", pids, err)
		}
	}
}

func TestResizeUnderLoad(t *testing.T) {
	pool := open(t, client.Workers(1))
	r := client.MapAsync(t.Context(), pool, waiting, upTo(3000))
	for i := 0; ; i++ {
		if err := pool.Resize(t.Context(), 1+i*3%5); err != nil {
			t.Fatal(err)
		}
		wait, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		err := r.Wait(wait)
		cancel()
		if err == nil {
			break
		}
	}
	got, err := r.Get(t.Context())
	for i, v := range got {
		if err != nil || v != i {
			t.Fatalf("result %d is %d, %v", i, v, err)
		}
	}
	for _, size := range []int{4, 2} {
		if err := pool.Resize(t.Context(), size); err != nil {
			t.Fatal(err)
		}
		awaitStaff(t, pool, uint32(size), 0)
	}
	for _, size := range []int{0, -1, 4097} {
		if err := pool.Resize(t.Context(), size); !errors.Is(err, client.ErrBadRequest) {
			t.Errorf("resize to %d: %v, want a bad request", size, err)
		}
	}
}

func TestResizeToLessLetsTasksEnd(t *testing.T) {
	pool := open(t, client.Workers(2))
	free := filepath.Join(t.TempDir(), "free")
	r := client.MapAsync(t.Context(), pool, gate, []string{free, free, free, free})
	awaitBusy(t, pool, 2)
	if err := pool.Resize(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(free, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get(t.Context()); err != nil {
		t.Error(err)
	}
	awaitStaff(t, pool, 1, 0)
}

func TestRestartUnderLoadDropsNothing(t *testing.T) {
	var ended exits
	pool := open(t, client.Workers(2), client.Spares(1), client.Env(append(os.Environ(), "GENERATION=1")...), ended.option())
	const tasks = 4000
	wrong := make(chan string, 1) // one slot: what is wrong with the outcomes, at their end
	go func() { wrong <- wrongOutcomes(t.Context(), pool, tasks) }()
	for i := 2; i <= 4; i++ {
		replaced, err := pool.Restart(t.Context(), client.Env(append(os.Environ(), fmt.Sprintf("GENERATION=%d", i))...))
		if err != nil || replaced < 1 || replaced > 4 {
			t.Fatalf("restart %d has replaced %d workers, %v; want two and a spare, or those that had come up", i, replaced, err)
		}
		if got, err := client.Apply(t.Context(), pool, generation, 0); got != fmt.Sprint(i) || err != nil {
			t.Fatalf("after restart %d the program is %q, %v", i, got, err)
		}
	}
	if complaint := <-wrong; complaint != "" {
		t.Fatal(complaint)
	}
	if replaced, err := pool.Restart(t.Context()); err != nil || replaced < 2 {
		t.Errorf("restart with the same program has replaced %d workers, %v", replaced, err)
	}
	if got, err := client.Apply(t.Context(), pool, generation, 0); got != "4" || err != nil {
		t.Errorf("then the program is %q, %v; want that of the last restart", got, err)
	}
	if ended.count("replaced in a restart") < 3 {
		t.Errorf("exits %+v, want some that say that they were replaced", ended.list)
	}
}

// wrongOutcomes says what is wrong with the outcomes of so many tasks. Each has its value after one attempt: to be interrupted is none.
func wrongOutcomes(ctx context.Context, pool *client.Pool, tasks int) string {
	i := 0
	for out, err := range client.IMap(ctx, pool, waiting, slices.Values(upTo(tasks))) {
		if err != nil || out.Err != nil || out.Value != i || out.Attempt != 1 {
			return fmt.Sprintf("outcome %d is %+v, %v; want its value after one attempt", i, out, err)
		}
		i++
	}
	if i != tasks {
		return fmt.Sprintf("%d outcomes, want %d", i, tasks)
	}
	return ""
}

func TestRestartToAProgramThatDoesNotStartChangesNothing(t *testing.T) {
	bad, err := exec.LookPath("false")
	if err != nil {
		t.Skip("NOT TESTED: a restart to a program that is no worker: there is no `false` (apt-get install coreutils)")
	}
	pool := open(t, client.Workers(1))
	before, err := client.Apply(t.Context(), pool, whereAmI, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		option client.PoolOption
		want   error
		text   string
	}{
		{client.Program(bad), client.ErrBootFailure, "exit status 1"},
		{client.Program("/no/such/program"), client.ErrProgram, "no such file"},
		{client.Workers(3), client.ErrBadRequest, "nothing else"},
	} {
		if _, err := pool.Restart(t.Context(), test.option); !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("got %v, want %v with %q", err, test.want, test.text)
		}
	}
	if after, err := client.Apply(t.Context(), pool, whereAmI, 0); after != before || err != nil {
		t.Errorf("process %d answers, %v; want %d as before", after, err, before)
	}
}

func TestWaitForARestartEndsWithItsContext(t *testing.T) {
	pool := open(t, client.Workers(1))
	free := filepath.Join(t.TempDir(), "free")
	r := client.ApplyAsync(t.Context(), pool, gate, free)
	awaitBusy(t, pool, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := pool.Restart(ctx)
		done <- err
	}()
	eventually(t, func() string {
		if i := info(t, pool); i.Generation != 2 {
			return "the new worker is not ready"
		}
		return ""
	})
	if _, err := pool.Restart(t.Context()); !errors.Is(err, client.ErrRestarting) {
		t.Errorf("a second restart: %v, want ErrRestarting", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the wait ended with %v, want context canceled", err)
	}
	if err := os.WriteFile(free, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old, err := r.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if fresh, err := client.Apply(t.Context(), pool, whereAmI, 0); err != nil || fresh == old {
		t.Errorf("process %d answers, %v; want another than %d: the restart goes on", fresh, err, old)
	}
}

func TestSettingsOfTheStaffAreChecked(t *testing.T) {
	for _, test := range []struct {
		want string
		opts []client.PoolOption
	}{
		{"max_worker_age is 1ms", []client.PoolOption{client.MaxWorkerAge(time.Millisecond)}},
		{"max_worker_idle is -1s", []client.PoolOption{client.MaxWorkerIdle(-time.Second)}},
		{"the pool has only 2 workers", []client.PoolOption{client.MaxWorkerIdle(time.Second), client.MinWorkers(3)}},
		{"without max_worker_idle all 2 workers stay anyway", []client.PoolOption{client.MinWorkers(1)}},
		{"may have at most 4094", []client.PoolOption{client.Spares(4095)}},
		{"at least 1 MiB", []client.PoolOption{client.DrainMemory(500)}},
		{"negative", []client.PoolOption{client.DrainMemory(-1)}},
		{"at most -1 tasks", []client.PoolOption{client.MaxTasksPerWorker(-1)}},
	} {
		if _, err := local.OpenPool(t.Context(), append(test.opts, client.Workers(2))...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want an error with %q", err, test.want)
		}
	}
}
