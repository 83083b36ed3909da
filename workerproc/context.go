package workerproc

import (
	"context"
	"io"
	"sync"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// taskContext is the context of the tasks of a chunk, or of one task that has a timeout. It knows whose it is. Most functions never look at
// their context, so what it takes to wait for its end is made only when somebody wants to.
type taskContext struct {
	session  *session
	life     context.Context //nolint:containedctx // its parent
	chunk    uint64
	attempt  uint32
	deadline int64     // of the call, in nanoseconds since 1970; 0: none
	timeout  time.Time // of the task; zero: none

	mu     sync.Mutex
	made   context.Context //nolint:containedctx // what it is made of, if it has been
	stop   func(cause error)
	ended  bool
	reason error // why, if not because the task has ended
}

// end ends the context.
func (t *taskContext) end(cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.ended, t.reason = true, cause
	}
	if t.stop != nil {
		t.stop(t.reason)
	}
}

// make is the context that this one stands for.
func (t *taskContext) make() context.Context {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.made != nil {
		return t.made
	}
	ctx, stop := context.WithCancelCause(t.life)
	t.made, t.stop = ctx, stop
	if t.deadline != 0 {
		t.within(time.Unix(0, t.deadline), nil)
	}
	if !t.timeout.IsZero() {
		t.within(t.timeout, errTimeout)
	}
	if t.ended {
		t.stop(t.reason)
	}
	return t.made
}

// within ends the context at a time, because of cause. mu is held.
func (t *taskContext) within(end time.Time, cause error) {
	ctx, cancel := context.WithDeadlineCause(t.made, end, cause)
	stop := t.stop
	t.made, t.stop = ctx, func(cause error) { stop(cause); cancel() }
}

// Deadline is the earlier of the task's and the call's.
func (t *taskContext) Deadline() (time.Time, bool) {
	end, ok := t.timeout, !t.timeout.IsZero()
	if d := time.Unix(0, t.deadline); t.deadline != 0 && (!ok || d.Before(end)) {
		end, ok = d, true
	}
	return end, ok
}

// Done is closed when the task must not go on.
func (t *taskContext) Done() <-chan struct{} { return t.make().Done() }

// Err says whether it must not.
func (t *taskContext) Err() error { return t.make().Err() }

// Value finds the task itself, for TaskInfo and Output.
func (t *taskContext) Value(key any) any {
	if key == (taskKey{}) {
		return t
	}
	return t.make().Value(key)
}

type taskKey struct{}

// Info is what a function may know about the task that it runs.
type Info struct {
	Worker  string // "POOL-NUMBER"
	Attempt int    // from 1
}

// TaskInfo tells about the task that ctx belongs to. False if ctx is not that of a task.
func TaskInfo(ctx context.Context) (Info, bool) {
	t, ok := ctx.Value(taskKey{}).(*taskContext)
	if !ok {
		return Info{}, false
	}
	return Info{Worker: t.session.boot.Worker, Attempt: int(t.attempt)}, true
}

// Output is a stream on which a function sends output while it runs, for callers that have asked for it (client.TaskOutput): 1 for stdout, 2
// for stderr, others as you like. What is written arrives in order and before the task's outcome. Write blocks while 256 KiB are on their way,
// and fails when ctx ends or the task has ended. In a context that is not a task's, Write throws everything away.
func Output(ctx context.Context, stream int) io.Writer {
	t, ok := ctx.Value(taskKey{}).(*taskContext)
	if !ok {
		return io.Discard
	}
	return &taskWriter{task: t, offset: t.session.progress.inHand(), ctx: ctx, stream: uint32(stream)}
}

type taskWriter struct {
	task   *taskContext
	offset int
	ctx    context.Context //nolint:containedctx // of the task, whose part the writer is
	stream uint32
}

// maxOutput is the largest piece of output in a message, in bytes.
const maxOutput = 64 << 10

func (w *taskWriter) Write(b []byte) (n int, err error) {
	s := w.task.session
	for n < len(b) {
		s.mu.Lock()
		if s.current == nil || s.current.ID != w.task.chunk || s.progress.inHand() != w.offset {
			s.mu.Unlock()
			return n, errEnded
		}
		if s.credit <= 0 {
			room := s.room
			s.mu.Unlock()
			select {
			case <-room:
				continue
			case <-w.ctx.Done():
				return n, context.Cause(w.ctx)
			}
		}
		piece := b[n:min(n+maxOutput, n+s.credit, len(b))]
		s.credit -= len(piece)
		data := append([]byte(nil), piece...)
		s.say(func(h *pb.AttachRequest) {
			h.Outputs = append(h.Outputs, &pb.TaskOutput{Chunk: w.task.chunk, Offset: uint32(w.offset), Stream: w.stream, Data: data})
		})
		s.mu.Unlock()
		n += len(piece)
	}
	return n, nil
}
