package server

import (
	"context"
	"testing"
	"time"

	"github.com/procpool/procpool/server/internal/sched"
)

func TestACallEndsForItsDeadlineOrItsClient(t *testing.T) {
	start := time.Now()
	after := func(d time.Duration) time.Time { return start.Add(d) }
	for _, c := range []struct {
		what     string
		deadline time.Time
		err      error
		now      time.Time
		want     bool
	}{
		{"no deadline", time.Time{}, context.Canceled, after(time.Hour), false},
		{"its handler panicked", after(time.Second), nil, after(2 * time.Second), false},
		{"long before", after(10 * time.Second), context.Canceled, after(9 * time.Second), false},
		{"its client was first to say so", after(10 * time.Second), context.Canceled, after(9950 * time.Millisecond), true},
		{"a short one", after(100 * time.Millisecond), context.Canceled, after(80 * time.Millisecond), false},
		{"the same, and its client was first", after(100 * time.Millisecond), context.Canceled, after(95 * time.Millisecond), true},
		{"the daemon was first", after(time.Second), context.DeadlineExceeded, after(time.Second), true},
	} {
		call := &call{started: start, spec: sched.CallSpec{Deadline: c.deadline}}
		if got := call.overdue(c.err, c.now); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
