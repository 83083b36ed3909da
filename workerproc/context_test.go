package workerproc

import (
	"context"
	"errors"
	"testing"
	"time"
)

func newTaskContext(life context.Context, timeout time.Time, deadline int64) *taskContext {
	return &taskContext{life: life, timeout: timeout, deadline: deadline}
}

func TestAContextThatEndsBeforeAnybodyLooksHasItsCause(t *testing.T) {
	t.Parallel()
	c := newTaskContext(t.Context(), time.Time{}, 0)
	c.end(errCancelled)
	c.end(nil) // only the first end counts
	<-c.Done()
	if !errors.Is(c.Err(), context.Canceled) || context.Cause(c) != errCancelled { //nolint:errorlint // this very one
		t.Errorf("got %v because of %v, want canceled because of %v", c.Err(), context.Cause(c), errCancelled)
	}
}

func TestChildrenOfAContextEndWithIt(t *testing.T) {
	t.Parallel()
	life, end := context.WithCancelCause(t.Context())
	ended, lost := newTaskContext(life, time.Time{}, 0), newTaskContext(life, time.Time{}, 0)
	for _, c := range []struct {
		own  *taskContext
		end  func()
		want error
	}{{ended, func() { ended.end(errCancelled) }, errCancelled}, {lost, func() { end(errLost) }, errLost}} {
		child, cancel := context.WithCancel(c.own)
		defer cancel()
		if child.Err() != nil {
			t.Fatalf("the child has ended before its parent: %v", child.Err())
		}
		c.end()
		<-child.Done()
		if got := context.Cause(child); !errors.Is(got, c.want) {
			t.Errorf("the child ended because of %v, want %v", got, c.want)
		}
	}
}

func TestTheEarlierDeadlineCounts(t *testing.T) {
	t.Parallel()
	now := time.Now()
	soon, late := now.Add(time.Millisecond), now.Add(time.Hour)
	for name, c := range map[string]struct {
		ctx  *taskContext
		want error
	}{
		"the task's": {newTaskContext(t.Context(), soon, late.UnixNano()), errTimeout},
		"the call's": {newTaskContext(t.Context(), late, soon.UnixNano()), context.DeadlineExceeded},
	} {
		if at, ok := c.ctx.Deadline(); !ok || at.Sub(now) > time.Second {
			t.Errorf("%s: the deadline is %v, %v; want %v", name, at, ok, soon)
		}
		<-c.ctx.Done()
		if got := context.Cause(c.ctx); !errors.Is(got, c.want) {
			t.Errorf("%s: it ended because of %v, want %v", name, got, c.want)
		}
	}
	if _, ok := newTaskContext(t.Context(), time.Time{}, 0).Deadline(); ok {
		t.Error("a task without limits has a deadline")
	}
}
