package main_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
)

// A wrapper that waits for its worker is what the daemon has started, and what it sees the end of: here one that ends well whatever its worker did.
func TestAWrapperThatStaysChangesNoOutcome(t *testing.T) {
	d := startDaemon(t)
	c := d.dial()
	pool, err := c.CreatePool(t.Context(), "p", client.Program("sh", "-c", `"$0"; true`, filepath.Join(bin, "e2eworker")), client.Peer(client.PeerGroup),
		client.Workers(1), client.CancelGrace(100*time.Millisecond), client.KillDelay(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		got, err := client.Map(t.Context(), pool, die, []int{0, 1, 2, 3, 4, 5}, client.ChunkSize(6))
		var failed *client.MapError
		if !errors.As(err, &failed) || failed.Failed != 1 || failed.Errors[0].Index != 3 || !errors.Is(failed.Errors[0], client.ErrWorkerLost) {
			t.Fatalf("a worker that is killed: got %v, want task 3 alone to be lost", err)
		}
		if got[2] != 2 || got[4] != 4 {
			t.Errorf("a worker that is killed: got %v", got)
		}
	}
	pids := families(t, pool, 1)
	if _, err := client.Apply(t.Context(), pool, client.Func[int, int]("spin"), 0, client.TaskTimeout(100*time.Millisecond)); !errors.Is(err, client.ErrTimeout) {
		t.Errorf("a task that hangs: got %v", err)
	}
	eventually(t, patience, gone(pids))
	if v, err := client.Apply(t.Context(), pool, nap, 1); v != 1 || err != nil {
		t.Errorf("afterwards: got %d, %v", v, err)
	}
	pids = families(t, pool, 1)
	if err := pool.Terminate(); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, gone(pids))
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
	if code != 0 || !strings.Contains(out, "recycled after 1s") {
		t.Errorf("the log says %q, %s", out, stderr)
	}
}
