package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
)

func TestMapKeepsOrder(t *testing.T) {
	t.Parallel()
	p := newFake(t).pool(t)
	for _, n := range []int{1, 2, 63, 64, 65, 1000, 10_000} {
		got, err := Map(t.Context(), p, double, numbers(n))
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range got {
			if v != 2*i {
				t.Fatalf("result %d of %d is %d, want %d", i, n, v, 2*i)
			}
		}
		if len(got) != n {
			t.Errorf("%d results, want %d", len(got), n)
		}
	}
}

func TestMapRunsEverything(t *testing.T) {
	t.Parallel()
	p := newFake(t).pool(t)
	got, err := Map(t.Context(), p, odd, numbers(1001))
	var e *MapError
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, want a *MapError", err)
	}
	if len(got) != 1001 || e.Failed != 501 || e.Unfinished != 0 || e.Err != nil || len(e.Errors) != 100 {
		t.Fatalf("%d results, %d failed, %d unfinished, %d errors, call error %v; want 1001, 501, 0, 100, nil",
			len(got), e.Failed, e.Unfinished, len(e.Errors), e.Err)
	}
	for i, task := range e.Errors {
		if task.Index != 2*i {
			t.Errorf("error %d is of task %d, want the lowest indexes in order: %d", i, task.Index, 2*i)
		}
	}
	for i, v := range got {
		want, ok := i, i%2 == 1
		if !ok {
			want = 0
		}
		if v != want || e.OK(i) != ok {
			t.Errorf("result %d is %d, OK %v; want %d, %v", i, v, e.OK(i), want, ok)
		}
	}
	if !errors.Is(err, ErrTask) || errors.Is(err, ErrTimeout) {
		t.Errorf("error is ErrTask: %v, ErrTimeout: %v; want true, false", errors.Is(err, ErrTask), errors.Is(err, ErrTimeout))
	}
	if want := "501 of 1001 tasks failed, the first: task 0: 0 is even"; err.Error() != want {
		t.Errorf("error says %q, want %q", err, want)
	}
}

func TestMapStopsOnErrorIfAsked(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	items := numbers(100_000)
	for i := range items {
		items[i] = 2*i + 1
	}
	items[10] = 2
	_, err := Map(t.Context(), f.pool(t), odd, items, StopOnError())
	var e *MapError
	if !errors.As(err, &e) || e.Err == nil || e.Failed != 1 || e.Errors[0].Index != 10 || e.Unfinished == 0 {
		t.Fatalf("error is %#v, want one failed task, number 10, and others unfinished", err)
	}
	if !errors.Is(err, ErrTask) || errors.Is(err, context.Canceled) {
		t.Errorf("error %q is ErrTask: %v, context.Canceled: %v; want true, false", err, errors.Is(err, ErrTask), errors.Is(err, context.Canceled))
	}
	eventually(t, "the daemon's side has ended", func() bool { return f.count(&f.live) == 0 })
}

// picky refuses some arguments.
type picky struct{ Function[int, int] }

func (picky) AppendArg(dst []byte, n int) ([]byte, error) {
	switch n % 1000 {
	case 7:
		return nil, errors.New("seven")
	case 8:
		panic("eight")
	}
	if n == 999 {
		return append(dst, make([]byte, wire.MaxItem+1)...), nil
	}
	return fmt.Append(dst, n), nil
}

func TestMapRejectsItemsThatCannotBeSent(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	got, err := Map(t.Context(), f.pool(t), picky{double}, numbers(3000))
	var e *MapError
	if !errors.As(err, &e) || e.Failed != 7 || e.Unfinished != 0 {
		t.Fatalf("error is %v, want a *MapError with 7 failed tasks", err)
	}
	for i, want := range []int{7, 8, 999, 1007, 1008, 2007, 2008} {
		task := e.Errors[i]
		if task.Index != want || task.Attempts != 0 || !errors.Is(task, ErrRejected) {
			t.Errorf("error %d is %v of task %d, want task %d rejected without attempt", i, task, task.Index, want)
		}
	}
	var p *PanicError
	if !errors.As(e.Errors[1], &p) || p.Value != "eight" {
		t.Errorf("error of task 8 is %v, want the encoder's panic", e.Errors[1])
	}
	if !errors.Is(e.Errors[2], ErrTooLarge) {
		t.Errorf("error of task 999 is %v, want ErrTooLarge", e.Errors[2])
	}
	for i, v := range got {
		if k := i % 1000; k != 7 && k != 8 && i != 999 && v != 2*i {
			t.Fatalf("result %d is %d, want %d: indexes have moved", i, v, 2*i)
		}
	}
	if n := f.count(&f.received); n != 2993 {
		t.Errorf("the daemon got %d items, want 2993", n)
	}
}

// clumsy cannot decode some results.
type clumsy struct{ Function[int, int] }

func (c clumsy) DecodeResult(b []byte) (int, error) {
	switch n, err := c.Function.DecodeResult(b); n {
	case 4:
		return 0, errors.New("four")
	case 6:
		panic("six")
	default:
		return n, err
	}
}

func TestMapSurvivesResultsThatCannotBeDecoded(t *testing.T) {
	t.Parallel()
	got, err := Map(t.Context(), newFake(t).pool(t), clumsy{double}, numbers(10))
	var e *MapError
	if !errors.As(err, &e) || e.Failed != 2 || e.Errors[0].Index != 2 || e.Errors[1].Index != 3 || !errors.Is(e.Errors[0], ErrTask) {
		t.Fatalf("error is %v, want tasks 2 and 3 failed", err)
	}
	if want := []int{0, 2, 0, 0, 8, 10, 12, 14, 16, 18}; !slices.Equal(got, want) {
		t.Errorf("results are %v, want %v", got, want)
	}
}

// shifted is made of another function, all of whose methods it has, and encodes and decodes differently.
type shifted struct{ *remote[int, int] }

func (s shifted) AppendArg(dst []byte, n int) ([]byte, error) { return s.remote.AppendArg(dst, n+1) }

func (s shifted) DecodeResult(b []byte) (int, error) {
	n, err := s.remote.DecodeResult(b)
	return n + 1000, err
}

func TestMapAsksTheFunctionItself(t *testing.T) {
	t.Parallel()
	got, err := Map(t.Context(), newFake(t).pool(t), shifted{double.(*remote[int, int])}, numbers(3))
	if want := []int{1002, 1004, 1006}; err != nil || !slices.Equal(got, want) {
		t.Errorf("results are %v, %v, want %v", got, err, want)
	}
}

func TestMapOfIntegersOfAllLengths(t *testing.T) {
	t.Parallel()
	var items, want []int
	for n := 1; n < math.MaxInt/20; n *= 10 {
		for range 700 { // in several messages, some of them with one length only
			items, want = append(items, n, n, -n), append(want, 2*n, 2*n, -2*n)
		}
	}
	got, err := Map(t.Context(), newFake(t).pool(t), double, items)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("the results of %d integers are wrong, or %v", len(items), err)
	}
}

func TestMapOfNothing(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	p := f.pool(t)
	if got, err := Map(t.Context(), p, double, nil); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v; want an empty result", got, err)
	}
	if n := f.count(&f.streams); n != 0 {
		t.Errorf("%d calls have begun, want none", n)
	}
	f.end("p", pb.PoolState_POOL_STATE_CLOSED)
	if _, err := Map(t.Context(), p, double, nil); !errors.Is(err, ErrPoolClosed) {
		t.Errorf("for a closed pool, error is %v, want ErrPoolClosed", err)
	}
}

func TestMapRefused(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	p := f.pool(t)
	if _, err := Map(t.Context(), p, double, numbers(3), ChunkSize(-1)); !errors.Is(err, ErrBadRequest) {
		t.Errorf("negative chunk size: error is %v, want ErrBadRequest", err)
	}
	if _, err := Map(t.Context(), p, double, numbers(3), RetryOn(ErrCancelled)); !errors.Is(err, ErrBadRequest) {
		t.Errorf("retry of cancelled tasks: error is %v, want ErrBadRequest", err)
	}
	got, err := Map(t.Context(), p, Func[int, int]("triple"), numbers(30_000))
	var refused *RefusedError
	if !errors.Is(err, ErrUnknownFunction) || !errors.As(err, &refused) || !slices.Equal(refused.Known, []string{"double"}) {
		t.Errorf("unknown function: error is %v, want ErrUnknownFunction with a list", err)
	}
	if len(got) != 30_000 {
		t.Errorf("%d results, want as many as items", len(got))
	}
	if want := `map triple on pool "p": no function triple`; err.Error() != want {
		t.Errorf("error says %q, want %q", err, want)
	}
	if _, err := Map(t.Context(), p, Func[int, int]("echo"), numbers(3)); !errors.Is(err, ErrEncoding) {
		t.Errorf("other encoding: error is %v, want ErrEncoding", err)
	}
}

func TestMapSettingsArrive(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	_, err := Map(t.Context(), f.pool(t), double, numbers(3), ChunkSize(7), TaskTimeout(time.Second), QueueTimeout(time.Minute), MaxAttempts(3),
		RetryOn(ErrTask, ErrTimeout), Label("x"), Linger(5*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	s := f.settings[0]
	if s.ChunkSize != 7 || s.TaskTimeout.AsDuration() != time.Second || s.QueueTimeout.AsDuration() != time.Minute || s.MaxAttempts != 3 || s.Linger.AsDuration() != 5*time.Millisecond || s.Label != "x" ||
		!slices.Equal(s.RetryOn, []pb.Outcome{pb.Outcome_OUTCOME_TASK_ERROR, pb.Outcome_OUTCOME_TIMEOUT}) {
		t.Errorf("settings are %v", s)
	}
}

func TestMapCancelReturnsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.work = func(stream grpc.ServerStream, _ *wire.CallRequest) error {
			if err := answer(stream, 1, "2"); err != nil {
				return err
			}
			<-stream.Context().Done()
			return stream.Context().Err() // as the daemon does
		}
		p := f.pool(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		got, err := Map(ctx, p, double, numbers(3))
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("returned after %v, want at the deadline", took)
		}
		var e *MapError
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) || e.Unfinished != 2 || !e.OK(1) || e.OK(0) || got[1] != 2 {
			t.Errorf("got %v, error %v; want the one result there is and DeadlineExceeded", got, err)
		}
	})
}

func TestMapWhenTheDaemonDies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		answered := make(chan struct{})
		f.work = func(stream grpc.ServerStream, _ *wire.CallRequest) error {
			err := answer(stream, 0, "0")
			close(answered)
			<-stream.Context().Done()
			return errors.Join(err, stream.Context().Err())
		}
		p := f.pool(t)
		r := MapAsync(t.Context(), p, double, numbers(100_000))
		<-answered
		synctest.Wait()
		f.server.Stop()
		_, err := r.Get(t.Context())
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "is procpoold running?") {
			t.Errorf("error is %v, want ErrUnavailable with a hint", err)
		}
		if _, err := Map(t.Context(), p, double, numbers(1)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("error of the next call is %v, want ErrUnavailable", err)
		}
	})
}

func TestMapDistrustsTheDaemon(t *testing.T) {
	t.Parallel()
	for name, indexes := range map[string][]uint64{"twice": {0, 0}, "never sent": {3}, "far out": {1 << 63}, "too few": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.work = func(stream grpc.ServerStream, _ *wire.CallRequest) error {
				for _, i := range indexes {
					if err := answer(stream, i, "1"); err != nil {
						return err
					}
				}
				return nil
			}
			if _, err := Map(t.Context(), f.pool(t), double, numbers(3)); !errors.Is(err, ErrProtocol) {
				t.Errorf("error is %v, want ErrProtocol", err)
			}
		})
	}
}

func TestTaskOutputComesBeforeTheOutcome(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.work = func(stream grpc.ServerStream, _ *wire.CallRequest) error {
		r := wire.Results{First: 0}
		r.Values.Append([]byte("1"))
		return stream.SendMsg(&wire.CallResponse{Results: []wire.Results{r}, Outputs: []*pb.TaskOutput{
			{Index: 0, Attempt: 1, Stream: 1, Data: []byte("a")}, {Index: 0, Attempt: 1, Stream: 2, Data: []byte("b")}}})
	}
	var got []string
	output := TaskOutput(func(index, attempt, stream int, data []byte) {
		got = append(got, fmt.Sprintf("%d %d %d %s", index, attempt, stream, data))
		panic("harmless")
	})
	p, err := f.client(t, Logger(slog.New(slog.DiscardHandler))).Pool(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Map(t.Context(), p, double, numbers(1), output); err != nil {
		t.Fatal(err)
	}
	if want := []string{"0 1 1 a", "0 1 2 b"}; !slices.Equal(got, want) {
		t.Errorf("output is %q, want %q", got, want)
	}
}
