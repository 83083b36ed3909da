package server_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// Published bounds. Tests allow twenty times as much, and print what it was.
const (
	crashBound = 50 * time.Millisecond                         // from a crash to the outcome of its task
	killBound  = cancelGrace + killDelay + 20*time.Millisecond // from a timeout to the outcome of a task that heeds nothing
	gentle     = 20 * time.Millisecond                         // from a timeout to the outcome of one that heeds its context
	lateness   = 100 * time.Millisecond                        // before the daemon looks whether a task is late
	timeout    = 100 * time.Millisecond                        // of tasks
	largeTime  = 400 * time.Millisecond                        // for a message of 64 MiB to travel
	outlived   = 2*time.Second + crashBound                    // for a worker without its stream, or after its goodbye
)

// badTask is something that a task may do to its worker.
type badTask struct {
	worker string // that misbehaves when a task is called "now"; "": the task is called as in the next column
	task   string
	want   error  // nil: it has its result
	says   string // the error; without one, the end of the worker; "": no worker ends
	limits []client.CallOption
	starts int           // of the task, which the limits allow; 0: one
	within time.Duration // published
}

// grace is what the pool leaves a task that was told to end. One that answers in it has the time to, however busy the machine is.
func (row badTask) grace() time.Duration {
	if row.want == nil && row.says == "" {
		return time.Minute
	}
	return cancelGrace
}

// TestOneBadTaskAmongGoodOnes is what a task may do to its worker. The bad one has the outcome that the row says, soon; every other
// one has its result; the pool goes on; nothing is left.
func TestOneBadTaskAmongGoodOnes(t *testing.T) {
	for _, row := range []badTask{
		{task: "exits with status 0", want: client.ErrWorkerLost, says: "exit status 0", within: crashBound},
		{task: "exits with status 3", want: client.ErrWorkerLost, says: "exit status 3", within: crashBound},
		{task: "kills itself", want: client.ErrWorkerLost, says: "killed by SIGKILL", within: crashBound},
		{task: "gets SIGSEGV", want: client.ErrWorkerLost, says: "SIGSEGV: segmentation violation", within: crashBound},
		{task: "is aborted", want: client.ErrWorkerLost, says: "SIGABRT: abort", within: crashBound},
		{task: "reads where nothing is", want: client.ErrWorkerLost, says: "fatal error: fault", within: crashBound},
		{task: "panics elsewhere", want: client.ErrWorkerLost, says: "panic: so long", within: crashBound},
		{task: "leaves a family and dies", want: client.ErrWorkerLost, says: "killed by SIGKILL", within: crashBound},
		{task: "leaves a session and dies", want: client.ErrWorkerLost, says: "killed by SIGKILL", within: crashBound},
		{task: "closes every descriptor", want: client.ErrWorkerLost, within: outlived},

		{task: "obeys", want: client.ErrTimeout, limits: limit(timeout), within: timeout + gentle},
		{task: "hangs", want: client.ErrTimeout, says: "ran into its timeout", limits: limit(timeout), within: timeout + killBound},
		{task: "computes for ever", want: client.ErrTimeout, says: "ran into its timeout", limits: limit(timeout), within: timeout + killBound},
		{task: "ignores SIGTERM", want: client.ErrTimeout, says: "ran into its timeout", limits: limit(timeout), within: timeout + killBound},
		{task: "stops itself", want: client.ErrTimeout, says: "ran into its timeout", limits: limit(timeout), within: timeout + killBound},

		{task: "hangs at first", says: "ran into its timeout", limits: append(limit(timeout), thrice...), starts: 2, within: timeout + killBound},
		{task: "hangs for ever", want: client.ErrTimeout, says: "ran into its timeout", limits: append(limit(timeout), thrice...), starts: 3, within: 3 * (timeout + killBound)},

		{task: "floods stdout", within: time.Second},
		{task: "prints a line of 1 GiB", within: 2 * time.Second},
		{task: "closes its output", within: crashBound},

		{worker: "answers twice", says: "broke the worker protocol", within: crashBound},
		{worker: "answers for a task that it does not have", want: client.ErrWorkerLost, says: "broke the worker protocol", within: crashBound},
		{worker: "answers for a later task", want: client.ErrWorkerLost, says: "broke the worker protocol", within: crashBound},
		{worker: "answers nothing", want: client.ErrWorkerLost, says: "broke the worker protocol", within: crashBound},
		{worker: "answers with an outcome of its own", want: client.ErrWorkerLost, says: "broke the worker protocol", within: crashBound},
		{worker: "gives back what it has not got", want: client.ErrWorkerLost, says: "broke the worker protocol", within: crashBound},
		{worker: "answers with something undecodable", want: client.ErrTask, says: "decode result", within: crashBound},
		{worker: "answers with more than a result may have", want: client.ErrWorkerLost, says: "33554433 bytes", within: crashBound + largeTime},
		{worker: "answers with more than a message may have", want: client.ErrWorkerLost, says: "larger than max", within: crashBound + largeTime},
		{worker: "answers with sizes that do not add up", want: client.ErrWorkerLost, says: "protocol: grpc: failed to unmarshal", within: crashBound},
		{worker: "answers late", limits: limit(timeout), within: time.Second},
		{worker: "answers at SIGTERM", want: client.ErrTimeout, says: "ran into its timeout", limits: limit(timeout), within: timeout + cancelGrace + gentle},
		{worker: "says goodbye and stays", want: client.ErrWorkerLost, says: "said goodbye and lived on", within: 3 * outlived}, // three workers, as they say that they do not run it
		{worker: "ends its stream and lives on", want: client.ErrWorkerLost, says: "ended its stream and lived on", within: outlived},
		{worker: "keeps garbage for a record", want: client.ErrWorkerLost, says: "killed by SIGKILL", within: crashBound},
		{worker: "keeps a record of another's task", want: client.ErrWorkerLost, says: "killed by SIGKILL", within: crashBound},
		{worker: "cuts its record off and writes none", want: client.ErrWorkerLost, says: "killed by SIGKILL", within: 3*crashBound + 100*time.Millisecond}, // three workers, the last after a back-off
		{worker: "keeps a record of nothing", want: client.ErrTimeout, says: "ran into its timeout", limits: limit(timeout), within: timeout + killBound},
	} {
		t.Run(row.worker+row.task, func(t *testing.T) {
			promptly(t, "its outcome", row.within, func() time.Duration { return row.amongGoodOnes(t) })
		})
	}
}

// amongGoodOnes runs the bad task among good ones, and says when it had its outcome.
func (row badTask) amongGoodOnes(t *testing.T) (took time.Duration) {
	t.Helper()
	bad := row.task
	if row.worker != "" {
		bad = "now"
	}
	d := serve(t)
	pool := d.open(t, row.worker, client.CancelGrace(row.grace()))
	pool.rest(t, 2)
	pool.mustAnswer(t)
	before := used(t)
	tasks := good(30)
	tasks[17] = bad
	began, seen, late := time.Now(), 0, false
	for out, err := range client.IMapUnordered(t.Context(), pool.Pool, do, slices.Values(tasks), row.limits...) {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		if out.Index == 17 {
			took = time.Since(began)
		}
		value, attempts := strings.ToUpper(tasks[out.Index]), 1
		if out.Index == 17 {
			attempts = max(row.starts, 1)
		}
		switch {
		case out.Index != 17 && row.limits != nil && (errors.Is(out.Err, client.ErrTimeout) || out.Attempt > 1): // the limit is that of all of them
			t.Logf("task %d, which harms nobody, was late, after %d attempts: %v", out.Index, out.Attempt, out.Err)
			late = true
		case out.Index == 17 && row.starts > 0 && out.Attempt > row.starts: // so was the start that should have ended well
			t.Log(out.Err)
			late = true
		case out.Index != 17 || row.want == nil:
			if out.Value != value || out.Err != nil || out.Attempt != attempts {
				t.Errorf("task %d has %.40q, %v after %d attempts, want %q after %d", out.Index, out.Value, out.Err, out.Attempt, value, attempts)
			}
		case !errors.Is(out.Err, row.want) || !strings.Contains(fullText(out.Err), row.says) || out.Attempt != attempts:
			t.Errorf("the bad task has %v after %d attempts, want %v by %q after %d", fullText(out.Err), out.Attempt, row.want, row.says, attempts)
		default:
			t.Log(out.Err)
		}
	}
	if seen != len(tasks) {
		t.Errorf("%d tasks have an outcome, want %d", seen, len(tasks))
	}
	if row.want == nil && row.says != "" {
		pool.exited(t, row.says)
	}
	pool.mustAnswer(t)
	pool.rest(t, 2)
	if row.task == "leaves a session and dies" {
		pool.killEscaped(t) // what has left its session is out of reach, as the README says
	}
	before.back(t)
	if late {
		return time.Since(began) + 20*row.within // as late as what is too late: only a busy machine excuses it
	}
	return took
}

// thrice lets a task that has run into its timeout be started again, twice.
var thrice = []client.CallOption{client.MaxAttempts(3), client.RetryOn(client.ErrTimeout)}

func limit(d time.Duration) []client.CallOption {
	return []client.CallOption{client.TaskTimeout(d)}
}

// fullText is an error with the crash report of a lost worker.
func fullText(err error) string {
	var task *client.TaskError
	if errors.As(err, &task) && task.Exit != nil {
		return fmt.Sprint(err, "\n", strings.Join(task.Exit.CrashReport, "\n"))
	}
	return fmt.Sprint(err)
}

// good is n tasks that harm nobody.
func good(n int) []string {
	tasks := make([]string, n)
	for i := range tasks {
		tasks[i] = fmt.Sprint("task ", i)
	}
	return tasks
}

// mustAnswer makes sure that the pool can be used.
func (p *pool) mustAnswer(t *testing.T) {
	t.Helper()
	tasks := good(20)
	got, err := client.Map(t.Context(), p.Pool, do, tasks, client.ChunkSize(1))
	if err != nil {
		t.Fatalf("the pool answers %v", err)
	}
	for i, v := range got {
		if v != strings.ToUpper(tasks[i]) {
			t.Fatalf("the pool answers %q to %q", v, tasks[i])
		}
	}
}

// killEscaped ends the processes that have left the sessions of the pool's workers.
func (p *pool) killEscaped(t *testing.T) {
	t.Helper()
	workers, err := p.d.Workers(t.Context(), p.Name())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (left string) { // one may have been forked before its parent was killed
		for _, pid := range marked(p.mark) {
			if !slices.ContainsFunc(workers, func(w *pb.Worker) bool { return int(w.Pid) == pid }) {
				syscall.Kill(pid, syscall.SIGKILL)
				left = fmt.Sprintf("process %d was there", pid)
			}
		}
		return left
	})
}
