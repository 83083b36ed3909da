package client

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestResultLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		release := f.hold()
		p := f.pool(t)
		r := MapAsync(t.Context(), p, double, numbers(3))
		if _, err := r.Successful(); r.Ready() || !errors.Is(err, ErrNotReady) {
			t.Errorf("ready: %v, successful: %v; want false, ErrNotReady", r.Ready(), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Get(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("get with timeout: %v, want DeadlineExceeded", err)
		}
		if err := r.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait with timeout: %v, want DeadlineExceeded", err)
		}
		release()
		<-r.Done()
		for range 2 {
			if got, err := r.Get(ctx); err != nil || len(got) != 3 { // a result that is there needs no waiting
				t.Errorf("got %v, %v", got, err)
			}
		}
		if ok, err := r.Successful(); !ok || err != nil || !r.Ready() {
			t.Errorf("successful: %v, %v; ready: %v; want true, nil, true", ok, err, r.Ready())
		}
	})
}

func TestCallbacksRunOneAtATimeAfterTheResult(t *testing.T) {
	t.Parallel()
	p := newFake(t).pool(t)
	running := 0 // not guarded: the race detector sees two at a time
	all := make(chan struct{}, 300)
	for i := range 100 {
		r := ApplyAsync(t.Context(), p, odd, i)
		r.OnSuccess(func(v int) {
			running++
			if v != i || i%2 == 0 || !r.Ready() {
				t.Errorf("OnSuccess of %d with %d, ready: %v", i, v, r.Ready())
			}
			all <- struct{}{}
		})
		r.OnError(func(err error) {
			running++
			if i%2 == 1 || !errors.Is(err, ErrTask) {
				t.Errorf("OnError of %d with %v", i, err)
			}
			all <- struct{}{}
		})
	}
	for range 100 {
		<-all
	}
	if running != 100 {
		t.Errorf("%d callbacks, want 100", running)
	}
}

func TestCallbackMayDoAnything(t *testing.T) {
	t.Parallel()
	var logged strings.Builder
	f := newFake(t)
	p, err := f.client(t, Logger(slog.New(slog.NewTextHandler(&logged, nil)))).Pool(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	r := MapAsync(t.Context(), p, double, numbers(10))
	done := make(chan error, 1)
	r.OnSuccess(func([]int) { panic("boom") })
	r.OnSuccess(func([]int) { runtime.Goexit() })
	r.OnSuccess(func([]int) {
		_, err := Map(t.Context(), p, double, numbers(10)) // it may use the pool
		done <- err
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !strings.Contains(logged.String(), "panic=boom") {
		t.Errorf("the log says %q, want the panic", logged.String())
	}
	r.OnError(func(error) { t.Error("OnError of a result without error") })
	r.OnSuccess(func([]int) { done <- p.Terminate() }) // it may end the pool; and it is called although the result was ready
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := Map(t.Context(), p, double, numbers(1)); !errors.Is(err, ErrPoolTerminated) {
		t.Errorf("map on a terminated pool: %v, want ErrPoolTerminated", err)
	}
}

func TestEmptyMapAsyncCallsBack(t *testing.T) {
	t.Parallel()
	done := make(chan []int)
	MapAsync(t.Context(), newFake(t).pool(t), double, nil).OnSuccess(func(v []int) { done <- v })
	if got := <-done; len(got) != 0 {
		t.Errorf("got %v, want nothing", got)
	}
}
