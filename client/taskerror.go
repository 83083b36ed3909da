package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// Kinds of a failed task, for errors.Is with a [*TaskError]. ErrCancelled is also what a call has that somebody else has cancelled with [Client.Cancel] before
// all its items were sent.
var (
	ErrTask       = errors.New("task failed")    // the function returned an error or panicked
	ErrTimeout    = errors.New("task timed out") // TaskTimeout or QueueTimeout; also context.DeadlineExceeded
	ErrCancelled  = errors.New("task cancelled") // also context.Canceled
	ErrWorkerLost = errors.New("worker lost")    // the worker died while it ran the task
	ErrRejected   = errors.New("task rejected")  // it was never started, so it had no effects
)

// ErrTooLarge is the cause of a task that is rejected because its argument is over 32 MiB.
var ErrTooLarge = errors.New("argument is too large")

// TaskError is a task without a result.
type TaskError struct {
	// Index of the task in its call. 0 for Apply.
	Index int
	// Outcome says how the task ended; errors.Is with ErrTask, ErrTimeout and so on is the shorter way to ask.
	Outcome pb.Outcome
	// Attempts is how often the task was started. 0: never, so it had no effects.
	Attempts int
	// Worker that ran the last attempt, "POOL-NUMBER". Empty if there was none.
	Worker string
	// Type of the function's error in the words of the worker's language: "*fs.PathError", "panic", "ValueError".
	Type string
	// Message is what happened, in one line for a person; for ErrTask, the text of the function's error.
	Message string
	// Stack says where it happened, for a panic or an exception. May be empty.
	Stack string
	// Detail is what the function's error carries for its caller, in an encoding the two agree upon. May be empty.
	Detail []byte
	// Exit is the end of the worker process, if it died or was killed for this task.
	Exit *WorkerExit

	name  string // of the function; set for Apply, whose tasks have no index that means something
	cause error  // what went wrong on our side: an argument that cannot be encoded, a result that cannot be decoded
}

func newTaskError(f *pb.Failure, index int, name string) *TaskError {
	e := &TaskError{
		Index:    index,
		Outcome:  f.GetOutcome(),
		Attempts: int(f.GetAttempts()),
		Worker:   f.GetWorker(),
		Message:  f.GetMessage(),
		name:     name,
	}
	if t := f.GetTaskError(); t != nil {
		e.Type, e.Stack, e.Detail = t.GetType(), t.GetStack(), t.GetDetail()
		if t.GetMessage() != "" {
			e.Message = t.GetMessage()
		}
	}
	if f.WorkerExit != nil {
		e.Exit = newWorkerExit(f.WorkerExit)
	}
	return e
}

// rejectedError is a task that was never sent, because of err.
func rejectedError(err error, index int, name string) *TaskError {
	return &TaskError{Index: index, Outcome: pb.Outcome_OUTCOME_REJECTED, Type: fmt.Sprintf("%T", err), Message: err.Error(), name: name, cause: err}
}

// undecodedError is a task that succeeded, and whose result is of no use to us because of err.
func undecodedError(err error, index, attempts int, name string) *TaskError {
	err = fmt.Errorf("decode result: %w", err)
	return &TaskError{Index: index, Outcome: pb.Outcome_OUTCOME_TASK_ERROR, Attempts: attempts, Type: fmt.Sprintf("%T", errors.Unwrap(err)),
		Message: err.Error(), name: name, cause: err}
}

// Error says which task failed, how, and where.
func (e *TaskError) Error() string {
	var b strings.Builder
	if e.name != "" {
		b.WriteString(e.name)
	} else {
		fmt.Fprintf(&b, "task %d", e.Index)
	}
	b.WriteString(": ")
	switch {
	case e.Outcome == pb.Outcome_OUTCOME_TASK_ERROR && e.Type == "panic":
		b.WriteString("panic: " + e.Message)
	case e.Outcome == pb.Outcome_OUTCOME_TASK_ERROR:
		b.WriteString(e.Message)
	case e.Exit != nil && e.Outcome == pb.Outcome_OUTCOME_WORKER_LOST:
		b.WriteString("worker lost: " + e.Exit.String())
	default:
		b.WriteString(cmp.Or(kinds[e.Outcome].text, "failed") + ": " + e.Message)
	}
	if e.Attempts > 1 {
		fmt.Fprintf(&b, " (after %d attempts)", e.Attempts)
	}
	return b.String()
}

// kinds is the one table from outcomes to errors.
var kinds = map[pb.Outcome]struct {
	text string
	is   [2]error
}{
	pb.Outcome_OUTCOME_TASK_ERROR:  {"failed", [2]error{ErrTask}},
	pb.Outcome_OUTCOME_TIMEOUT:     {"timeout", [2]error{ErrTimeout, context.DeadlineExceeded}},
	pb.Outcome_OUTCOME_CANCELLED:   {"cancelled", [2]error{ErrCancelled, context.Canceled}},
	pb.Outcome_OUTCOME_WORKER_LOST: {"worker lost", [2]error{ErrWorkerLost}},
	pb.Outcome_OUTCOME_REJECTED:    {"rejected", [2]error{ErrRejected}},
}

// Is reports whether target is the kind of e: ErrTask, ErrTimeout, ErrCancelled, ErrWorkerLost, ErrRejected, context.DeadlineExceeded or
// context.Canceled.
func (e *TaskError) Is(target error) bool {
	is := kinds[e.Outcome].is
	return target != nil && (target == is[0] || target == is[1])
}

// Unwrap is the cause, if it lies on this side: the error of an encoder or a decoder, or [ErrTooLarge].
func (e *TaskError) Unwrap() error { return e.cause }

// MapError says which tasks of a [Map] have no result.
type MapError struct {
	// Err is why the call ended before every task had its outcome: it was refused, cancelled or cut off. Nil if none of this.
	Err error
	// Failed is the number of tasks that had an outcome and no result.
	Failed int
	// Errors are the failed tasks; of more than 100, those with the lowest index.
	Errors []*TaskError
	// Unfinished is the number of tasks that had no outcome, because the call ended before. Whether they ran is not known.
	Unfinished int

	total int
	have  bitmap // tasks with an outcome from the daemon
	bad   bitmap // those of them without a result; nil if none
}

// Error says what ended the call, or how many tasks failed, and the first of them.
func (e *MapError) Error() string {
	first := ""
	if len(e.Errors) > 0 {
		first = e.Errors[0].Error()
	}
	done := e.total - e.Failed - e.Unfinished
	switch {
	case e.Err != nil && first != "":
		return fmt.Sprintf("%v (%d of %d tasks done, %d failed, the first: %s)", e.Err, done, e.total, e.Failed, first)
	case e.Err != nil && done > 0:
		return fmt.Sprintf("%v (%d of %d tasks done)", e.Err, done, e.total)
	case e.Err != nil:
		return e.Err.Error()
	case e.Failed == 1:
		return first
	}
	return fmt.Sprintf("%d of %d tasks failed, the first: %s", e.Failed, e.total, first)
}

// Unwrap is Err, if there is one, and Errors.
func (e *MapError) Unwrap() []error {
	var all []error
	if e.Err != nil {
		all = append(all, e.Err)
	}
	for _, t := range e.Errors {
		all = append(all, t)
	}
	return all
}

// OK reports whether the task with this index has a result.
func (e *MapError) OK(index int) bool {
	return index >= 0 && index < e.total && e.have.has(index) && (e.bad == nil || !e.bad.has(index))
}

// bitmap is a set of small integers.
type bitmap []uint64

func newBitmap(n int) bitmap { return make(bitmap, (n+63)/64) }

func (b bitmap) has(i int) bool { return b[i>>6]&(1<<(i&63)) != 0 }

func (b bitmap) set(i int) { b[i>>6] |= 1 << (i & 63) }

// setRun sets n bits from the first one on, if none of them is set.
func (b bitmap) setRun(first, n int) bool {
	mask := func(word int) uint64 { // of the run's bits in a word
		m := ^uint64(0)
		if word == first>>6 {
			m <<= first & 63
		}
		if word == (first+n-1)>>6 {
			m &= ^uint64(0) >> (63 - (first+n-1)&63)
		}
		return m
	}
	if n == 0 {
		return true
	}
	from, to := first>>6, (first+n-1)>>6
	for w := from; w <= to; w++ {
		if b[w]&mask(w) != 0 {
			return false
		}
	}
	for w := from; w <= to; w++ {
		b[w] |= mask(w)
	}
	return true
}

// WorkerExit is the end of a worker process.
type WorkerExit struct {
	// Worker is its name, "POOL-NUMBER". A number is never used twice in a pool.
	Worker string
	// Pid was its process id.
	Pid int
	// ExitCode is what it exited with, if it exited.
	ExitCode int
	// Signal that ended it, "SIGKILL", if one did.
	Signal string
	// CoreDumped is true if it left a core dump.
	CoreDumped bool
	// OOMKilled is true if the kernel is known to have killed it for memory.
	OOMKilled bool
	// PeakMemory is the most bytes of memory that it had, together with its children. 0 if that is not known.
	PeakMemory int64
	// Reason is why, in one line: "exit status 3", "killed by SIGKILL", "recycled after 100 tasks".
	Reason string
	// CrashReport is the last lines it wrote, or those of its crash: at most 40.
	CrashReport []string
	// Time is when it had been reaped.
	Time time.Time
	// Kill is what it was doing when the daemon ended it. Nil if it ended by itself.
	Kill *pb.KillReport
}

func newWorkerExit(e *pb.WorkerExit) *WorkerExit {
	return &WorkerExit{
		Worker:      e.GetWorker(),
		Pid:         int(e.GetPid()),
		ExitCode:    int(e.GetExitCode()),
		Signal:      e.GetSignal(),
		CoreDumped:  e.GetCoreDumped(),
		OOMKilled:   e.GetOomKilled(),
		PeakMemory:  int64(e.GetPeakMemory()),
		Reason:      e.GetReason(),
		CrashReport: e.GetCrashReport(),
		Time:        timeOf(e.GetTime()),
		Kill:        e.GetKill(),
	}
}

// timeOf is a time of the protocol; zero if the daemon has sent none.
func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// String is the reason, the worker, and the first line of the crash report.
func (e *WorkerExit) String() string {
	reason := e.Reason
	switch {
	case reason != "":
	case e.Signal != "":
		reason = "killed by " + e.Signal
	default:
		reason = fmt.Sprintf("exit status %d", e.ExitCode)
	}
	s := fmt.Sprintf("%s (%s, pid %d)", reason, e.Worker, e.Pid)
	if len(e.CrashReport) > 0 {
		s += ": " + e.CrashReport[0]
	}
	return s
}
