package client

import (
	"context"
	"log/slog"
	"sync"
)

// Result is the outcome of MapAsync or ApplyAsync, now or later. Its methods may be called by any number of goroutines.
type Result[T any] struct {
	callbacks *callbacks

	mu    sync.Mutex
	ready bool
	done  chan struct{} // made when somebody waits; closed when ready
	value T
	err   error
	then  []func() // callbacks to run when ready
}

// closedChan is the done channel of whatever is ready before anybody asks.
var closedChan = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// complete makes the result ready. The first one counts.
func (r *Result[T]) complete(value T, err error) bool {
	r.mu.Lock()
	if r.ready {
		r.mu.Unlock()
		return false
	}
	r.ready, r.value, r.err = true, value, err
	if r.done != nil {
		close(r.done)
	}
	then := r.then
	r.then = nil
	r.mu.Unlock()
	if len(then) > 0 {
		r.callbacks.add(then...)
	}
	return true
}

// Done is closed when the result is ready.
func (r *Result[T]) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done == nil {
		if r.ready {
			return closedChan
		}
		r.done = make(chan struct{})
	}
	return r.done
}

// Ready reports whether the result is there.
func (r *Result[T]) Ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready
}

// Wait waits until the result is ready. ctx bounds the waiting only: its error is that of ctx, and the work goes on.
func (r *Result[T]) Wait(ctx context.Context) error {
	done := r.Done()
	select {
	case <-done: // a result that is ready is so under an ended context too
		return nil
	default:
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return contextError(ctx)
	}
}

// Get waits as Wait does and returns the result. After MapAsync the value is complete even when there is an error: see [Map].
func (r *Result[T]) Get(ctx context.Context) (T, error) {
	if err := r.Wait(ctx); err != nil {
		var zero T
		return zero, err
	}
	return r.value, r.err // written before done was closed
}

// Successful reports whether there was no error. Before the result is ready it returns [ErrNotReady].
func (r *Result[T]) Successful() (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ready {
		return false, ErrNotReady
	}
	return r.err == nil, nil
}

// OnSuccess calls f with the value when the result is ready and has no error; now, if it is ready.
//
// Callbacks of a pool run one at a time, each after its result has become ready, on a goroutine that does nothing else. So f may wait, may
// use the pool and may terminate it; if it panics, that is logged. Nothing waits for callbacks.
func (r *Result[T]) OnSuccess(f func(T)) {
	r.on(func() {
		if r.err == nil {
			f(r.value)
		}
	})
}

// OnError calls f with the error when the result is ready and has one; now, if it is ready. Everything said at OnSuccess holds.
func (r *Result[T]) OnError(f func(error)) {
	r.on(func() {
		if r.err != nil {
			f(r.err)
		}
	})
}

func (r *Result[T]) on(f func()) {
	r.mu.Lock()
	if !r.ready {
		r.then = append(r.then, f)
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	r.callbacks.add(f)
}

// callbacks runs functions one at a time. Its goroutine exists while there are some. It is nobody's to wait for: a callback may be
// what terminates the pool, and waiting for it would then never end.
type callbacks struct {
	log *slog.Logger

	mu      sync.Mutex
	queue   []func()
	running bool
}

func (c *callbacks) add(f ...func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, f...)
	if !c.running {
		c.running = true
		go c.run()
	}
}

func (c *callbacks) run() {
	returned := false
	defer func() {
		if !returned { // runtime.Goexit in a callback: the others still have their turn
			go c.run()
		}
	}()
	for {
		c.mu.Lock()
		if len(c.queue) == 0 {
			c.running, returned = false, true
			c.mu.Unlock()
			return
		}
		f := c.queue[0]
		c.queue = c.queue[1:]
		c.mu.Unlock()
		protect(c.log, "a callback of a result", f)
	}
}

// protect runs code of the user and logs its panic.
func protect(log *slog.Logger, what string, f func()) {
	defer func() {
		if v := recover(); v != nil {
			log.Error("procpool: "+what+" panicked", "panic", v, "stack", newPanicError(v).Stack)
		}
	}()
	f()
}
