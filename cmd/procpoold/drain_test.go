package main_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
)

var spin = client.Func[int, int]("spin")

// A daemon that is told to stop waits for what it has accepted, but no longer than it was told. Then it says of each task whether it has begun: who
// made the others may make them again.
func TestTheDrainTimeoutEndsWhatHangs(t *testing.T) {
	t.Parallel()
	const drain = 200 * time.Millisecond
	d := startDaemon(t, "--drain-timeout", drain.String())
	pool := d.create("p", 1)
	pids := families(t, pool, 1)
	c := d.dial()

	type end struct {
		outcomes []client.Outcome[int]
		err      error
	}
	ended := make(chan end, 1)
	go func() { // ends with the daemon at the latest
		var e end
		for out, err := range client.IMapUnordered(t.Context(), pool, spin, slices.Values(make([]int, 6)), client.ChunkSize(1)) {
			if err != nil {
				e.err = err
				break
			}
			e.outcomes = append(e.outcomes, out)
		}
		ended <- e
	}()
	eventually(t, patience, func() string {
		calls, err := c.Calls(t.Context(), "p")
		if err != nil {
			t.Fatal(err)
		}
		if len(calls) != 1 || calls[0].RunningTasks != 1 || calls[0].AcceptedTasks != 6 || !calls[0].InputEnded {
			return fmt.Sprintf("the calls are %v, want one of six tasks, one of them running", calls)
		}
		return ""
	})
	began := time.Now()
	d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.done
	took := time.Since(began)
	t.Logf("published bound %v after the drain timeout of %v; took %v together", drainBound, drain, took)
	if d.err != nil || took < drain || took > drain+20*drainBound {
		t.Errorf("the daemon ended after %v (%v); want no error, soon after %v", took, d.err, drain)
	}
	eventually(t, patience, gone(pids))

	e := <-ended
	if e.err != nil || len(e.outcomes) != 6 {
		t.Fatalf("got %d outcomes and %v, want six", len(e.outcomes), e.err)
	}
	for _, out := range e.outcomes {
		var failed *client.TaskError
		want, attempts := client.ErrRejected, 0
		if out.Index == 0 {
			want, attempts = client.ErrCancelled, 1
		}
		if !errors.Is(out.Err, want) || out.Attempt != attempts || !errors.As(out.Err, &failed) {
			t.Errorf("task %d has %v after %d attempts; want %v after %d", out.Index, out.Err, out.Attempt, want, attempts)
		} else if !strings.Contains(failed.Error(), "stop") {
			t.Errorf("task %d has %q, want to hear that the daemon stops", out.Index, failed)
		}
	}
}

// drainBound is how soon a daemon has stopped when its drain timeout is over, as published.
const drainBound = time.Second
