package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/procpool/procpool/proto/wire"
)

// Apply applies fn to arg and returns the result. The error of a task that fails is a [*TaskError]. ctx is the life of the work.
func Apply[A, R any](ctx context.Context, pool *Pool, fn Function[A, R], arg A, opts ...CallOption) (R, error) {
	return ApplyAsync(ctx, pool, fn, arg, opts...).Get(ctx)
}

// ApplyAsync is Apply in the background. arg is encoded before it returns. It blocks while the window is full (see [Window]), until ctx is done.
//
// ctx is the life of the work: when it is done, the result is ready at once with its error, and the task is cancelled. All applies of a pool with the
// same function and options share a stream, on which tasks travel together that were ready together; so the function's own context does not
// know ctx's deadline beforehand.
func ApplyAsync[A, R any](ctx context.Context, pool *Pool, fn Function[A, R], arg A, opts ...CallOption) *Result[R] {
	task := &applyTask[A, R]{Result: Result[R]{callbacks: &pool.callbacks}, fn: fn}
	var zero R
	config := newCallConfig(opts)
	task.written = config.output
	if config.err != nil {
		task.complete(zero, config.err)
		return &task.Result
	}
	if ctx.Err() != nil {
		task.fail(fmt.Errorf("%s: %w", task.what(pool), contextError(ctx)))
		return &task.Result
	}
	item := itemPool.Get().(*wire.Batch)
	defer recycleItem(item)
	if err := addItem(item, fn.AppendArg, arg); err != nil {
		task.complete(zero, rejectedError(err, 0, fn.Name()))
		return &task.Result
	}
	key := applyKey{function: fn.Name(), encoding: fn.Encoding(), callSettings: config.callSettings}
	for {
		s, err := pool.applyStream(key)
		if err == nil {
			err = s.add(ctx, item.Data, task)
		}
		if errors.Is(err, errFinished) {
			continue // it will take no more; the pool has another one by now
		}
		if err != nil {
			task.fail(err)
		}
		return &task.Result
	}
}

// itemPool holds encoded arguments on their way into a stream's batch.
var itemPool = sync.Pool{New: func() any { return new(wire.Batch) }}

func recycleItem(b *wire.Batch) {
	if cap(b.Data) <= maxBatchBytes {
		b.Reset()
		itemPool.Put(b)
	}
}

// applyTask is a Result that its stream can complete.
type applyTask[A, R any] struct {
	Result[R]
	fn      Function[A, R]
	written func(index, attempt, stream int, data []byte)
}

func (t *applyTask[A, R]) what(p *Pool) string {
	return fmt.Sprintf("apply %s on pool %q", t.fn.Name(), p.name)
}

func (t *applyTask[A, R]) value(b []byte, attempts int) {
	v, err := decodeSafely(t.fn.DecodeResult, b)
	if err != nil {
		var zero R
		t.complete(zero, undecodedError(err, 0, attempts, t.fn.Name()))
		return
	}
	t.complete(v, nil)
}

func (t *applyTask[A, R]) fail(err error) {
	var zero R
	t.complete(zero, err)
}

func (t *applyTask[A, R]) output() func(index, attempt, stream int, data []byte) { return t.written }

// completer is an applyTask, whatever its types.
type completer interface {
	value(b []byte, attempts int)
	fail(err error)
	output() func(index, attempt, stream int, data []byte)
}
