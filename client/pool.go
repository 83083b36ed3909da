package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

const (
	terminatePatience = 10 * time.Second // how long Terminate takes at most
	closePatience     = 10 * time.Second // how long Close waits at most for the daemon to have what was submitted before, and then for its answer
)

// Pool is a pool of workers. Its methods, and calls on it, may be used by any number of goroutines.
type Pool struct {
	client    *Client
	name      string
	callbacks callbacks
	atEnd     []func() error // owned by endedOnce
	endedOnce sync.Once

	// For a pool that lives as long as its stream of events; nil for a named pool.
	stop   context.CancelFunc
	events chan struct{} // closed when no more will come

	terminateOnce sync.Once
	terminateErr  error

	mu      sync.Mutex
	refusal error                     // why no call may begin any more, as far as this handle knows
	calls   map[*life]struct{}        // that run
	applies map[applyKey]*applyStream // the current one of its kind
}

// life is what a pool needs to know of a call.
type life struct {
	pool   *Pool
	cancel context.CancelCauseFunc
	lift   func()        // lifts the bound on what waits for a loop; nil: there is none
	kept   chan struct{} // closed when the daemon has what was submitted: a close of the pool leaves it alone
	over   chan struct{} // closed when no more outcomes will come

	keptOnce, overOnce sync.Once
}

// keep says that the daemon has what was submitted.
func (l *life) keep() { l.keptOnce.Do(func() { close(l.kept) }) }

// finish says that no more outcomes will come.
func (l *life) finish() {
	l.keep()
	l.overOnce.Do(func() { close(l.over) })
}

// end ends the call, if it has not ended yet.
func (l *life) end(cause error) {
	l.cancel(cause)
	l.finish()
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	delete(l.pool.calls, l)
}

func newPool(c *Client, name string) *Pool {
	return &Pool{
		client:    c,
		name:      name,
		callbacks: callbacks{log: c.log},
		calls:     map[*life]struct{}{},
		applies:   map[applyKey]*applyStream{},
	}
}

// Pool is the pool of that name. It must exist: else [ErrUnknownPool], with a list of those that do. Keep what it returns, and use it for all calls: the client
// remembers each until it has been joined or terminated, or the client is closed.
func (c *Client) Pool(ctx context.Context, name string) (*Pool, error) {
	r, err := c.controlRPC.GetPool(ctx, &pb.GetPoolRequest{Pool: name})
	if err != nil {
		return nil, c.rpcError(ctx, err, "pool %q", name)
	}
	return c.adopt(newPool(c, r.GetPool().GetName()))
}

// CreatePool makes a pool that lives until it is closed or terminated, whatever becomes of this program. What its workers
// write goes to the daemon's log and to [Client.Logs]. Creating a pool whose name is taken is [ErrPoolExists].
func (c *Client) CreatePool(ctx context.Context, name string, opts ...PoolOption) (*Pool, error) {
	config, err := configure(append(opts[:len(opts):len(opts)], Name(name)))
	if err != nil {
		return nil, err
	}
	r, err := c.controlRPC.CreatePool(ctx, &pb.CreatePoolRequest{Spec: config.spec})
	if err != nil {
		return nil, c.rpcError(ctx, err, "create pool %q", name)
	}
	p := newPool(c, r.GetPool().GetName())
	p.atEnd = config.atEnd
	return c.adopt(p)
}

// OpenPool makes a pool that lives until it is terminated, closed and joined, or until the client is closed or its process ends: the
// daemon then kills the workers. ctx bounds only the opening. The workers start meanwhile; if they do not, calls say why.
func (c *Client) OpenPool(ctx context.Context, opts ...PoolOption) (*Pool, error) {
	config, err := configure(opts)
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancelCause(context.Background())
	opening := context.AfterFunc(ctx, func() { cancel(contextError(ctx)) })
	defer opening()
	stream, err := c.controlRPC.OpenPool(life, &pb.OpenPoolRequest{Spec: config.spec})
	var first *pb.OpenPoolResponse
	if err == nil {
		first, err = stream.Recv()
	}
	if err != nil {
		defer cancel(nil)
		if ctx.Err() != nil {
			return nil, c.rpcError(ctx, err, "open pool")
		}
		return nil, c.rpcError(life, err, "open pool")
	}
	if !opening() {
		return nil, fmt.Errorf("open pool: %w", contextError(ctx))
	}
	if first.GetOpened() == nil {
		cancel(nil)
		return nil, fmt.Errorf("open pool: %w: the first message does not say that the pool is open", ErrProtocol)
	}
	p := newPool(c, first.GetOpened().GetName())
	p.atEnd = config.atEnd
	p.stop = func() { cancel(nil) }
	p.events = make(chan struct{})
	if config.output == nil {
		config.output = printLine
	}
	if _, err := c.adopt(p); err != nil {
		cancel(nil)
		return nil, err
	}
	if !c.start(func() { p.watch(stream, first, config) }) {
		cancel(nil)
		return nil, ErrClosed
	}
	return p, nil
}

// configure refuses what would make a worker that does not serve start workers of its own, and these more of them.
func configure(opts []PoolOption) (*poolConfig, error) {
	if os.Getenv("PROCPOOL_WORKER") != "" {
		return nil, ErrNotServing
	}
	return newPoolConfig(opts)
}

// adopt makes Close end the pool's calls.
func (c *Client) adopt(p *Pool) (*Pool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	c.pools[p] = struct{}{}
	return p, nil
}

// watch passes the pool's events on until there are no more. The pool has ended then: with its stream, its workers end too.
func (p *Pool) watch(stream grpc.ServerStreamingClient[pb.OpenPoolResponse], r *pb.OpenPoolResponse, config *poolConfig) {
	defer close(p.events)
	defer p.stop()
	for err := error(nil); ; r, err = stream.Recv() {
		if err != nil {
			p.refuse(fmt.Errorf("pool %q: %w", p.name, refused(err))) // the calls end by themselves, with what has come
			return
		}
		if n := r.GetDropped(); n > 0 {
			p.client.log.Warn("procpool: output of workers came faster than it was read", "pool", p.name, "dropped", n)
		}
		for _, o := range r.GetOutputs() {
			line := newWorkerOutput(o)
			protect(p.client.log, "Output", func() { config.output(line) })
		}
		for _, e := range r.GetExits() {
			if config.onExit != nil {
				protect(p.client.log, "OnExit", func() { config.onExit(*newWorkerExit(e)) })
			}
		}
		if r.GetEnded() {
			p.refuse(p.closedError(pb.Reason_REASON_POOL_TERMINATED, "has ended"))
			return
		}
	}
}

// printLine writes a worker's line where the worker would have written it, had it inherited our streams. One write per line: lines of several
// pools do not mix.
func printLine(o WorkerOutput) {
	to := os.Stdout
	if o.Stream == 2 {
		to = os.Stderr
	}
	line := o.Line
	if !o.Partial {
		line = append(line, '\n')
	}
	_, _ = to.Write(line) // nobody is left to tell
}

// Name is the pool's name.
func (p *Pool) Name() string { return p.name }

// Info describes the pool as it is now.
func (p *Pool) Info(ctx context.Context) (*pb.Pool, error) {
	r, err := p.client.controlRPC.GetPool(ctx, &pb.GetPoolRequest{Pool: p.name})
	if err != nil {
		return nil, p.client.rpcError(ctx, err, "pool %q", p.name)
	}
	return r.GetPool(), nil
}

// Daemon describes the daemon that the pool is on; see [Client.Describe].
func (p *Pool) Daemon(ctx context.Context) (*pb.DescribeResponse, error) {
	return p.client.Describe(ctx)
}

// Resize changes the number of workers, 1 to 4,096, for every client of the pool. It does not wait: new workers are started, and of those that are too
// many the idle ones stop, then busy ones after their task. Nothing is dropped. Idempotent.
func (p *Pool) Resize(ctx context.Context, workers int) error {
	if workers < 1 || workers > 4096 {
		return &RefusedError{Code: codes.InvalidArgument, Reason: pb.Reason_REASON_BAD_REQUEST, Pool: p.name,
			Message: fmt.Sprintf("%d workers: the number must be 1 to 4096", workers)}
	}
	_, err := p.client.controlRPC.ResizePool(ctx, &pb.ResizePoolRequest{Pool: p.name, Workers: uint32(workers)})
	if err != nil {
		return p.client.rpcError(ctx, err, "resize pool %q", p.name)
	}
	return nil
}

// Restart replaces all workers of the pool, one after the other, and says how many there were. No task is interrupted: a new worker is ready before an
// old one stops, after its task. Without options the new workers run what lies at the path of the pool's program now; [Program], [Dir], [Env]
// and [Umask] together say what else they run, as they do for a new pool. Other options are an error.
//
// If the first new worker does not become ready ([ErrBootFailure]), or has not a function that a call is using ([ErrUnknownFunction]), the old
// ones stay, and so does the program. While both are there, a call of a function that only the new ones have waits for the end of the restart.
// ctx bounds only the wait: a restart that has begun goes on. A second one meanwhile is [ErrRestarting].
func (p *Pool) Restart(ctx context.Context, opts ...PoolOption) (replaced int, err error) {
	r := &pb.RestartPoolRequest{Pool: p.name}
	if len(opts) > 0 {
		if r.Program, err = programOf(opts); err != nil {
			return 0, err
		}
	}
	response, err := p.client.controlRPC.RestartPool(ctx, r)
	if err != nil {
		return 0, p.client.rpcError(ctx, err, "restart pool %q", p.name)
	}
	return int(response.GetReplaced()), nil
}

// programOf is the program that options describe, which must describe nothing else.
func programOf(opts []PoolOption) (*pb.Program, error) {
	config, err := newPoolConfig(opts)
	if err != nil {
		return nil, err
	}
	if !proto.Equal(config.spec, &pb.PoolSpec{Program: config.spec.Program}) || config.output != nil || config.onExit != nil || config.atEnd != nil {
		return nil, &RefusedError{Code: codes.InvalidArgument, Reason: pb.Reason_REASON_BAD_REQUEST,
			Message: "a restart can change the program, with its directory, environment and umask, and nothing else of a pool"}
	}
	return config.spec.Program, nil
}

// Close refuses new calls, for every client of the pool. What has been submitted before by this handle, and what has been accepted from others, runs to its end;
// then the workers stop. It does not wait for that, Join does. Idempotent.
//
// It waits up to 10 s for the daemon to have all that was submitted: longer than that it takes only if arguments are slow to encode, or are more than the daemon
// holds at a time (16 MiB of ApplyAsync, for example); what it has not by then is refused. [TaskOutput] callbacks must not call it.
func (p *Pool) Close() error {
	if p.released() {
		return nil
	}
	p.refuse(p.closedError(pb.Reason_REASON_POOL_CLOSED, "is closed: it takes no new calls"))
	submitted, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	_ = p.await(submitted, func(l *life) <-chan struct{} { return l.kept }) // a daemon that does not answer will not answer below
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	_, err := p.client.controlRPC.ClosePool(ctx, &pb.ClosePoolRequest{Pool: p.name})
	if err != nil && !isGone(err) {
		return p.client.rpcError(ctx, err, "close pool %q", p.name)
	}
	return nil
}

// Join waits until every worker of a closed or terminated pool has been reaped, and the outcomes of this handle's calls have come. For an open pool it is
// [ErrPoolOpen]. ctx bounds only the waiting. It may be repeated. [TaskOutput] callbacks must not call it: the outcomes wait for them.
func (p *Pool) Join(ctx context.Context) error {
	if p.released() {
		return nil
	}
	if p.closed() {
		p.lift()
	}
	_, err := p.client.controlRPC.JoinPool(ctx, &pb.JoinPoolRequest{Pool: p.name})
	if err != nil && !isGone(err) {
		return p.client.rpcError(ctx, err, "join pool %q", p.name)
	}
	p.refuse(p.closedError(pb.Reason_REASON_POOL_TERMINATED, "has ended"))
	p.lift()
	if err := p.await(ctx, func(l *life) <-chan struct{} { return l.over }); err != nil {
		return p.client.rpcError(ctx, err, "join pool %q", p.name)
	}
	return p.release(nil)
}

// Terminate drops the pool's work, for every client of it, and kills its workers. Calls and results that still wait end at
// once with [ErrPoolTerminated], loops when they have taken what has come; those of other clients with their tasks [ErrCancelled]. It returns when the workers have been reaped, or
// with an error after some 10 s. Made for defer: idempotent, and later calls return what the first did.
func (p *Pool) Terminate() error {
	p.terminateOnce.Do(func() { p.terminateErr = p.terminate() })
	return p.terminateErr
}

func (p *Pool) terminate() error {
	if p.released() {
		return nil // Join has seen the end
	}
	terminated := p.closedError(pb.Reason_REASON_POOL_TERMINATED, "is terminated")
	p.end(terminated) // the daemon will end the calls too, but it may be hung or gone
	ctx, cancel := context.WithTimeout(context.Background(), terminatePatience)
	defer cancel()
	_, err := p.client.controlRPC.TerminatePool(ctx, &pb.TerminatePoolRequest{Pool: p.name})
	if err == nil {
		_, err = p.client.controlRPC.JoinPool(ctx, &pb.JoinPoolRequest{Pool: p.name})
	}
	if err != nil && !isGone(err) {
		err = p.client.rpcError(ctx, err, "terminate pool %q", p.name)
	} else {
		err = nil
	}
	return p.release(err)
}

// released tells whether the pool's end has been seen.
func (p *Pool) released() bool {
	p.client.mu.Lock()
	defer p.client.mu.Unlock()
	_, there := p.client.pools[p]
	return !there
}

// release lets go of the pool at its end.
func (p *Pool) release(err error) error {
	p.end(p.closedError(pb.Reason_REASON_POOL_TERMINATED, "has ended"))
	if p.events != nil {
		if err == nil {
			waitFor(p.events, endPatience) // the last lines of the workers
		}
		p.stop()
		waitFor(p.events, endPatience)
	}
	p.client.mu.Lock()
	delete(p.client.pools, p)
	p.client.mu.Unlock()
	p.endedOnce.Do(func() {
		for _, f := range p.atEnd {
			err = errors.Join(err, f())
		}
	})
	return err
}

// isGone says that the daemon does not know the pool any more: it has ended.
func isGone(err error) bool { return errors.Is(refused(err), ErrUnknownPool) }

func (p *Pool) closedError(reason pb.Reason, what string) error {
	return &RefusedError{Code: codes.FailedPrecondition, Reason: reason, Pool: p.name, Message: fmt.Sprintf("pool %q %s", p.name, what)}
}

// refuse makes this handle accept no more calls. The streams of ApplyAsync take no more tasks, so that they end with their last.
func (p *Pool) refuse(err error) {
	p.mu.Lock()
	if p.refusal == nil || errors.Is(p.refusal, ErrPoolClosed) {
		p.refusal = err
	}
	streams := make([]*applyStream, 0, len(p.applies))
	for _, s := range p.applies {
		streams = append(streams, s)
	}
	p.mu.Unlock()
	for _, s := range streams {
		s.finish()
	}
}

// end makes every call end now, because of err.
func (p *Pool) end(err error) {
	p.refuse(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.calls {
		l.cancel(&ending{err})
	}
}

// begin makes ctx the life of a call: it ends with ctx, with the pool, or by its end, which must be called. The error says that the pool takes no calls.
func (p *Pool) begin(ctx context.Context, lift func()) (context.Context, *life, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	l := p.newLife(cancel)
	l.lift = lift
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refusal != nil {
		cancel(p.refusal)
		return nil, nil, p.refusal
	}
	p.calls[l] = struct{}{}
	return ctx, l, nil
}

func (p *Pool) newLife(cancel context.CancelCauseFunc) *life {
	return &life{pool: p, cancel: cancel, kept: make(chan struct{}), over: make(chan struct{})}
}

func (p *Pool) lives() []*life {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.calls))
}

// lift takes in what waits for loops: it may be a loop that calls Join.
func (p *Pool) lift() {
	for _, l := range p.lives() {
		if l.lift != nil {
			l.lift()
		}
	}
}

// closed tells whether this handle knows that the pool takes no calls.
func (p *Pool) closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refusal != nil
}

// await waits until a channel of every call has been closed.
func (p *Pool) await(ctx context.Context, of func(*life) <-chan struct{}) error {
	for _, l := range p.lives() {
		select {
		case <-of(l):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
