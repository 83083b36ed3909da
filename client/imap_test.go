package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
)

// count yields 0, 1, 2… for ever, and keeps in drawn how many.
func count(drawn *atomic.Int64) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := 0; yield(i); i++ {
			drawn.Store(int64(i) + 1)
		}
	}
}

func TestIMapYieldsInOrder(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.work = backwards
	next := 0
	for out, err := range IMap(t.Context(), f.pool(t), double, slices.Values(numbers(8_000))) {
		if err != nil {
			t.Fatal(err)
		}
		if out.Index != next || out.Value != 2*next || out.Attempt != 1 || out.Err != nil {
			t.Fatalf("outcome %d is %+v", next, out)
		}
		next++
	}
	if next != 8_000 {
		t.Errorf("%d outcomes, want 8000", next)
	}
}

// backwards answers each message with the last of its tasks first, one message each.
func backwards(stream grpc.ServerStream, r *wire.CallRequest) error {
	function := functions[r.Settings.GetFunction()]
	for first := uint64(0); ; {
		var values [][]byte
		for it := r.Items.Items(); it.Next(); {
			v, _ := function.f(it.Item())
			values = append(values, v)
		}
		for i, v := range slices.Backward(values) {
			if err := answer(stream, first+uint64(i), string(v)); err != nil {
				return err
			}
		}
		first += uint64(len(values))
		*r = wire.CallRequest{}
		if err := stream.RecvMsg(r); err != nil {
			return nil
		}
	}
}

func TestIMapUnorderedYieldsEveryOutcomeOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.work = backwards
	seen := newBitmap(8_000)
	n, inOrder := 0, true
	for out, err := range IMapUnordered(t.Context(), f.pool(t), double, slices.Values(numbers(8_000))) {
		if err != nil {
			t.Fatal(err)
		}
		if seen.has(out.Index) || out.Value != 2*out.Index {
			t.Fatalf("outcome is %+v, seen before: %v", out, seen.has(out.Index))
		}
		inOrder = inOrder && out.Index == n
		seen.set(out.Index)
		n++
	}
	if n != 8_000 || inOrder {
		t.Errorf("%d outcomes, in order: %v; want 8000 as they come", n, inOrder)
	}
}

func TestIMapGoesOnAfterAFailedTask(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	for _, imap := range []func(context.Context, *Pool, Function[int, int], iter.Seq[int], ...CallOption) iter.Seq2[Outcome[int], error]{IMap[int, int], IMapUnordered[int, int]} {
		n := 0
		for out, err := range imap(t.Context(), f.pool(t), picky{odd}, slices.Values(numbers(3000))) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			bad := out.Index%2 == 0
			rejected := out.Index%1000 == 7 || out.Index%1000 == 8 || out.Index == 999
			if bad != errors.Is(out.Err, ErrTask) && !rejected {
				t.Fatalf("outcome is %+v", out)
			}
			if rejected != errors.Is(out.Err, ErrRejected) || rejected != (out.Attempt == 0) {
				t.Fatalf("outcome is %+v", out)
			}
			if out.Err == nil && out.Value != out.Index {
				t.Fatalf("outcome is %+v", out)
			}
		}
		if n != 3000 {
			t.Errorf("%d outcomes, want 3000", n)
		}
	}
}

func TestIMapStopsOnErrorIfAsked(t *testing.T) {
	t.Parallel()
	var errs []error
	var drawn atomic.Int64
	for out, err := range IMap(t.Context(), newFake(t).pool(t), Func[int, int]("odd"), count(&drawn), StopOnError()) {
		errs = append(errs, out.Err, err)
	}
	if len(errs) != 4 || !errors.Is(errs[0], ErrTask) || errs[1] != nil || errs[2] != nil || !errors.Is(errs[3], ErrTask) {
		t.Errorf("errors are %v, want that of task 0 twice: in its outcome, and as the end", errs)
	}
}

func TestIMapInputStaysWithinTheWindow(t *testing.T) {
	t.Parallel()
	for _, window := range []int{1, 2, 63, 1000, 0} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			p := f.pool(t)
			limit := int64(window)
			if window == 0 {
				limit = DefaultWindowItems
			}
			var drawn atomic.Int64
			taken := int64(0)
			for out, err := range IMap(t.Context(), p, double, count(&drawn), Window(window, 0)) {
				if err != nil {
					t.Fatal(err)
				}
				taken++
				if taken%97 == 1 {
					pass(time.Second) // slow enough for everybody else to do all they can
					synctest.Wait()
				}
				if ahead := drawn.Load() - taken; ahead > limit {
					t.Fatalf("%d items drawn and %d taken: %d ahead, the window is %d", drawn.Load(), taken, ahead, limit)
				} else if taken == 1 && ahead < limit*9/10 {
					t.Errorf("only %d items are ahead, the window is %d", ahead, limit)
				}
				if out.Index == 300 {
					break
				}
			}
		})
	}
}

func TestIMapBoundsBytesOfResults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p := f.pool(t)
		big := make([]byte, 100<<10)
		var drawn atomic.Int64
		input := func(yield func([]byte) bool) {
			for yield(big) {
				drawn.Add(1)
			}
		}
		const limit = 1 << 20
		taken := int64(0)
		for _, err := range IMap(t.Context(), p, echo, input, Window(0, limit)) {
			if err != nil {
				t.Fatal(err)
			}
			taken++
			pass(time.Second)
			synctest.Wait()
			// What is under way beyond the window: a message each in SDK and daemon, and what gRPC holds.
			if ahead := (drawn.Load() - taken) * int64(len(big)); ahead > 3*limit {
				t.Fatalf("%d bytes are ahead of the consumer, the limit is %d", ahead, limit)
			}
			if taken == 100 {
				break
			}
		}
	})
}

func TestIMapDoesNotWaitForAFullBatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t).pool(t)
		back := make(chan int)
		input := func(yield func(int) bool) {
			for i := range 5 {
				if !yield(i) {
					return
				}
				if got := <-back; got != 2*i { // the next item exists only when this one has come back
					t.Errorf("got %d, want %d", got, 2*i)
				}
			}
		}
		n := 0
		for out, err := range IMap(t.Context(), p, double, input) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			back <- out.Value
		}
		if n != 5 {
			t.Errorf("%d outcomes, want 5", n)
		}
	})
}

func TestIMapLeftEarlyEndsEverything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p := f.pool(t)
		inputEnded := false
		var drawn atomic.Int64
		input := func(yield func(int) bool) {
			count(&drawn)(yield)
			inputEnded = true
		}
		for out, err := range IMap(t.Context(), p, double, input) {
			if err != nil || out.Index == 5000 {
				break
			}
		}
		if !inputEnded {
			t.Error("the input has not been told to end")
		}
		func() {
			defer func() { _ = recover() }()
			for out, err := range IMapUnordered(t.Context(), p, double, input) {
				panic(fmt.Sprint("in the loop with ", out, err))
			}
		}()
		synctest.Wait()
		if n := f.count(&f.live); n != 0 {
			t.Errorf("%d calls run on at the daemon, want none", n)
		}
	}) // which fails if a goroutine is left
}

func TestIMapDoesNotHangOnABlockedInput(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t).pool(t)
		release := make(chan struct{})
		defer close(release)
		input := func(yield func(int) bool) {
			yield(1)
			<-release
		}
		begin := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var end error
		for out, err := range IMap(ctx, p, double, input) {
			end = err
			if out.Value == 2 {
				cancel()
			}
		}
		if took := time.Since(begin); took > inputPatience {
			t.Errorf("the loop ended %v after the cancel, want at most %v", took, inputPatience)
		}
		if !errors.Is(end, context.Canceled) {
			t.Errorf("the call ended with %v, want context.Canceled", end)
		}
	})
}

func TestIMapInputThatPanics(t *testing.T) {
	t.Parallel()
	p := newFake(t).pool(t)
	for name, end := range map[string]func(){"panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			input := func(yield func(int) bool) {
				for i := range 1000 {
					yield(i)
				}
				end()
			}
			n := 0
			var last error
			for out, err := range IMap(t.Context(), p, double, input) {
				if last = err; err == nil {
					if out.Value != 2*n {
						t.Errorf("outcome %d is %+v", n, out)
					}
					n++
				}
			}
			var pe *PanicError
			if n != 1000 || !errors.Is(last, ErrInput) || !errors.As(last, &pe) || pe.Stack == "" {
				t.Errorf("%d outcomes, then %v; want 1000, then the panic", n, last)
			}
		})
	}
}

func TestIMapRefused(t *testing.T) {
	t.Parallel()
	p := newFake(t).pool(t)
	blocked := func(yield func(int) bool) { // a refusal does not wait for the first item
		<-t.Context().Done()
	}
	n := 0
	for out, err := range IMap(t.Context(), p, Func[int, int]("triple"), blocked) {
		n++
		if !errors.Is(err, ErrUnknownFunction) || out != (Outcome[int]{}) {
			t.Errorf("got %+v, %v; want ErrUnknownFunction", out, err)
		}
	}
	if n != 1 {
		t.Errorf("%d rounds, want one with the error", n)
	}
	for out, err := range IMap(t.Context(), p, double, slices.Values([]int(nil))) {
		t.Errorf("an empty input has an outcome: %v, %v", out, err)
	}
}

func TestIMapWhenTheDaemonDies(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			f.work = func(stream grpc.ServerStream, r *wire.CallRequest) error {
				if err := receiveItems(stream, r, 4); err != nil {
					return err
				}
				for _, i := range []uint64{0, 1, 3} { // of 2 nothing is ever heard
					if err := answer(stream, i, "7"); err != nil {
						return err
					}
				}
				<-stream.Context().Done()
				return stream.Context().Err() // as the daemon does
			}
			p := f.pool(t)
			var got []int
			var last error
			begin := func(yield func(int) bool) {
				for i := range 4 {
					yield(i)
				}
				synctest.Wait()
				f.server.Stop()
			}
			seq := IMap(t.Context(), p, double, begin)
			if !ordered {
				seq = IMapUnordered(t.Context(), p, double, begin)
			}
			for out, err := range seq {
				if last = err; err == nil {
					got = append(got, out.Index)
				}
			}
			if want := []int{0, 1, 3}; !slices.Equal(got, want) || !errors.Is(last, ErrUnavailable) {
				t.Errorf("ordered %v: outcomes of %v, then %v; want those of %v, then ErrUnavailable", ordered, got, last, want)
			}
		})
	}
}

// What has come is the loop's, also when the pool ends before it has taken it. A loop whose context ends gets no more, and is told.
func TestIMapWhenItsPoolOrItsContextEnds(t *testing.T) {
	t.Parallel()
	const n = 10
	for what, row := range map[string]struct {
		answers  int  // of n
		pool     bool // ends, not the context
		outcomes int
		err      error
	}{
		"the pool, when all outcomes have come":     {answers: n, pool: true, outcomes: n},
		"the pool, when some outcomes have come":    {answers: 6, pool: true, outcomes: 6, err: ErrPoolTerminated},
		"the context, when all outcomes have come":  {answers: n, outcomes: 1, err: context.Canceled},
		"the context, when some outcomes have come": {answers: 6, outcomes: 1, err: context.Canceled},
	} {
		for name, imap := range map[string]func(context.Context, *Pool, Function[int, int], iter.Seq[int], ...CallOption) iter.Seq2[Outcome[int], error]{
			"IMap": IMap[int, int], "IMapUnordered": IMapUnordered[int, int],
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFake(t)
					f.work = func(stream grpc.ServerStream, r *wire.CallRequest) error {
						if err := receiveItems(stream, r, n); err != nil {
							return err
						}
						for i := range row.answers {
							if err := answer(stream, uint64(i), "7"); err != nil {
								return err
							}
						}
						if row.answers == n {
							return nil
						}
						<-stream.Context().Done()
						return stream.Context().Err()
					}
					p := f.pool(t)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					outcomes := 0
					var last error
					for _, err := range imap(ctx, p, double, slices.Values(numbers(n)), Window(2*n, 0)) { // so small that the loop takes one at a time
						if last = err; err != nil {
							break
						}
						if outcomes++; outcomes > 1 {
							continue
						}
						synctest.Wait() // all that is to come has come
						end := cancel
						if row.pool {
							end = func() { p.end(ErrPoolTerminated) }
						}
						end()
						synctest.Wait()
					}
					if outcomes != row.outcomes || !errors.Is(last, row.err) {
						t.Errorf("%d outcomes, then %v; want %d, then %v", outcomes, last, row.outcomes, row.err)
					}
				})
			})
		}
	}
}

// A Join in the loop's body takes in what waits for the loop, however much that is.
func TestJoinInTheLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 10
		f := newFake(t)
		f.joined = true
		f.work = func(stream grpc.ServerStream, r *wire.CallRequest) error {
			if err := receiveItems(stream, r, n); err != nil {
				return err
			}
			for i := range n {
				if err := answer(stream, uint64(i), string(make([]byte, 1<<20))); err != nil {
					return err
				}
			}
			return nil
		}
		p := f.pool(t)
		outcomes := 0
		for out, err := range IMap(t.Context(), p, echo, slices.Values(slices.Repeat([][]byte{nil}, n)), Window(0, 1<<20)) {
			if err != nil || out.Err != nil {
				t.Fatal(err, out.Err)
			}
			if outcomes++; outcomes == 1 {
				synctest.Wait() // more waits than the window allows
				if err := errors.Join(p.Close(), p.Join(t.Context())); err != nil {
					t.Fatal(err)
				}
			}
		}
		if outcomes != n {
			t.Errorf("%d outcomes, want %d", outcomes, n)
		}
	})
}

// receiveItems reads on until n items have come, those of first included. An answer before that would be one to a task that does not exist.
func receiveItems(stream grpc.ServerStream, first *wire.CallRequest, n int) error {
	for got := first.Items.Len(); got < n; got += first.Items.Len() {
		*first = wire.CallRequest{}
		if err := stream.RecvMsg(first); err != nil {
			return err
		}
	}
	return nil
}

func TestIMapDistrustsTheDaemon(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(grpc.ServerStream) error{
		"twice":      func(s grpc.ServerStream) error { return errors.Join(answer(s, 0, "1"), answer(s, 0, "1")) },
		"never sent": func(s grpc.ServerStream) error { return answer(s, 1<<40, "1") },
		"too few":    func(s grpc.ServerStream) error { return answer(s, 0, "1") },
		"failure": func(s grpc.ServerStream) error {
			return s.SendMsg(&wire.CallResponse{Failures: []*pb.Failure{{Index: 1 << 63}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.work = func(s grpc.ServerStream, r *wire.CallRequest) error {
				if err := receiveItems(s, r, 3); err != nil {
					return err
				}
				return send(s)
			}
			var last error
			for _, err := range IMap(t.Context(), f.pool(t), double, slices.Values(numbers(3))) {
				last = err
			}
			if !errors.Is(last, ErrProtocol) {
				t.Errorf("the call ended with %v, want ErrProtocol", last)
			}
		})
	}
}
