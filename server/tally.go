package server

import (
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/server/internal/sched"
)

// Tally is what has happened in a pool, counted. The owner of the pool counts, a chunk or a report of a worker at a time, so that it costs a task next to nothing.
type Tally struct {
	Functions   map[string]*FunctionTally // by name; "" for what never got as far as a function, see also OtherFunctions
	Refused     map[pb.Reason]uint64      // calls, by why
	Wait        Histogram                 // of tasks, from when they were added to when they were dispatched; one that is given back and dispatched again counts again
	Dispatched  uint64                    // tasks given to workers
	Retried     uint64                    // of these: second and later attempts
	Chunks      uint64                    // in which they were given
	ItemBytes   uint64                    // that came from clients
	ResultBytes uint64                    // that went back to calls
	Starts      uint64                    // of worker processes, those that could not be started too
	Exits       map[string]uint64         // of worker processes, by reason: see exitCause
	Restarts    uint64                    // rolling restarts that were carried out
	FailedOnes  uint64                    // and those that were not
	Lines       uint64                    // that workers wrote and that were passed on
	LostLines   uint64                    // that were dropped, because a worker wrote too many
	DeadCPU     time.Duration             // that workers used which have been reaped
}

// FunctionTally is what has happened to the calls of one function.
type FunctionTally struct {
	Ended     uint64                     // calls that have had all their outcomes
	Cancelled uint64                     // calls that were cancelled, by their clients, somebody else or the end of the pool
	Outcomes  [sched.Rejected + 1]uint64 // of tasks
	Run       Histogram                  // of tasks that ran. Those of one report of a worker count with their mean
}

// Limits of a Tally: a function beyond so many is counted as OtherFunctions. A pool has as many as its programs offer, and every restart may bring new ones.
const (
	maxFunctions   = 200
	OtherFunctions = "(other)"
)

// Bounds are the upper bounds of a Histogram's buckets. The last bucket has no bound.
var Bounds = [...]time.Duration{
	time.Microsecond, 10 * time.Microsecond, 100 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, time.Second, 5 * time.Second, 10 * time.Second, time.Minute, 10 * time.Minute,
}

// Histogram is how often something took how long.
type Histogram struct {
	Buckets [len(Bounds) + 1]uint64 // each alone
	Sum     time.Duration
}

// observe counts n times that something took so long, together.
func (h *Histogram) observe(n int, sum time.Duration) {
	each, i := sum/time.Duration(n), 0
	for i < len(Bounds) && each > Bounds[i] {
		i++
	}
	h.Buckets[i] += uint64(n)
	h.Sum += sum
}

// Count is how often.
func (h *Histogram) Count() (n uint64) {
	for _, b := range h.Buckets {
		n += b
	}
	return n
}

func (h *Histogram) add(o *Histogram) {
	for i, n := range o.Buckets {
		h.Buckets[i] += n
	}
	h.Sum += o.Sum
}

func newTally() Tally {
	return Tally{Functions: make(map[string]*FunctionTally), Refused: make(map[pb.Reason]uint64), Exits: make(map[string]uint64)}
}

// function is where to count what happens to calls of a function that the pool has.
func (t *Tally) function(name string) *FunctionTally {
	f := t.Functions[name]
	if f == nil && len(t.Functions) >= maxFunctions {
		name = OtherFunctions
		f = t.Functions[name]
	}
	if f == nil {
		f = new(FunctionTally)
		t.Functions[name] = f
	}
	return f
}

// add adds another tally, as one that does not tell its functions apart if flat.
func (t *Tally) add(o *Tally, flat bool) {
	for name, f := range o.Functions {
		if flat {
			name = ""
		}
		sum := t.function(name)
		sum.Ended += f.Ended
		sum.Cancelled += f.Cancelled
		for i, n := range f.Outcomes {
			sum.Outcomes[i] += n
		}
		sum.Run.add(&f.Run)
	}
	for why, n := range o.Refused {
		t.Refused[why] += n
	}
	for why, n := range o.Exits {
		t.Exits[why] += n
	}
	t.Wait.add(&o.Wait)
	t.Dispatched += o.Dispatched
	t.Retried += o.Retried
	t.Chunks += o.Chunks
	t.ItemBytes += o.ItemBytes
	t.ResultBytes += o.ResultBytes
	t.Starts += o.Starts
	t.Restarts += o.Restarts
	t.FailedOnes += o.FailedOnes
	t.Lines += o.Lines
	t.LostLines += o.LostLines
	t.DeadCPU += o.DeadCPU
}

// tasks sums what all functions have.
func (t *Tally) tasks() (failed uint64, run time.Duration) {
	for _, f := range t.Functions {
		for o, n := range f.Outcomes {
			if sched.Outcome(o) != sched.Value {
				failed += n
			}
		}
		run += f.Run.Sum
	}
	return failed, run
}

// The following are called by the pool's owner.

func (t *Tally) dispatched(k *sched.Chunk) {
	t.Chunks++
	t.Dispatched += uint64(k.N)
	if k.Attempt > 1 {
		t.Retried += uint64(k.N)
	}
	t.Wait.observe(k.N, k.Waited*time.Duration(k.N))
}

// delivered counts outcomes of the tasks of a call; c is nil if it has ended for its client.
func (t *Tally) delivered(c *call, d *sched.Delivery) {
	var f *FunctionTally
	if c != nil {
		f = c.tally
	}
	if f == nil {
		f = t.function("")
	}
	failures := 0
	f.Outcomes[d.Outcome] += uint64(d.N)
	if d.Outcome != sched.Value {
		failures = d.N
	}
	for _, failed := range d.Report.Failed { // a report has outcome Value, but for these
		if failed.Offset >= d.First && failed.Offset < d.First+d.N {
			f.Outcomes[sched.Value]--
			f.Outcomes[failed.Outcome]++
			failures++
		}
	}
	if c != nil {
		c.outcomes += uint64(d.N)
		c.failures += uint64(failures)
	}
	t.ResultBytes += uint64(d.Bytes)
	if d.Ran > 0 {
		f.Run.observe(d.N, d.Ran)
	}
}

// ended counts a call at its end.
func (t *Tally) ended(c *call, err *refusal, terminated bool) {
	if err != nil {
		t.Refused[err.detail.Reason]++
		return
	}
	f := c.tally
	if f == nil {
		f = t.function("")
	}
	if c.cancelled || terminated {
		f.Cancelled++
	} else {
		f.Ended++
	}
}

// exitCause is why a worker ended, in a word of a short list.
func (w *worker) exitCause(exit *pb.WorkerExit) string {
	switch {
	case exit.OomKilled:
		return "oom"
	case w.killed != sched.NoReason:
		return killCauses[w.killed]
	case w.turnedAway:
		return "turned_away"
	case w.identity == "":
		return "start_failure"
	case exit.Signal != "":
		return "signal"
	case exit.ExitCode != 0:
		return "exit_status"
	case w.retired != sched.NoReason:
		return retirementCauses[w.retired]
	default:
		return "stopped"
	}
}

var killCauses = map[sched.Reason]string{
	sched.NeverRegistered: "start_timeout", sched.NeverReady: "ready_timeout", sched.IgnoredStop: "ignored_stop", sched.Misbehaved: "misbehaved",
	sched.TaskTimedOut: "task_timeout", sched.CallCancelled: "cancelled", sched.DeadlinePassed: "call_deadline", sched.PoolTerminated: "terminated", sched.PoolClosed: "stopped", sched.Stopping: "terminated",
	sched.OutOfMemory: "oom",
}

var retirementCauses = map[sched.Reason]string{
	sched.RanItsTasks: "max_tasks", sched.TooOld: "max_age", sched.TookMemory: "drain_memory", sched.IdleTooLong: "max_idle",
	sched.NotNeeded: "not_needed", sched.Replaced: "restart",
}
