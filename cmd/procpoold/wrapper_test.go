package main_test

import (
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
)

// A wrapper that waits for its worker is what the daemon has started, and what it sees the end of: here one that ends well whatever its worker did.
func TestAWrapperThatStaysChangesNoOutcome(t *testing.T) {
	d := startWatched(t)
	empty := d.holdings(t)
	pool, err := d.client.CreatePool(t.Context(), "p", client.Program("sh", "-c", `"$0"; true`, filepath.Join(bin, "e2eworker")), client.Peer(client.PeerGroup),
		client.Workers(1), client.CancelGrace(grace), client.KillDelay(killDelay))
	if err != nil {
		t.Fatal(err)
	}
	rest(t, pool, 1)
	before := d.holdings(t)
	for range 3 {
		promptly(t, "everything, with a worker that is killed,", crashBound, func() time.Duration {
			rest(t, pool, 1)
			began := time.Now()
			got, err := client.Map(t.Context(), pool, die, []int{0, 1, 2, 3, 4, 5}, client.ChunkSize(6))
			took := time.Since(began)
			var failed *client.MapError
			if !errors.As(err, &failed) || failed.Failed != 1 || failed.Errors[0].Index != 3 || !errors.Is(failed.Errors[0], client.ErrWorkerLost) {
				t.Fatalf("a worker that is killed: got %v, want task 3 alone to be lost", err)
			}
			if !slices.Equal(got, []int{0, 1, 2, 0, 4, 5}) {
				t.Errorf("a worker that is killed: got %v", got)
			}
			return took
		})
	}
	const timeout = 100 * time.Millisecond
	promptly(t, "a task that hangs", timeout+killBound, func() time.Duration {
		pids := families(t, pool, 1)
		began := time.Now()
		_, err := client.Map(t.Context(), pool, client.Func[int, int]("spin"), []int{0}, client.TaskTimeout(timeout))
		took := time.Since(began)
		if !errors.Is(err, client.ErrTimeout) {
			t.Errorf("a task that hangs: got %v", err)
		}
		eventually(t, patience, gone(pids))
		return took
	})
	if v, err := client.Map(t.Context(), pool, nap, []int{1}); err != nil || v[0] != 1 {
		t.Errorf("afterwards: got %v, %v", v, err)
	}
	rest(t, pool, 1)
	d.back(t, before)
	pids := families(t, pool, 1)
	if err := pool.Terminate(); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, gone(pids))
	d.back(t, empty)
}

func TestAWorkerOfAgeIsReplacedBetweenTasks(t *testing.T) {
	d := startDaemon(t)
	c := d.dial()
	pool, err := c.CreatePool(t.Context(), "p", client.Program(filepath.Join(bin, "e2eworker")), client.Workers(1), client.MaxWorkerAge(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	first := d.worker(pool)
	took := eventually(t, 40*time.Second, func() string {
		if _, err := client.Apply(t.Context(), pool, nap, 20); err != nil {
			t.Fatal(err) // whichever worker has it
		}
		workers, err := c.Workers(t.Context(), "p")
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range workers {
			if w.Pid == first.Pid {
				return "the first worker is still there"
			}
		}
		return ""
	})
	t.Logf("at least 0.9s; took %v", took)
	out, stderr, code := d.run("procpool", "logs", "p")
	// The second that it may live begins when it is ready; what is said counts its start and its end as well.
	age := regexp.MustCompile(`recycled after (\d+)s`).FindStringSubmatch(out)
	if code != 0 || age == nil {
		t.Fatalf("the log says %q, %s", out, stderr)
	}
	if n, err := strconv.Atoi(age[1]); err != nil || n < 1 || time.Duration(n)*time.Second > time.Since(first.Started.AsTime()).Round(time.Second) {
		t.Errorf("the log says %q, and the worker has been started %v ago", out, time.Since(first.Started.AsTime()))
	}
}
