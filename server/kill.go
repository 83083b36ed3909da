package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/server/internal/sched"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// What a worker was doing when it had to be ended is known for a moment only, and is what whoever hunts the reason needs: so it is noted before the
// first signal.

// condemn notes why a worker is signalled and what it was doing. It is called before every signal; the first one counts.
func (w *worker) condemn(why sched.Reason, signal string) {
	w.killed = why
	if w.proc == nil || w.report != nil {
		return
	}
	r := &pb.KillReport{By: killers[why], Signal: signal}
	w.report = r
	if why == sched.PoolTerminated || why == sched.PoolClosed || why == sched.Stopping {
		return // many at once, and nothing is wrong with them
	}
	timeout, deadline := w.describeTask(r)
	spec := w.pool.spec
	switch why {
	case sched.TaskTimedOut:
		r.Limit = fmt.Sprintf("the task timeout of %v and the grace of %v", timeout, spec.CancelGrace.AsDuration())
	case sched.DeadlinePassed:
		r.Limit = fmt.Sprintf("the deadline of the call, %v after it began, and the grace of %v", deadline, spec.CancelGrace.AsDuration())
	case sched.CallCancelled, sched.IgnoredStop:
		r.Limit = fmt.Sprintf("the grace of %v", spec.CancelGrace.AsDuration())
	case sched.OutOfMemory:
		r.Limit = fmt.Sprintf("max_memory of %s, when it had %s", size(int64(spec.MaxMemory)), size(w.peak))
	case sched.NeverRegistered:
		r.Limit = fmt.Sprintf("the start timeout of %v", spec.StartTimeout.AsDuration())
	case sched.NeverReady:
		r.Limit = fmt.Sprintf("the ready timeout of %v", spec.ReadyTimeout.AsDuration())
	}
	if !w.pool.server.cfg.InProcess {
		describeProcess(r, w.proc.Pid())
	}
	limit := ""
	if killReasons[why] != "" { // the other sentences name it
		limit = r.Limit
	}
	w.doing = killLine(r, limit, time.Now())
}

var killers = map[sched.Reason]string{
	sched.TaskTimedOut:    "task timeout",
	sched.CallCancelled:   "cancel",
	sched.DeadlinePassed:  "call deadline",
	sched.PoolTerminated:  "terminate",
	sched.PoolClosed:      "close",
	sched.Stopping:        "daemon",
	sched.NeverRegistered: "start timeout",
	sched.NeverReady:      "ready timeout",
	sched.IgnoredStop:     "stop",
	sched.Misbehaved:      "protocol",
	sched.OutOfMemory:     "memory limit",
}

// describeTask notes the task that a worker runs, and returns that task's timeout, and after how long its call had to end.
func (w *worker) describeTask(r *pb.KillReport) (timeout, deadline time.Duration) {
	t, ok := w.task()
	if !ok {
		return 0, 0
	}
	r.Attempt, r.Since = uint32(t.attempt), timestamppb.New(t.since)
	if c := t.call; c != nil {
		r.By, deadline = c.killer(r.By), c.allowed()
		r.Function, r.CallId, r.Index = c.spec.Function, c.id, t.index
	}
	return t.timeout, deadline
}

// task is what a worker runs.
type task struct {
	call    *call // nil: it is wound up already
	index   uint64
	attempt int
	since   time.Time
	timeout time.Duration
}

// task says what w runs. Its progress record knows best, if it keeps one: reports of tasks before it may be on their way, or wait in a worker that has been
// stopped. But a worker that has been stopped between two tasks has the next one in hand.
func (w *worker) task() (task, bool) {
	p := w.pool
	i, ok := p.core.Worker(w.id)
	if w.proc != nil {
		if rec, recorded := w.proc.Progress(); recorded && rec.Running {
			if k := p.core.Held(w.id, sched.ChunkID(rec.Chunk)); k != nil && rec.Offset < k.N {
				if seg, seq, place := taskAt(k.Parts, rec.Offset); k.Call != i.Call || seq >= i.Seq {
					return task{p.calls[k.Call], seg.index(seq, place), k.Attempt, rec.Started, k.TaskTimeout}, true
				}
			}
		}
	}
	c := p.calls[i.Call]
	if !ok || c == nil {
		return task{}, false
	}
	return task{c, c.index(i.Seq), i.Attempt, i.Since, c.spec.TaskTimeout}, true
}

// allowed is how long the call may take; 0 if it has no deadline.
func (c *call) allowed() time.Duration {
	if c.spec.Deadline.IsZero() {
		return 0
	}
	return c.spec.Deadline.Sub(c.started).Round(time.Millisecond)
}

// killer says who has cancelled the call, if that is why.
func (c *call) killer(by string) string {
	if by == killers[sched.CallCancelled] && c.cancelledBy != "" {
		return by + " by " + c.cancelledBy
	}
	return by
}

// maxThreads is how many threads of a process are looked at.
const maxThreads = 64

// describeProcess notes the state of a process that has not been reaped. Whatever cannot be read is left out.
func describeProcess(r *pb.KillReport, pid int) {
	dir := fmt.Sprintf("/proc/%d", pid)
	busiest := ""
	if threads, err := os.ReadDir(filepath.Join(dir, "task")); err == nil {
		for _, t := range threads[:min(len(threads), maxThreads)] {
			thread := filepath.Join(dir, "task", t.Name())
			if state := stateOf(thread); busier(state, r.State) {
				r.State, busiest = state, thread
			}
		}
	}
	if busiest == "" {
		return
	}
	if b, err := os.ReadFile(filepath.Join(busiest, "wchan")); err == nil && string(b) != "0" {
		r.Wchan = string(b)
	}
	if b, err := os.ReadFile(filepath.Join(busiest, "syscall")); err == nil {
		number, _, _ := strings.Cut(string(b), " ")
		if n, err := strconv.ParseUint(number, 10, 32); err == nil { // else it is "running", or -1 for none
			nr := uint32(n)
			r.Syscall = &nr
		}
	}
}

// stateOf is the state of a process or thread, in the words of /proc/PID/status; empty if it cannot be read.
func stateOf(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if state, ok := strings.CutPrefix(line, "State:"); ok {
			return strings.TrimSpace(state)
		}
	}
	return ""
}

// busier tells whether a thread in state a says more about its process than one in state b. Sleeping threads are what every process has.
func busier(a, b string) bool {
	const order = "ZXSItTDR" // from the one that says least
	if a == "" {
		return false
	}
	return b == "" || strings.IndexByte(order, a[0]) > strings.IndexByte(order, b[0])
}

// killLine is a report in a few words, with the limit if that is to be named; empty if there is nothing to add to the reason.
func killLine(r *pb.KillReport, limit string, now time.Time) string {
	var parts []string
	if strings.HasPrefix(r.GetBy(), killers[sched.CallCancelled]+" by") {
		parts = append(parts, r.By)
	}
	if r.GetFunction() != "" {
		parts = append(parts, fmt.Sprintf("it ran %s (call %.8s, task %d, attempt %d) for %v", r.Function, r.CallId, r.Index, r.Attempt,
			now.Sub(r.Since.AsTime()).Round(time.Millisecond)))
	}
	if r.GetState() != "" {
		at := "state " + r.State
		if r.Wchan != "" {
			at += " in " + r.Wchan
		}
		parts = append(parts, at)
	}
	if limit != "" {
		parts = append(parts, "limit: "+limit)
	}
	return strings.Join(parts, ", ")
}
