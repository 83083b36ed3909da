package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// ErrNotStarted is the error of a [Process] that has not been started.
var ErrNotStarted = errors.New("process is not started")

// Process runs one function call in a process of its own, as Python's multiprocessing.Process does. It is a pool with one worker and one
// task.
type Process[R any] struct {
	open  func(context.Context, ...PoolOption) (*Pool, error)
	apply func(context.Context, *Pool) *Result[R]
	opts  []PoolOption
	ended chan struct{} // closed when the process is gone; nothing below changes afterwards

	mu      sync.Mutex
	pool    *Pool              // nil before Start
	cancel  context.CancelFunc // of the function's context
	starts  bool               // Start has been called
	pid     int
	exit    *WorkerExit // the first: a worker that dies is replaced
	result  R
	err     error
	stopErr error
}

// NewProcess is a process that will call fn with arg. open opens its pool: [Client.OpenPool], or that of client/local; opts are for it.
func NewProcess[A, R any](open func(context.Context, ...PoolOption) (*Pool, error), fn Function[A, R], arg A, opts ...PoolOption) *Process[R] {
	return &Process[R]{
		open:  open,
		apply: func(ctx context.Context, p *Pool) *Result[R] { return ApplyAsync(ctx, p, fn, arg) },
		opts:  opts,
		ended: make(chan struct{}),
	}
}

// Start starts the process. ctx bounds the starting only. A process can be started once.
func (p *Process[R]) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.starts {
		return errors.New("start process: it has been started already")
	}
	p.starts = true
	// The grace is short, for Terminate to mean SIGTERM.
	opts := append([]PoolOption{Workers(1), CancelGrace(time.Millisecond)}, p.opts...)
	opts = append(opts, func(c *poolConfig) {
		then := c.onExit
		c.onExit = func(e WorkerExit) {
			p.exited(e)
			if then != nil {
				then(e)
			}
		}
	})
	pool, err := p.open(ctx, opts...)
	if err != nil {
		close(p.ended)
		p.err = fmt.Errorf("start process: %w", err)
		return p.err
	}
	p.pool = pool
	work, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	result := p.apply(work, pool)
	go p.run(result) // ends with the process; Join waits for it
	return nil
}

func (p *Process[R]) exited(e WorkerExit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exit == nil {
		p.exit = &e
	}
}

// run waits for the function, then for the worker, which stops with its pool or is killed for what it will not stop.
func (p *Process[R]) run(result *Result[R]) {
	defer close(p.ended)
	defer p.cancel()
	value, err := result.Get(context.Background())
	stopErr := p.pool.Close()
	if stopErr == nil {
		ctx, cancel := context.WithTimeout(context.Background(), terminatePatience)
		defer cancel()
		stopErr = p.pool.Join(ctx)
	}
	if stopErr != nil {
		stopErr = p.pool.Terminate()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.result, p.err, p.stopErr = value, err, stopErr
}

// Join waits until the process has ended. ctx bounds the waiting only. The error is about the waiting and the process; that of the
// function is in Result.
func (p *Process[R]) Join(ctx context.Context) error {
	if p.current() == nil {
		return fmt.Errorf("join process: %w", ErrNotStarted)
	}
	select {
	case <-p.ended:
		return p.stopErr
	case <-ctx.Done():
		return fmt.Errorf("join process: %w", contextError(ctx))
	}
}

// Alive reports whether the process has been started and has not ended.
func (p *Process[R]) Alive() bool { return p.current() != nil && !p.over() }

func (p *Process[R]) current() *Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pool
}

func (p *Process[R]) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Terminate cancels the function's context, sends SIGTERM a millisecond later (see [CancelGrace]) and SIGKILL after the kill delay (see
// [KillDelay]), to the process and its children. It returns when they are gone, or with an error after some 30 s.
func (p *Process[R]) Terminate() error {
	if p.current() == nil {
		return fmt.Errorf("terminate process: %w", ErrNotStarted)
	}
	p.cancel()
	return p.gone()
}

// Kill sends SIGKILL to the process and its children. It returns when they are gone, or with an error after some 40 s.
func (p *Process[R]) Kill() error {
	pool := p.current()
	if pool == nil {
		return fmt.Errorf("kill process: %w", ErrNotStarted)
	}
	if err := pool.Terminate(); err != nil {
		return err
	}
	return p.gone()
}

// gone waits for the end of a process that has been told to end.
func (p *Process[R]) gone() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*closePatience+terminatePatience) // run has these for the pool's end, and to kill it
	defer cancel()
	return p.Join(ctx)
}

// Result is what the function returned. Before the end it is [ErrNotReady]; of a process that could not be started, the reason. The error of a function is a
// [*TaskError] that is [ErrTask], that of a process that died one that is [ErrWorkerLost]. After Terminate it is context.Canceled, after Kill
// [ErrPoolTerminated].
func (p *Process[R]) Result() (R, error) {
	var zero R
	if !p.over() {
		return zero, ErrNotReady
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.result, p.err
}

// ExitCode is 0 if the function returned, 1 if it returned an error or panicked, −N if signal N ended the process, else what the process
// exited with, or 1 if that was 0. False before the end.
func (p *Process[R]) ExitCode() (code int, ok bool) {
	if p.current() == nil || !p.over() {
		return 0, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var t *TaskError
	exit := p.exit
	switch {
	case p.err == nil:
		return 0, true
	case errors.Is(p.err, ErrTask):
		return 1, true
	case errors.As(p.err, &t) && t.Exit != nil:
		exit = t.Exit
	}
	switch {
	case exit == nil:
		return 1, true
	case exit.Signal != "":
		return -signalNumber(exit.Signal), true
	case exit.ExitCode != 0:
		return exit.ExitCode, true
	}
	return 1, true
}

// signalNumber is the number of a signal by its name; SIGKILL's for one that we do not know.
func signalNumber(name string) int {
	if n, ok := signals[name]; ok {
		return int(n)
	}
	return int(syscall.SIGKILL)
}

var signals = map[string]syscall.Signal{
	"SIGABRT": syscall.SIGABRT, "SIGALRM": syscall.SIGALRM, "SIGBUS": syscall.SIGBUS, "SIGFPE": syscall.SIGFPE, "SIGHUP": syscall.SIGHUP,
	"SIGILL": syscall.SIGILL, "SIGINT": syscall.SIGINT, "SIGKILL": syscall.SIGKILL, "SIGPIPE": syscall.SIGPIPE, "SIGPROF": syscall.SIGPROF,
	"SIGQUIT": syscall.SIGQUIT, "SIGSEGV": syscall.SIGSEGV, "SIGSYS": syscall.SIGSYS, "SIGTERM": syscall.SIGTERM, "SIGTRAP": syscall.SIGTRAP,
	"SIGUSR1": syscall.SIGUSR1, "SIGUSR2": syscall.SIGUSR2, "SIGVTALRM": syscall.SIGVTALRM, "SIGXCPU": syscall.SIGXCPU, "SIGXFSZ": syscall.SIGXFSZ,
}

// Pid is the process id; 0 while it is not known. It asks the daemon at most until ctx is done.
func (p *Process[R]) Pid(ctx context.Context) int {
	p.mu.Lock()
	pool, pid := p.pool, p.pid
	if pid == 0 && p.exit != nil {
		pid = p.exit.Pid
	}
	p.mu.Unlock()
	if pid != 0 || pool == nil || p.over() {
		return pid
	}
	workers, err := pool.client.Workers(ctx, pool.name)
	if err != nil || len(workers) == 0 {
		return 0
	}
	pid = int(workers[0].GetPid())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid = pid
	return pid
}
