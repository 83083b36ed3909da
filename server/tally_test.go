package server

import (
	"fmt"
	"testing"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/server/internal/sched"
)

func TestTallyCountsOutcomesOfAReport(t *testing.T) {
	t.Parallel()
	tally := newTally()
	c := &call{tally: tally.function("f")}
	// A report of places 4 to 9 of its chunk, of which the first two have been delivered.
	tally.delivered(c, &sched.Delivery{
		N: 4, First: 6, Outcome: sched.Value, Bytes: 100, Ran: 4 * time.Millisecond,
		Report: sched.Report{First: 4, N: 6, Failed: []sched.Failed{{Offset: 5, Outcome: sched.TaskError}, {Offset: 6, Outcome: sched.TaskError}, {Offset: 9, Outcome: sched.Timeout}}},
	})
	tally.delivered(nil, &sched.Delivery{N: 3, Outcome: sched.Cancelled})
	f := tally.Functions["f"]
	if f.Outcomes[sched.Value] != 2 || f.Outcomes[sched.TaskError] != 1 || f.Outcomes[sched.Timeout] != 1 || c.outcomes != 4 || c.failures != 2 {
		t.Errorf("got outcomes %v and %d of %d failed, want 2 values, a task error and a timeout", f.Outcomes, c.failures, c.outcomes)
	}
	if f.Run.Count() != 4 || f.Run.Sum != 4*time.Millisecond || f.Run.Buckets[4] != 4 {
		t.Errorf("got %+v, want four tasks of a millisecond", f.Run)
	}
	if n := tally.Functions[""].Outcomes[sched.Cancelled]; n != 3 || tally.ResultBytes != 100 {
		t.Errorf("got %d cancelled tasks of nobody and %d bytes, want 3 and 100", n, tally.ResultBytes)
	}
	if failed, run := tally.tasks(); failed != 5 || run != 4*time.Millisecond {
		t.Errorf("got %d failed tasks in %v, want 5 in 4ms", failed, run)
	}
}

func TestTallyHasAnEnd(t *testing.T) {
	t.Parallel()
	tally := newTally()
	for i := range 10 * maxFunctions {
		tally.function(fmt.Sprint(i)).Ended++
	}
	if n := len(tally.Functions); n != maxFunctions+1 || tally.Functions[OtherFunctions].Ended != 9*maxFunctions {
		t.Errorf("%d functions are told apart, and %d calls of others", n, tally.Functions[OtherFunctions].Ended)
	}
	sum := newTally()
	sum.add(&tally, true)
	if len(sum.Functions) != 1 || sum.Functions[""].Ended != 10*maxFunctions {
		t.Errorf("the sum without names is %v", sum.Functions)
	}
}

func TestEveryReasonHasItsCause(t *testing.T) {
	t.Parallel()
	kills := []sched.Reason{
		sched.NeverRegistered, sched.NeverReady, sched.IgnoredStop, sched.Misbehaved, sched.TaskTimedOut, sched.CallCancelled, sched.DeadlinePassed, sched.PoolTerminated, sched.PoolClosed,
		sched.Stopping, sched.OutOfMemory,
	}
	for _, why := range kills {
		if killCauses[why] == "" || killers[why] == "" {
			t.Errorf("%v of a kill has the name %q in the metrics and %q in kill reports", why, killCauses[why], killers[why])
		}
	}
	if len(kills) != len(killCauses) || len(kills) != len(killers) {
		t.Errorf("%d and %d reasons of a kill have names, and this test knows %d", len(killCauses), len(killers), len(kills))
	}
	for why := sched.RanItsTasks; why <= sched.Replaced; why++ {
		if (&worker{retired: why, identity: "x"}).exitCause(&pb.WorkerExit{}) == "" {
			t.Errorf("reason %d of a retirement has no word", why)
		}
	}
}

// What it costs a chunk to be counted, dispatched and delivered.
func BenchmarkTally(b *testing.B) {
	tally := newTally()
	c := &call{tally: tally.function("f")}
	k := &sched.Chunk{N: 1, Attempt: 1, Waited: time.Millisecond}
	d := &sched.Delivery{N: 1, Outcome: sched.Value, Bytes: 10, Ran: time.Microsecond}
	for b.Loop() {
		tally.dispatched(k)
		tally.delivered(c, d)
	}
}
