package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"github.com/procpool/procpool/proto/payload"
	"github.com/procpool/procpool/proto/wire"
)

const maxTaskErrors = 100 // kept in a MapError: more help nobody and cost memory

// Map applies fn to every item, in parallel, and returns the results in the order of the items.
//
// It runs everything: there is a result for each item even when err is not nil; those of tasks that failed are zero. err is a
// [*MapError], which says which did. A function's error, a dead worker, an argument that cannot be encoded or is over 32 MiB: each is
// the failure of one task. With [StopOnError] the first of them ends the call.
//
// An empty list of items has an empty result, and no worker is asked; but for a pool that takes no calls it is an error too.
func Map[A, R any](ctx context.Context, pool *Pool, fn Function[A, R], items []A, opts ...CallOption) ([]R, error) {
	m := newMapCall(pool, fn, items, opts)
	ctx, err := m.begin(ctx)
	if err != nil {
		return m.results, err
	}
	defer m.life.end(nil)
	return m.results, m.run(ctx)
}

// MapAsync is Map in the background. ctx is the life of the work, not of the waiting. The items must not be changed before the result is
// ready: they are encoded as they are sent.
func MapAsync[A, R any](ctx context.Context, pool *Pool, fn Function[A, R], items []A, opts ...CallOption) *Result[[]R] {
	m := newMapCall(pool, fn, items, opts)
	r := &Result[[]R]{callbacks: &pool.callbacks}
	ctx, err := m.begin(ctx) // here: a Close that follows leaves it alone
	if err != nil {
		r.complete(m.results, err)
		return r
	}
	started := pool.client.start(func() {
		defer m.life.end(nil)
		finally(func() error { return m.run(ctx) }, func(err error) {
			if quit, ok := err.(*PanicError); ok { //nolint:errorlint // from finally: all that run returns is a *MapError
				err = m.error(quit)
			}
			r.complete(m.results, err)
		})
	})
	if !started {
		m.life.end(nil)
		r.complete(m.results, m.error(ErrClosed))
	}
	return r
}

// mapCall is one Map: the caller's goroutine sends, another one receives.
type mapCall[A, R any] struct {
	pool    *Pool
	fn      Function[A, R]
	items   []A
	config  callConfig
	life    *life
	results []R // written by receive
	skips   skips
	// together is how many small values are encoded and decoded; see encodingsOf.
	together payload.Encodings[A, R]

	// Owned by receive.
	seen bitmap // tasks with an outcome from the daemon
	bad  bitmap // those of them without a result; nil if none

	mu     sync.Mutex
	ended  int          // tasks with an outcome
	failed int          // those of them without a result
	errs   []*TaskError // by index, the first of them
}

func newMapCall[A, R any](pool *Pool, fn Function[A, R], items []A, opts []CallOption) *mapCall[A, R] {
	return &mapCall[A, R]{
		pool: pool, fn: fn, items: items, config: newCallConfig(opts), results: make([]R, len(items)), seen: newBitmap(len(items)), together: encodingsOf(fn),
	}
}

// begin makes the call one of its pool's. If it does not fail, run must follow, or the end of its life.
func (m *mapCall[A, R]) begin(ctx context.Context) (context.Context, error) {
	if m.config.err != nil {
		return nil, m.error(m.config.err)
	}
	ctx, life, err := m.pool.begin(ctx, nil)
	if err != nil {
		return nil, m.error(err)
	}
	m.life = life
	return ctx, nil
}

func (m *mapCall[A, R]) run(ctx context.Context) error {
	end := m.life.cancel
	defer end(nil)
	if len(m.items) == 0 {
		return m.error(m.pool.checkOpen(ctx))
	}
	stream, err := m.pool.client.dataRPC.Map(ctx)
	if err != nil {
		return m.error(m.rpcError(ctx, err))
	}
	var received error
	done := make(chan struct{})
	started := m.pool.client.start(func() {
		finally(func() error { return m.receive(ctx, stream, end) }, func(err error) {
			received = err
			end(nil) // what is not sent yet is of no use any more
			close(done)
		})
	})
	if !started {
		return m.error(ErrClosed)
	}
	func() {
		sent := false
		defer func() {
			if !sent {
				end(nil)
			}
			<-done
		}()
		m.send(stream, end)
		sent = true
	}()
	return m.error(received)
}

// send cuts the items into messages. If it ends early, receive knows why.
func (m *mapCall[A, R]) send(stream grpc.ClientStream, end context.CancelCauseFunc) {
	encode, encodeAll := m.fn.AppendArg, m.together.Arg.AppendAll
	settings := m.config.request(m.pool.name, m.fn.Name(), "")
	var last measure
	var sent uint64
	size := firstBatchItems
	for next := 0; next < len(m.items); {
		b, buf := lentBatch(last, min(size, len(m.items)-next))
		n, err := addItems(&b, encode, encodeAll, m.items[next:], size)
		next += n
		for err != nil {
			m.skips.add(sent + uint64(b.Len()))
			m.fail(rejectedError(err, next, ""), end)
			next++
			n, err = addItems(&b, encode, encodeAll, m.items[next:], size)
			next += n
		}
		sent += uint64(b.Len())
		if b.Len() == 0 && settings == nil {
			continue // every one of them was skipped
		}
		last = measureOf(&b)
		b.Lend(buf)
		if err := stream.SendMsg(&wire.CallRequest{Settings: settings, Items: b}); err != nil {
			return
		}
		settings = nil
		size = min(2*size, maxBatchItems)
	}
	_ = stream.CloseSend() // its errors are receive's
}

// receive takes outcomes until the stream ends.
func (m *mapCall[A, R]) receive(ctx context.Context, stream grpc.ClientStream, end context.CancelCauseFunc) error {
	decode := m.fn.DecodeResult
	_, _ = stream.Header() // the daemon has the call, or there is an error, which comes again
	m.life.keep()
	for {
		var r wire.CallResponse
		if err := stream.RecvMsg(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return m.rpcError(ctx, err)
		}
		if err := checkAccepted(r.Accepted, m.fn.Name(), m.fn.Encoding()); err != nil {
			return err
		}
		ours := m.skips.now()
		outputs(m.pool, r.Outputs, ours, m.config.output)
		for i := range r.Results {
			if err := m.take(&r.Results[i], ours, decode, end); err != nil {
				return err
			}
		}
		for _, f := range r.Failures {
			i, ok := m.place(ours.ours(f.GetIndex()))
			if !ok {
				return m.notToCome(f.GetIndex())
			}
			m.markBad(i)
			m.fail(newTaskError(f, i, ""), end)
		}
	}
}

// take puts results where they belong.
func (m *mapCall[A, R]) take(r *wire.Results, ours mapping, decode func([]byte) (R, error), end context.CancelCauseFunc) error {
	it := r.Values.Items()
	bad := 0
	// Nearly always: one place after the other. If a place is wrong, each is looked at, and the wrong one named.
	placed := r.Indexes == nil && len(ours) == 0 && m.placeRun(r.First, r.Values.Len())
	for k := 0; k < r.Values.Len(); k++ {
		next, i, err := m.decode(&it, r, k, placed, ours, decode)
		if k = next; k == r.Values.Len() {
			break
		}
		if i < 0 {
			return err
		}
		m.markBad(i)
		m.fail(undecodedError(err, i, attempts(r), ""), end)
		bad++
	}
	m.mu.Lock()
	m.ended += r.Values.Len() - bad
	m.mu.Unlock()
	return nil
}

// decode decodes results from the k-th on until one cannot be used. It returns which one, whose it is and why; an index of -1 if it is nobody's. One
// recover for all of them: it costs more than decoding a number does. If they are placed, they go one after the other.
func (m *mapCall[A, R]) decode(it *wire.Items, r *wire.Results, k int, placed bool, ours mapping, decode func([]byte) (R, error)) (next, index int, err error) {
	returned := false
	defer func() {
		if v := recover(); v != nil {
			err = newPanicError(v)
		} else if !returned { // the decoder has ended the goroutine: this result has no value, nor do those behind it
			last := index
			if placed {
				last = int(r.First) + r.Values.Len() - 1
			}
			for ; index <= last; index++ {
				m.markBad(index)
			}
		}
	}()
	next, index = k, int(r.First)+k
	if decodeAll := m.together.Result.DecodeAll; decodeAll != nil && placed {
		data, sizes, size := it.Rest()
		n := decodeAll(m.results[int(r.First)+k:int(r.First)+r.Values.Len()], data, sizes, size)
		it.Skip(n)
		next += n
	}
	for ; it.Next(); next++ {
		if index = int(r.First) + next; !placed {
			wireIndex := r.First + uint64(next)
			if r.Indexes != nil {
				wireIndex = r.Indexes[next]
			}
			var ok bool
			if index, ok = m.place(ours.ours(wireIndex)); !ok {
				returned = true
				return next, -1, m.notToCome(wireIndex)
			}
		}
		if m.results[index], err = decode(it.Item()); err != nil {
			var zero R
			m.results[index] = zero
			returned = true
			return next, index, err
		}
	}
	returned = true
	return next, 0, nil
}

// place is where an outcome goes. Every place is taken once.
func (m *mapCall[A, R]) place(index uint64) (int, bool) {
	if index >= uint64(len(m.items)) || m.seen.has(int(index)) {
		return 0, false
	}
	m.seen.set(int(index))
	return int(index), true
}

// placeRun is place for n outcomes that follow each other.
func (m *mapCall[A, R]) placeRun(first uint64, n int) bool {
	total := uint64(len(m.items))
	return first <= total && uint64(n) <= total-first && m.seen.setRun(int(first), n)
}

func (m *mapCall[A, R]) notToCome(index uint64) error {
	return fmt.Errorf("%s: %w: an outcome for task %d, which has none to come", m.what(), ErrProtocol, index)
}

func (m *mapCall[A, R]) markBad(i int) {
	if m.bad == nil {
		m.bad = newBitmap(len(m.items))
	}
	m.bad.set(i)
}

// fail accounts for a failed task.
func (m *mapCall[A, R]) fail(t *TaskError, end context.CancelCauseFunc) {
	m.mu.Lock()
	m.ended++
	m.failed++
	if n := len(m.errs); n < maxTaskErrors || t.Index < m.errs[n-1].Index {
		at, _ := slices.BinarySearchFunc(m.errs, t.Index, func(e *TaskError, index int) int { return e.Index - index })
		m.errs = slices.Insert(m.errs, at, t)
		m.errs = m.errs[:min(len(m.errs), maxTaskErrors)]
	}
	m.mu.Unlock()
	if m.config.stopOnError {
		end(&ending{t})
	}
}

// error is what Map returns, if the call has ended because of err.
func (m *mapCall[A, R]) error(err error) error {
	e := &MapError{Err: err, Failed: m.failed, Errors: m.errs, Unfinished: len(m.items) - m.ended, total: len(m.items), have: m.seen, bad: m.bad}
	if first := (*TaskError)(nil); errors.As(err, &first) { // StopOnError: the task itself is in Errors
		e.Err = fmt.Errorf("%s: stopped at the first failed task", m.what())
	}
	if err == nil && e.Unfinished > 0 {
		e.Err = fmt.Errorf("%s: %w: it ended without an outcome for %d tasks", m.what(), ErrProtocol, e.Unfinished)
	}
	if e.Err == nil && e.Failed == 0 {
		return nil
	}
	return e
}

func (m *mapCall[A, R]) what() string {
	return fmt.Sprintf("map %s on pool %q", m.fn.Name(), m.pool.name)
}

func (m *mapCall[A, R]) rpcError(ctx context.Context, err error) error {
	return rpcError(ctx, err, "%s", m.what())
}
