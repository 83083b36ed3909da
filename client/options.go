package client

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/procpool/procpool/proto/payload"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// Option is a setting of [Dial] and [DialFunc].
type Option func(*Client)

// Logger is where panics of callbacks are reported. Default: slog.Default().
func Logger(l *slog.Logger) Option { return func(c *Client) { c.log = l } }

// PoolOption is a setting of a new pool.
type PoolOption func(*poolConfig)

type poolConfig struct {
	spec   *pb.PoolSpec
	output func(WorkerOutput)
	onExit func(WorkerExit)
	atEnd  []func() error
	errs   []error
}

func newPoolConfig(opts []PoolOption) (*poolConfig, error) {
	c := &poolConfig{spec: &pb.PoolSpec{Program: &pb.Program{}}}
	for _, o := range opts {
		o(c)
	}
	if err := completeProgram(c.spec.Program); err != nil {
		c.errs = append(c.errs, err)
	}
	if err := errors.Join(c.errs...); err != nil {
		return nil, fmt.Errorf("settings of the pool: %w", err)
	}
	return c, nil
}

// Workers is the number of workers, at most 4,096. 0, the default: as many as usable CPUs.
func Workers(n int) PoolOption {
	return func(c *poolConfig) {
		if n < 0 || n > 4096 {
			c.errs = append(c.errs, fmt.Errorf("%d workers: the number must be 1 to 4096, or 0 for as many as usable CPUs", n))
			return
		}
		c.spec.Workers = uint32(n)
	}
}

// Name is the name of the pool: 1 to 63 of a-z, A-Z, 0-9, ".", "_" and "-", beginning with a letter or a digit. Without it, OpenPool
// lets the daemon choose one.
func Name(name string) PoolOption { return func(c *poolConfig) { c.spec.Name = name } }

// Program is what every worker runs. A path without a slash is looked up in $PATH; a relative one is seen from the current directory.
// Default: this program, without arguments; its main function must call workerproc.Main first.
func Program(path string, args ...string) PoolOption {
	return func(c *poolConfig) { c.spec.Program.Path, c.spec.Program.Args = path, args }
}

// Dir is the workers' working directory. Default: the current one.
func Dir(dir string) PoolOption { return func(c *poolConfig) { c.spec.Program.Dir = dir } }

// Env is the workers' whole environment, "NAME=value" each. Default: this process's.
func Env(env ...string) PoolOption {
	return func(c *poolConfig) { c.spec.Program.Env, c.spec.Program.ClearEnv = env, len(env) == 0 }
}

// Umask is the workers' file mode creation mask. Default: this process's.
func Umask(mask int) PoolOption {
	return func(c *poolConfig) {
		m := uint32(mask & 0o777)
		c.spec.Program.Umask = &m
	}
}

// InitArg is the argument for the workers' init function. It is encoded as an argument of [Func] is.
func InitArg[A any](arg A) PoolOption {
	return func(c *poolConfig) {
		b, err := appendSafely(payload.For[A]().Append, nil, arg)
		if err != nil {
			c.errs = append(c.errs, fmt.Errorf("encode init argument: %w", err))
			return
		}
		c.spec.InitArgument = b
	}
}

// StartTimeout is how long a new worker has to register. Default 10 s.
func StartTimeout(d time.Duration) PoolOption {
	return func(c *poolConfig) { c.spec.StartTimeout = durationpb.New(d) }
}

// ReadyTimeout is how long a worker's init function has after that. Default 60 s.
func ReadyTimeout(d time.Duration) PoolOption {
	return func(c *poolConfig) { c.spec.ReadyTimeout = durationpb.New(d) }
}

// CancelGrace is how long a cancelled task has to return before its process group gets SIGTERM. Default 5 s.
func CancelGrace(d time.Duration) PoolOption {
	return func(c *poolConfig) { c.spec.CancelGrace = durationpb.New(d) }
}

// KillDelay is how long after SIGTERM comes SIGKILL. Default 2 s.
func KillDelay(d time.Duration) PoolOption {
	return func(c *poolConfig) { c.spec.KillDelay = durationpb.New(d) }
}

// PeerMatch is which process may register as a worker; see [Peer].
type PeerMatch int

// How the process that registers must be related to the one that was started.
const (
	PeerExact  PeerMatch = iota // it is that very process
	PeerGroup                   // it is in the process group that the started process leads
	PeerCgroup                  // it is in the cgroup (version 2) of the started process, which is not the daemon's own
)

// Peer is which process may register as a worker. Default [PeerExact]: the one that the daemon has started. A wrapper that does not exec the worker but
// waits for it (sh -c with more than one command, go run, uv run) needs [PeerGroup].
func Peer(m PeerMatch) PoolOption {
	return func(c *poolConfig) {
		switch m {
		case PeerExact:
			c.spec.Peer = pb.PeerMatch_PEER_MATCH_EXACT
		case PeerGroup:
			c.spec.Peer = pb.PeerMatch_PEER_MATCH_GROUP
		case PeerCgroup:
			c.spec.Peer = pb.PeerMatch_PEER_MATCH_CGROUP
		default:
			c.errs = append(c.errs, fmt.Errorf("peer match %d: it must be PeerExact, PeerGroup or PeerCgroup", m))
		}
	}
}

// MaxTasksPerWorker is after how many tasks a worker is replaced by a fresh one; 0, the default: never. It is a maximum: some go up to a tenth
// earlier, so that they do not all go together. What counts is tasks, however they travel.
func MaxTasksPerWorker(n int) PoolOption {
	return func(c *poolConfig) {
		if n < 0 || n > 1<<31-1 {
			c.errs = append(c.errs, fmt.Errorf("at most %d tasks per worker: the number must be at least 1, or 0 for no limit", n))
			return
		}
		c.spec.MaxTasksPerWorker = uint32(n)
	}
}

// MaxWorkerAge is after how long a worker is replaced, give or take 10 %, when it has ended its task. One goes after the other. At least 1 s. Default:
// never.
func MaxWorkerAge(d time.Duration) PoolOption {
	return func(c *poolConfig) { c.spec.MaxWorkerAge = durationpb.New(d) }
}

// MaxWorkerIdle is after how long without a task a worker stops, 10 % more or less by chance, as long as more than [MinWorkers] are left. When tasks wait,
// workers are started again. At least 1 s. Default: workers stay.
func MaxWorkerIdle(d time.Duration) PoolOption {
	return func(c *poolConfig) { c.spec.MaxWorkerIdle = durationpb.New(d) }
}

// MinWorkers is how many workers stay, however long they have been idle; see [MaxWorkerIdle]. Default 0: the first task after a long pause waits for
// the start of a worker.
func MinWorkers(n int) PoolOption {
	return func(c *poolConfig) {
		if n < 0 || n > 4096 {
			c.errs = append(c.errs, fmt.Errorf("at least %d workers: the number must be 0 to 4096", n))
			return
		}
		c.spec.MinWorkers = uint32(n)
	}
}

// Spares is how many workers are kept started and ready beside the others, so that one that leaves or dies is replaced at once. A spare runs
// no task before. Default 0. Together with [Workers] at most 4,096.
func Spares(n int) PoolOption {
	return func(c *poolConfig) {
		if n < 0 || n > 4096 {
			c.errs = append(c.errs, fmt.Errorf("%d spares: the number must be 0 to 4096", n))
			return
		}
		c.spec.Spares = uint32(n)
	}
}

// DrainMemory is with how many bytes of memory, or up to a tenth less by chance, a worker is replaced, when it has ended its task. It is looked at about once a second, and only after a worker's
// first task. Children of the worker count only where it has a cgroup (see [MaxMemory]). At least 1 MiB. 0, the default: never.
func DrainMemory(bytes int64) PoolOption {
	return func(c *poolConfig) {
		if bytes < 0 {
			c.errs = append(c.errs, fmt.Errorf("drain memory of %d bytes is negative", bytes))
			return
		}
		c.spec.DrainMemory = uint64(bytes)
	}
}

// MaxMemory is how many bytes of memory a worker may have, together with its children; files that the kernel can forget do not count. One that wants more is
// killed with them, and the task that it ran is [ErrWorkerLost]: "out of memory". The kernel keeps this limit where each worker has a cgroup; elsewhere the daemon looks
// once a second, so that a worker can have more for a moment (procpool doctor says which). At least 1 MiB, and more than [DrainMemory]. 0, the default: no limit. An
// inline pool with a limit is refused.
func MaxMemory(bytes int64) PoolOption {
	return func(c *poolConfig) {
		if bytes < 0 {
			c.errs = append(c.errs, fmt.Errorf("max memory of %d bytes is negative", bytes))
			return
		}
		c.spec.MaxMemory = uint64(bytes)
	}
}

// MaxProcesses is how many processes and threads a worker may have, together with its children; a Go program has about ten threads. More cannot be started.
// Where workers have no cgroups, and inline, the pool is refused with [ErrUnsupported]. 0, the default: no limit.
func MaxProcesses(n int) PoolOption {
	return func(c *poolConfig) {
		if n < 0 || n > 1<<31-1 {
			c.errs = append(c.errs, fmt.Errorf("at most %d processes: the number must be at least 1, or 0 for no limit", n))
			return
		}
		c.spec.MaxProcesses = uint32(n)
	}
}

// Output is called with each line that workers of an OpenPool pool write to stdout or stderr, one at a time. Default: lines go to this
// process's stdout and stderr, as those of a print in a Python worker do. Output must not terminate or join the pool; while it blocks, later lines are
// kept by the daemon, and dropped when they become too many. Of a worker that writes more than 1,000 lines or 1 MiB a second, lines are dropped too,
// and a line on stderr says how many.
func Output(f func(WorkerOutput)) PoolOption { return func(c *poolConfig) { c.output = f } }

// OnExit is called when a worker of an OpenPool pool has ended, for whatever reason, one at a time and after its output. It must not terminate or
// join the pool.
func OnExit(f func(WorkerExit)) PoolOption { return func(c *poolConfig) { c.onExit = f } }

// AtEnd is called once, when Terminate ends or Join has succeeded. Whoever owns what the pool runs on releases it there, as client/local
// does with its daemon. Its error becomes that of Terminate or Join. It is not called when the opening fails.
func AtEnd(f func() error) PoolOption {
	return func(c *poolConfig) { c.atEnd = append(c.atEnd, f) }
}

// WorkerOutput is a line that a worker wrote.
type WorkerOutput struct {
	// Worker is its name, "POOL-NUMBER", and Pid its process id.
	Worker string
	Pid    int
	// Stream is 1 for stdout, 2 for stderr.
	Stream int
	// Line is without its end, at most 64 KiB. It must not be kept.
	Line []byte
	// Truncated says that the line was longer.
	Truncated bool
	// Partial says that the line ended without a newline, because the worker ended.
	Partial bool
	// Time is when the daemon read it.
	Time time.Time
}

func newWorkerOutput(o *pb.WorkerOutput) WorkerOutput {
	return WorkerOutput{Worker: o.GetWorker(), Pid: int(o.GetPid()), Stream: int(o.GetStream()), Line: o.GetLine(),
		Truncated: o.GetTruncated(), Partial: o.GetPartial(), Time: timeOf(o.GetTime())}
}

// CallOption is a setting of Map, Apply and their relatives.
type CallOption func(*callConfig)

// callSettings is what a call tells the daemon. It is comparable: applies with equal settings share a stream.
type callSettings struct {
	chunkSize    int32
	taskTimeout  time.Duration
	queueTimeout time.Duration
	maxAttempts  uint32
	retryOn      uint32 // a bit per pb.Outcome
	linger       time.Duration
	label        string
	windowItems  int
	windowBytes  int
}

type callConfig struct {
	callSettings
	stopOnError bool
	output      func(index, attempt, stream int, data []byte)
	err         error
}

// Window of a call: tasks, and bytes, between the input and its consumer.
const (
	DefaultWindowItems = 4096
	DefaultWindowBytes = 16 << 20
)

func newCallConfig(opts []CallOption) callConfig {
	c := callConfig{callSettings: callSettings{windowItems: DefaultWindowItems, windowBytes: DefaultWindowBytes}}
	for _, o := range opts {
		o(&c)
	}
	return c
}

func (c *callConfig) bad(format string, args ...any) {
	if c.err == nil {
		c.err = &RefusedError{Reason: pb.Reason_REASON_BAD_REQUEST, Message: fmt.Sprintf(format, args...)}
	}
}

// ChunkSize is the most tasks that travel to a worker together; the function sees nothing of it. 0, the default: found out while the
// call runs. A negative one is [ErrBadRequest].
func ChunkSize(n int) CallOption {
	return func(c *callConfig) {
		if n < 0 || n > 1<<31-1 {
			c.bad("chunk size %d: it must be at least 1, or 0 for automatic", n)
		}
		c.chunkSize = int32(n)
	}
}

// TaskTimeout is how long one task may run, from its own start. Then its context is cancelled, and its worker is killed if that does
// not help; the outcome is [ErrTimeout]. 0, the default: no limit.
func TaskTimeout(d time.Duration) CallOption {
	return func(c *callConfig) {
		if d < 0 {
			c.bad("task timeout %v is negative", d)
		}
		c.taskTimeout = d
	}
}

// QueueTimeout is how long one task may wait for a worker; the outcome is [ErrTimeout]. 0, the default: no limit.
func QueueTimeout(d time.Duration) CallOption {
	return func(c *callConfig) {
		if d < 0 {
			c.bad("queue timeout %v is negative", d)
		}
		c.queueTimeout = d
	}
}

// MaxAttempts is how often a task may be started, if it ends in a way that [RetryOn] lists. Default 1: a task whose worker died may have had
// effects.
func MaxAttempts(n int) CallOption {
	return func(c *callConfig) {
		if n < 1 || n > 1<<31-1 {
			c.bad("%d attempts: it must be at least 1", n)
		}
		c.maxAttempts = uint32(n)
	}
}

// RetryOn lists the outcomes after which a task is started again, up to [MaxAttempts] times: ErrWorkerLost (the default), ErrTask,
// ErrTimeout.
func RetryOn(kinds ...error) CallOption {
	return func(c *callConfig) {
		for _, k := range kinds {
			known := false
			for kind, outcome := range retryable {
				if errors.Is(k, kind) {
					known = true
					c.retryOn |= 1 << outcome
				}
			}
			if !known {
				c.bad("retry on %q: only ErrWorkerLost, ErrTask and ErrTimeout can be retried", k)
			}
		}
	}
}

var retryable = map[error]pb.Outcome{
	ErrWorkerLost: pb.Outcome_OUTCOME_WORKER_LOST,
	ErrTask:       pb.Outcome_OUTCOME_TASK_ERROR,
	ErrTimeout:    pb.Outcome_OUTCOME_TIMEOUT,
}

// StopOnError ends a Map or IMap at its first failed task, which then is the call's error. Tasks that run are cancelled.
func StopOnError() CallOption { return func(c *callConfig) { c.stopOnError = true } }

// Linger is how long a result may wait at its worker for others, to travel with them, while the worker goes on with more tasks of the call. These are
// given to it ahead, twice as much work as it lingers. Fewer messages leave more of the CPU to tasks that take a millisecond or so; a loop over
// the outcomes sees them later, and a task may wait longer behind one that takes much longer than those before it. At most 1 s. 0, the default: 300 µs.
func Linger(d time.Duration) CallOption {
	return func(c *callConfig) {
		if d < 0 || d > time.Second {
			c.bad("linger %v: it must be between 0 and 1s", d)
		}
		c.linger = d
	}
}

// Label is what the call is named in lists, for people. At most 200 bytes.
func Label(s string) CallOption { return func(c *callConfig) { c.label = s } }

// Window bounds how far the input of IMap, or of ApplyAsync, may be ahead of whoever takes the outcomes: at most items tasks, and no more tasks
// while about bytes bytes are under way (results that wait for the loop, for IMap; arguments without outcome, for ApplyAsync). Defaults: 4,096
// and 16 MiB; 0 leaves a default. A Map needs no window: its outcomes have their places already.
func Window(items, bytes int) CallOption {
	return func(c *callConfig) {
		if items < 0 || bytes < 0 {
			c.bad("window of %d items and %d bytes: it must be positive", items, bytes)
			return
		}
		if items > 0 {
			c.windowItems = items
		}
		if bytes > 0 {
			c.windowBytes = bytes
		}
	}
}

// TaskOutput is called with what a running task writes (the output of a command, for example), in order and before the task's outcome. index is
// the task's, 0 for Apply; stream is 1 for stdout, 2 for stderr. When attempt changes, what earlier attempts wrote is void. f is called on the goroutine that
// receives outcomes, so the call waits for it; it must not wait for the call, nor Close or Join its pool. It may keep data.
func TaskOutput(f func(index, attempt, stream int, data []byte)) CallOption {
	return func(c *callConfig) { c.output = f }
}

// request is the settings as the first message of a call has them.
func (c *callSettings) request(pool, function, callID string) *pb.MapRequest {
	r := &pb.MapRequest{
		Pool:        pool,
		Function:    function,
		ChunkSize:   c.chunkSize,
		MaxAttempts: c.maxAttempts,
		Label:       c.label,
		CallId:      callID,
	}
	if c.taskTimeout > 0 {
		r.TaskTimeout = durationpb.New(c.taskTimeout)
	}
	if c.queueTimeout > 0 {
		r.QueueTimeout = durationpb.New(c.queueTimeout)
	}
	if c.linger > 0 {
		r.Linger = durationpb.New(c.linger)
	}
	for o := range pb.Outcome(len(pb.Outcome_name)) {
		if c.retryOn&(1<<o) != 0 {
			r.RetryOn = append(r.RetryOn, o)
		}
	}
	return r
}
