package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

func TestTaskErrorSaysWhatAPersonNeeds(t *testing.T) {
	t.Parallel()
	exit := &pb.WorkerExit{Worker: "pool-2", Pid: 4711, Signal: "SIGKILL", Reason: "killed by SIGKILL", CrashReport: []string{"fatal error: x", "more"}}
	for _, test := range []struct {
		failure *pb.Failure
		want    string
		is      []error
	}{
		{&pb.Failure{Index: 3, Outcome: pb.Outcome_OUTCOME_WORKER_LOST, Attempts: 1, Message: "lost", WorkerExit: exit},
			"task 3: worker lost: killed by SIGKILL (pool-2, pid 4711): fatal error: x", []error{ErrWorkerLost}},
		{&pb.Failure{Index: 3, Outcome: pb.Outcome_OUTCOME_WORKER_LOST, Attempts: 3, Message: "lost"},
			"task 3: worker lost: lost (after 3 attempts)", []error{ErrWorkerLost}},
		{&pb.Failure{Index: 4, Outcome: pb.Outcome_OUTCOME_TASK_ERROR, Attempts: 1, TaskError: &pb.TaskError{Type: "*fs.PathError", Message: "open x: no such file"}},
			"task 4: open x: no such file", []error{ErrTask}},
		{&pb.Failure{Index: 4, Outcome: pb.Outcome_OUTCOME_TASK_ERROR, Attempts: 1, TaskError: &pb.TaskError{Type: "panic", Message: "boom"}},
			"task 4: panic: boom", []error{ErrTask}},
		{&pb.Failure{Index: 5, Outcome: pb.Outcome_OUTCOME_TIMEOUT, Attempts: 1, Message: "ran longer than 1s"},
			"task 5: timeout: ran longer than 1s", []error{ErrTimeout, context.DeadlineExceeded}},
		{&pb.Failure{Index: 6, Outcome: pb.Outcome_OUTCOME_CANCELLED, Message: "call cancelled"},
			"task 6: cancelled: call cancelled", []error{ErrCancelled, context.Canceled}},
		{&pb.Failure{Index: 7, Outcome: pb.Outcome_OUTCOME_REJECTED, Message: "daemon is stopping"},
			"task 7: rejected: daemon is stopping", []error{ErrRejected}},
		{&pb.Failure{Index: 8, Outcome: 99, Message: "from the future"}, "task 8: failed: from the future", nil},
	} {
		err := error(newTaskError(test.failure, int(test.failure.Index), ""))
		if err.Error() != test.want {
			t.Errorf("error says %q, want %q", err, test.want)
		}
		for _, target := range []error{ErrTask, ErrTimeout, ErrCancelled, ErrWorkerLost, ErrRejected, context.DeadlineExceeded, context.Canceled} {
			want := slices.Contains(test.is, target)
			if got := errors.Is(err, target); got != want {
				t.Errorf("%q is %q: %v, want %v", err, target, got, want)
			}
		}
	}
}

func TestEveryReasonHasItsError(t *testing.T) {
	t.Parallel()
	for number, name := range pb.Reason_name {
		reason := pb.Reason(number)
		if reason == pb.Reason_REASON_UNSPECIFIED {
			continue
		}
		s, err := status.New(codes.Unknown, "no").WithDetails(&pb.Refusal{Reason: reason})
		if err != nil {
			t.Fatal(err)
		}
		err = fmt.Errorf("do it: %w", refused(s.Err()))
		n := 0
		for _, target := range reasons {
			if errors.Is(err, target) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s is %d of the errors, want one", name, n)
		}
	}
}

func TestStatusOfGRPCItself(t *testing.T) {
	t.Parallel()
	for code, want := range statusCodes {
		if err := refused(status.Error(code, "x")); !errors.Is(err, want) {
			t.Errorf("%v is not %v", code, want)
		}
	}
	if err := refused(status.Error(codes.Internal, "x")); errors.Is(err, ErrUnavailable) || err.Error() != "x" {
		t.Errorf("internal error is %v, want its message", err)
	}
}

func TestContextErrorKeepsTheCause(t *testing.T) {
	t.Parallel()
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := contextError(ctx); !errors.Is(err, why) || !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want both the cause and Canceled", err)
	}
	ctx, cancel = context.WithCancelCause(t.Context())
	cancel(&ending{ErrPoolTerminated})
	if err := contextError(ctx); !errors.Is(err, ErrPoolTerminated) || errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want ErrPoolTerminated alone", err)
	}
}

func TestMappingOfSkippedItems(t *testing.T) {
	t.Parallel()
	var s skips
	var want []uint64 // by the daemon's index
	for i := range uint64(100) {
		if i%7 == 0 || i%10 == 1 {
			s.add(uint64(len(want)))
			continue
		}
		want = append(want, i)
	}
	for index, ours := range want {
		if got := s.now().ours(uint64(index)); got != ours {
			t.Errorf("the daemon's %d is our %d, want %d", index, got, ours)
		}
	}
}

func TestARunOfBitsIsSetOnce(t *testing.T) {
	t.Parallel()
	const size = 300
	for first := range size {
		for _, n := range []int{0, 1, 2, 63, 64, 65, 128, size - first} {
			if first+n > size {
				continue
			}
			b := newBitmap(size)
			if !b.setRun(first, n) {
				t.Fatalf("%d bits from %d on cannot be set in an empty map", n, first)
			}
			for i := range size {
				if want := i >= first && i < first+n; b.has(i) != want {
					t.Fatalf("after setting %d bits from %d on, bit %d is %v", n, first, i, b.has(i))
				}
			}
			if n > 0 && (b.setRun(first+n-1, 1) || b.setRun(0, first+1)) {
				t.Fatalf("bits have been set twice, after %d from %d on", n, first)
			}
			if first > 0 && b.has(first-1) {
				t.Fatalf("a run that was refused has left bit %d", first-1)
			}
		}
	}
}
