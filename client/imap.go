package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/procpool/procpool/proto/wire"
)

// inputPatience is how long the end of a loop over IMap waits for an input iterator that is in the middle of making its next item.
const inputPatience = 100 * time.Millisecond

// Outcome is how one task ended.
type Outcome[R any] struct {
	// Index of the task: its item's place in the input, from 0.
	Index int
	// Value is the result; zero if Err is not nil.
	Value R
	// Err is nil or a [*TaskError].
	Err error
	// Attempt is how often the task was started. 0: never.
	Attempt int
}

// IMap applies fn to the items of an input that is drawn lazily, and yields the outcomes in the order of the input, each as soon as it and those
// before it are there. A task that fails is an outcome with Err and does not end the loop. The second value is nil but for the end of the call
// itself, if that is an error: then it comes once, last, with a zero Outcome.
//
// The call begins when the loop does. Leaving the loop, by whatever way, cancels the call and leaves no goroutine behind, with one exception: the
// input is drawn on a goroutine of its own, and an input that blocks keeps it until it yields or returns; an input should heed ctx. The loop
// waits up to 100 ms for an input to notice. If the input panics, the outcomes of the items before are yielded, then a [*PanicError] that is an [ErrInput].
//
// If ctx ends, the loop ends with that error and without the outcomes that it has not been given yet. If the pool ends, or the daemon, it gets those that have come first.
//
// The input is never further ahead of the loop than [Window] says.
func IMap[A, R any](ctx context.Context, pool *Pool, fn Function[A, R], input iter.Seq[A], opts ...CallOption) iter.Seq2[Outcome[R], error] {
	return imap(ctx, pool, fn, input, opts, true)
}

// IMapUnordered is IMap, but for the order: each outcome is yielded as soon as it is there.
func IMapUnordered[A, R any](ctx context.Context, pool *Pool, fn Function[A, R], input iter.Seq[A], opts ...CallOption) iter.Seq2[Outcome[R], error] {
	return imap(ctx, pool, fn, input, opts, false)
}

func imap[A, R any](ctx context.Context, pool *Pool, fn Function[A, R], input iter.Seq[A], opts []CallOption, ordered bool) iter.Seq2[Outcome[R], error] {
	return func(yield func(Outcome[R], error) bool) {
		c := &lazyCall{pool: pool, function: fn.Name(), encoding: fn.Encoding(), config: newCallConfig(opts)}
		draw := func() { drawAll(ctx, &c.flow, fn.AppendArg, input) }
		stop, err := c.start(ctx, draw, ordered)
		if err != nil {
			yield(Outcome[R]{}, err)
			return
		}
		defer stop()
		decode := fn.DecodeResult
		var buf []slot
		for {
			buf = c.flow.take(buf[:0])
			if len(buf) == 0 {
				if err := c.flow.error(); err != nil {
					yield(Outcome[R]{}, err)
				}
				return
			}
			for i := range buf {
				out := buf[i].outcome()
				o := Outcome[R]{Index: out.index, Attempt: out.attempts}
				if out.err == nil {
					if o.Value, err = decodeSafely(decode, out.value); err != nil {
						out.err = undecodedError(err, out.index, out.attempts, "")
					}
				}
				if out.err != nil {
					o.Err = out.err
				}
				if !yield(o, nil) {
					return
				}
				if out.err != nil && c.config.stopOnError {
					yield(Outcome[R]{}, fmt.Errorf("%s: stopped: %w", c.what(), out.err))
					return
				}
			}
		}
	}
}

// outcome takes the outcome out of its slot, so that the loop keeps no result longer than its user does.
func (s *slot) outcome() slot {
	out := *s
	*s = slot{}
	return out
}

// drawAll moves the input into f, for as long as f wants it. One that ends when ctx has ended may have done so for that.
func drawAll[A any](ctx context.Context, f *flow, encode func([]byte, A) ([]byte, error), input iter.Seq[A]) {
	returned := false
	defer func() {
		var err error
		if !returned {
			err = fmt.Errorf("%w: %w", ErrInput, newPanicError(recover()))
		} else if ctx.Err() != nil {
			err = contextError(ctx)
		}
		f.endInput(err)
	}()
	var scratch wire.Batch
	input(func(item A) bool {
		scratch.Reset()
		err := addItem(&scratch, encode, item)
		more := f.put(scratch.Data, err)
		if cap(scratch.Data) > maxBatchBytes {
			scratch.Data = nil // one large item is no reason to keep its size for ever
		}
		return more
	})
	returned = true
}

// lazyCall is one IMap. Three goroutines and the caller's meet in its flow: draw puts items in, send takes them out, receive puts
// outcomes in, the caller takes them out.
type lazyCall struct {
	pool     *Pool
	function string
	encoding string
	config   callConfig
	flow     flow
}

// start begins the call. The returned function ends it.
func (c *lazyCall) start(ctx context.Context, draw func(), ordered bool) (stop func(), err error) {
	if c.config.err != nil {
		return nil, c.config.err
	}
	c.flow.init(c.config.windowItems, c.config.windowBytes, ordered)
	ctx, life, err := c.pool.begin(ctx, c.flow.lift)
	if err != nil {
		return nil, err
	}
	stream, err := c.pool.client.dataRPC.Map(ctx)
	if err != nil {
		defer life.end(nil)
		return nil, rpcError(ctx, err, "%s", c.what())
	}
	cancelled := context.AfterFunc(ctx, func() {
		err := fmt.Errorf("%s: %w", c.what(), contextError(ctx))
		if ours := (*ending)(nil); errors.As(context.Cause(ctx), &ours) {
			c.flow.broken(err) // the pool has ended: what has come is the loop's
			return
		}
		c.flow.fail(err)
	})
	var ours sync.WaitGroup
	ours.Go(func() { c.send(stream) })
	ours.Go(func() {
		finally(func() error { return c.receive(ctx, stream, life) }, func(err error) {
			c.flow.broken(err)
			life.finish()
		})
	})
	drawn := make(chan struct{})
	go func() { // may stay as long as the input blocks
		defer close(drawn)
		draw()
	}()
	return func() {
		cancelled()
		c.flow.fail(context.Canceled) // nobody sees it
		life.end(nil)
		ours.Wait()
		waitFor(drawn, inputPatience)
	}, nil
}

// send passes on what has been drawn, whenever the stream can take it: however little that is.
func (c *lazyCall) send(stream grpc.ClientStream) {
	settings := c.config.request(c.pool.name, c.function, "")
	for {
		b, more := c.flow.batch(settings != nil)
		if !more {
			break
		}
		if err := stream.SendMsg(&wire.CallRequest{Settings: settings, Items: b}); err != nil {
			return // receive knows why
		}
		settings = nil
	}
	_ = stream.CloseSend() // its errors are receive's
}

// receive takes outcomes until the stream ends.
func (c *lazyCall) receive(ctx context.Context, stream grpc.ClientStream, life *life) error {
	_, _ = stream.Header() // the daemon has the call, or there is an error, which comes again
	life.keep()
	for {
		var r wire.CallResponse
		err := stream.RecvMsg(&r)
		if errors.Is(err, io.EOF) {
			return c.flow.end(c.what())
		}
		if err == nil {
			err = checkAccepted(r.Accepted, c.function, c.encoding)
		} else {
			err = rpcError(ctx, err, "%s", c.what())
		}
		if err == nil {
			outputs(c.pool, r.Outputs, c.flow.skips.now(), c.config.output)
			err = c.flow.outcomes(&r)
		}
		if err != nil {
			return err
		}
	}
}

func (c *lazyCall) what() string { return fmt.Sprintf("imap %s on pool %q", c.function, c.pool.name) }
