package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
)

// hold answers nothing until it is released; then it runs all tasks.
func (f *fake) hold() (release func()) {
	held := make(chan struct{})
	f.work = func(stream grpc.ServerStream, r *wire.CallRequest) error {
		<-held
		return f.runTasks(stream, r)
	}
	return func() { close(held) }
}

func TestApply(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	p := f.pool(t)
	for i := range 100 {
		if got, err := Apply(t.Context(), p, double, i); err != nil || got != 2*i {
			t.Fatalf("got %d, %v; want %d", got, err, 2*i)
		}
	}
	if n := f.count(&f.streams); n != 1 {
		t.Errorf("%d streams, want one for all", n)
	}
	_, err := Apply(t.Context(), p, Func[int, int]("die"), 1)
	var e *TaskError
	if !errors.As(err, &e) || !errors.Is(err, ErrWorkerLost) || e.Exit.Pid != 4711 {
		t.Errorf("error is %#v, want ErrWorkerLost with the exit", err)
	}
	if want := "die: worker lost: killed by SIGKILL (p-2, pid 4711): panic: boom"; err.Error() != want {
		t.Errorf("error says %q, want %q", err, want)
	}
	if _, err := Apply(t.Context(), p, double, 1, ChunkSize(-1)); !errors.Is(err, ErrBadRequest) {
		t.Errorf("error is %v, want ErrBadRequest", err)
	}
	if _, err := Apply(t.Context(), p, picky{double}, 8); !errors.Is(err, ErrRejected) {
		t.Errorf("error is %v, want ErrRejected", err)
	}
	if _, err := Apply(t.Context(), p, clumsy{double}, 3); !errors.Is(err, ErrTask) {
		t.Errorf("error is %v, want ErrTask", err)
	}
	if _, err := Apply(t.Context(), p, Func[int, int]("triple"), 3); !errors.Is(err, ErrUnknownFunction) {
		t.Errorf("error is %v, want ErrUnknownFunction", err)
	}
	if _, err := Apply(t.Context(), p, Func[int, int]("echo"), 3); !errors.Is(err, ErrEncoding) {
		t.Errorf("error is %v, want ErrEncoding", err)
	}
}

func TestAppliesTravelTogether(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	p := f.pool(t)
	results := make([]*Result[int], 50_000)
	for i := range results {
		results[i] = ApplyAsync(t.Context(), p, double, i)
	}
	for i, r := range results {
		if got, err := r.Get(t.Context()); err != nil || got != 2*i {
			t.Fatalf("got %d, %v; want %d", got, err, 2*i)
		}
	}
	if n := len(f.sizes()); n > len(results)/2 {
		t.Errorf("%d messages for %d applies, want far fewer", n, len(results))
	}
	if n := f.count(&f.streams); n != 1 {
		t.Errorf("%d streams, want 1", n)
	}
}

func TestAppliesWithOtherOptionsHaveTheirOwnStream(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	p := f.pool(t)
	for _, opts := range [][]CallOption{nil, {TaskTimeout(time.Second)}, {TaskTimeout(time.Second)}, {Label("x")}, {RetryOn(ErrTask)}} {
		if _, err := Apply(t.Context(), p, double, 1, opts...); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.count(&f.streams); n != 4 {
		t.Errorf("%d streams, want 4", n)
	}
}

func TestApplyAsyncBlocksWhileTheWindowIsFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		release := f.hold()
		p := f.pool(t)
		var results []*Result[int]
		for i := range 10 {
			results = append(results, ApplyAsync(t.Context(), p, double, i, Window(10, 0)))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		r := ApplyAsync(ctx, p, double, 10, Window(10, 0))
		if took := time.Since(begin); took != time.Second {
			t.Errorf("blocked for %v, want until ctx was done", took)
		}
		if _, err := r.Get(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v, want DeadlineExceeded", err)
		}
		release()
		for i := 11; i < 100; i++ {
			results = append(results, ApplyAsync(t.Context(), p, double, i, Window(10, 0)))
		}
		for _, r := range results {
			if _, err := r.Get(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestApplyWindowCountsBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		release := f.hold()
		p := f.pool(t)
		n := make(chan int, 10)
		go func() {
			for i := range 10 {
				ApplyAsync(t.Context(), p, echo, make([]byte, 100<<10), Window(0, 300<<10))
				n <- i
			}
			close(n)
		}()
		synctest.Wait()
		if len(n) != 3 {
			t.Errorf("%d applies of 100 KiB went through, want 3", len(n))
		}
		release()
		for range n {
		}
		if got, err := Apply(t.Context(), p, echo, make([]byte, 500<<10), Window(0, 300<<10)); err != nil || len(got) != 500<<10 {
			t.Errorf("one larger than the window: %d bytes, %v; want it to pass alone", len(got), err)
		}
	})
}

func TestApplyCancelledByItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.work = func(stream grpc.ServerStream, r *wire.CallRequest) error {
			<-stream.Context().Done()
			return stream.Context().Err() // as the daemon does
		}
		p := f.pool(t)
		others := ApplyAsync(t.Context(), p, double, 1)
		ctx, cancel := context.WithCancelCause(t.Context())
		first, second := ApplyAsync(ctx, p, double, 2), ApplyAsync(ctx, p, double, 3)
		why := errors.New("enough")
		cancel(why)
		for _, r := range []*Result[int]{first, second} {
			if _, err := r.Get(t.Context()); !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
				t.Errorf("error is %v, want Canceled and its cause", err)
			}
		}
		synctest.Wait()
		cancels := f.cancelRequests()
		if len(cancels) != 1 || !slices.Equal(cancels[0].Indexes, []uint64{1, 2}) || cancels[0].CallId != f.settings[0].CallId {
			t.Errorf("cancels are %v, want one of tasks 1 and 2", cancels)
		}
		pass(cancelRepeat) // a cancel that overtook its task has been in vain
		synctest.Wait()
		if n := len(f.cancelRequests()); n != 2 {
			t.Errorf("%d cancels, want it to be repeated", n)
		}
		if others.Ready() {
			t.Error("a task with another context has ended too")
		}
		if r := ApplyAsync(ctx, p, double, 4); !r.Ready() {
			t.Error("an apply with a context that is done is not ready at once")
		}
		if err := p.Terminate(); err != nil {
			t.Error(err)
		}
		if _, err := others.Get(t.Context()); !errors.Is(err, ErrPoolTerminated) {
			t.Errorf("error is %v, want ErrPoolTerminated", err)
		}
	})
}

func TestUnusedApplyStreamEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		p := f.pool(t)
		for range 3 {
			for range 5 {
				pass(applyIdle / 2)
				if _, err := Apply(t.Context(), p, double, 1); err != nil {
					t.Fatal(err)
				}
			}
			pass(2 * applyIdle)
			synctest.Wait()
			if n := f.count(&f.live); n != 0 {
				t.Errorf("%d calls are open at the daemon, want none", n)
			}
		}
		if n := f.count(&f.streams); n != 3 {
			t.Errorf("%d streams, want one for each time of use: 3", n)
		}
	})
}

func TestApplyWhenTheDaemonDies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		defer f.hold()()
		p := f.pool(t)
		r := ApplyAsync(t.Context(), p, double, 1)
		synctest.Wait()
		f.server.Stop()
		if _, err := r.Get(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("error is %v, want ErrUnavailable", err)
		}
		if _, err := Apply(t.Context(), p, double, 1); !errors.Is(err, ErrUnavailable) {
			t.Errorf("error of the next is %v, want ErrUnavailable", err)
		}
	})
}

func TestApplyStreamThatEndsTooEarly(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.work = func(grpc.ServerStream, *wire.CallRequest) error { return nil }
	if _, err := Apply(t.Context(), f.pool(t), double, 1); !errors.Is(err, ErrProtocol) {
		t.Errorf("error is %v, want ErrProtocol", err)
	}
}

func TestApplyOutput(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.work = func(stream grpc.ServerStream, r *wire.CallRequest) error {
		for id := uint64(0); ; {
			for range r.Items.Len() {
				if err := stream.SendMsg(&wire.CallResponse{Outputs: []*pb.TaskOutput{
					{Index: id, Attempt: 1, Stream: 1, Data: fmt.Append(nil, "task ", id)}}}); err != nil {
					return err
				}
				if err := answer(stream, id, "1"); err != nil {
					return err
				}
				id++
			}
			*r = wire.CallRequest{}
			if err := f.recv(stream, r); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	p := f.pool(t)
	for i := range 3 {
		var got strings.Builder
		_, err := Apply(t.Context(), p, double, 1, TaskOutput(func(_, _, _ int, data []byte) { got.Write(data) }))
		if want := fmt.Sprint("task ", i); err != nil || got.String() != want {
			t.Errorf("output is %q, error %v; want %q", got.String(), err, want)
		}
	}
	if n := f.count(&f.streams); n != 1 {
		t.Errorf("%d streams, want one", n)
	}
}
