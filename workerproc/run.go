package workerproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync/atomic"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"google.golang.org/protobuf/proto"
)

// crash is a function that did not return: it panicked or called runtime.Goexit.
type crash struct{ kind, message, stack string }

func (c *crash) Error() string { return c.message }

// Stack is where it happened.
func (c *crash) Stack() string { return c.stack }

// run runs tasks until there are no more to come, then closes ran. A function that calls runtime.Goexit takes the goroutine with it;
// then another one goes on with t.
func (s *session) run(life context.Context, t *task, ran chan<- struct{}) {
	done := false
	defer func() {
		if !done {
			go s.run(life, t, ran)
		}
	}()
	for !done {
		done = s.runTasks(life, t)
	}
	s.goodbye()
	close(ran)
}

// task is the task in hand of the runner.
type task struct {
	chunk   *chunk
	offset  int
	arg     []byte
	ctx     context.Context    //nolint:containedctx // the task in hand has one, as a request has
	own     *taskContext       // what the function gets
	cancel  context.CancelFunc // of ctx, if the task has a timeout
	started bool               // the function has been called and has not returned
	ended   bool               // there is an outcome that has not been recorded
	result  []byte
	failed  error
	failure *pb.TaskFailure // failed, for the daemon
	scratch []byte          // for results, used again and again

	// Reading the clock takes as long as a small task. So it is read after every stride tasks, and stride grows while tasks are tiny.
	began  time.Time // the last reading; zero: it must be read, because time has passed without a task
	unread int       // tasks since
	stride int
}

// A stride grows up to strideMost while its tasks together take less than strideTime.
const (
	strideMost = 16
	strideTime = 20 * time.Microsecond
)

// runTasks runs tasks. It returns true when there will be no more, false when one of them has crashed: guarding each of them
// alone against that would cost as much as a small task.
func (s *session) runTasks(life context.Context, t *task) (done bool) {
	defer func() {
		if !t.started {
			return
		}
		c := &crash{kind: "goexit", message: "the function called runtime.Goexit"}
		if r := recover(); r != nil {
			c.kind, c.message = "panic", fmt.Sprint(r)
		}
		c.stack = string(debug.Stack())
		t.failed, t.started, t.ended = c, false, true
	}()
	for s.next(life, t) {
		c := t.chunk
		if t.began.IsZero() {
			t.began, t.unread = time.Now(), 0
		}
		if s.progress != nil {
			s.progress.begin(c.ID, t.offset, t.began)
		}
		if c.fn == nil {
			t.failed = fmt.Errorf("this worker has no function number %d", c.Function)
		} else {
			t.started = true
			t.result, t.failed = c.fn.run(t.own, t.arg, t.scratch[:0])
			t.started = false
		}
		t.ended = true
	}
	return true
}

// next hands the outcome of the task in hand over and finds the next task. False: there will be none.
func (s *session) next(life context.Context, t *task) bool {
	if t.ended {
		if limit := s.welcome.ResultLimit; t.failed == nil && uint64(len(t.result)) > limit {
			t.failed = fmt.Errorf("the result has %d bytes; at most %d are allowed", len(t.result), limit)
		}
		t.explain()
		if t.cancel != nil {
			defer t.cancel()
			t.cancel = nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.ended {
		t.ended = false
		s.current.chunk = nil
		s.keep(t, t.clock(len(s.out.results) == 0))
	}
	for {
		for len(s.queue) == 0 && !s.stopping {
			t.began = time.Time{}
			s.work.Wait()
		}
		if s.stopping {
			return false
		}
		c := s.queue[0]
		if c.next >= c.end {
			c.stop(nil)
			s.queue[0] = nil
			s.queue = s.queue[1:]
			continue
		}
		c.items.Next()
		t.chunk, t.offset, t.arg = c, c.next, c.items.Item()
		c.next++
		if c.cancel != nil && c.cancel[t.offset] {
			t.failed = errCancelled
			t.explain()
			s.keep(t, 0)
			continue
		}
		if c.ctx == nil { // the last one was cancelled
			c.newContext(life)
		}
		s.current = running{chunk: c, offset: t.offset}
		t.enter(s)
		return true
	}
}

// keep records an outcome. If the progress record has no room for it, it waits until the daemon has it. mu is held.
func (s *session) keep(t *task, ran time.Duration) {
	if s.record(t, ran) {
		return
	}
	for !s.broken && (len(s.out.results) > 0 || len(s.marks) > 0) {
		s.work.Wait()
	}
	t.began = time.Time{}
}

// explain puts the task's error into the words of the protocol. It calls methods of the function's error, so no lock is held.
func (t *task) explain() {
	t.failure = nil
	if t.failed != nil {
		t.failure = &pb.TaskFailure{Offset: uint32(t.offset), Outcome: outcomeOf(t), Error: taskError(t.failed)}
	}
}

// enter makes the contexts of the task. Tasks of a chunk share one, unless each has a timeout of its own.
func (t *task) enter(s *session) {
	c := t.chunk
	if c.TaskTimeoutNS > 0 {
		t.stride = 1 // the daemon goes by the time in the progress record
		t.ctx, t.cancel = context.WithTimeoutCause(c.ctx, time.Duration(c.TaskTimeoutNS), errTimeout)
		t.own = nil
	} else if t.ctx != c.ctx {
		t.ctx = c.ctx
		t.own = nil
	}
	if t.own == nil {
		t.own = &taskContext{Context: t.ctx, session: s, chunk: c}
	}
	t.own.offset.Store(int32(t.offset))
}

// cancelCurrent ends the context of the task in hand. mu is held.
func (s *session) cancelCurrent(cause error) {
	if c := s.current.chunk; c != nil && c.ctx != nil {
		c.stop(cause)
		c.ctx = nil // the next task gets another one
	}
}

// clock is how long the tasks since the last reading have run, at the end of a stride; else 0. The first result of a message always
// comes with a reading. So a slow task ends a stride of tiny ones: their results have been sent meanwhile.
func (t *task) clock(first bool) (ran time.Duration) {
	if t.unread++; t.unread < t.stride && t.offset+1 < t.chunk.end && !first {
		return 0
	}
	now := time.Now()
	ran = now.Sub(t.began)
	switch {
	case ran > strideTime*time.Duration(t.unread)/time.Duration(t.stride):
		t.stride = 1
	case t.unread == t.stride:
		t.stride = min(2*t.stride, strideMost)
	}
	t.began, t.unread = now, 0
	return ran
}

// record adds an outcome to what waits for the sender. It reports false if the progress record has no room for it. mu is held.
func (s *session) record(t *task, ran time.Duration) (kept bool) {
	c, o := t.chunk, &s.out
	kept = true
	n := len(o.results)
	failure := t.failure
	large := failure == nil && len(t.result) >= largeResult
	if n == 0 || large || o.results[n-1].Chunk != c.ID || len(o.results[n-1].Values.Data) >= largeResult {
		o.results = append(o.results, wire.ChunkResults{Chunk: c.ID, First: uint32(t.offset)})
		n++
		if !large { // the next message will be about as long as the last one, if the chunk goes on for so long
			rest := 2 * (c.end - t.offset) * len(t.result)
			o.results[n-1].Values.Data = make([]byte, 0, max(len(t.result), min(o.last, rest, largeResult)))
		}
	}
	r := &o.results[n-1]
	r.RunNS += uint64(ran)
	switch {
	case failure != nil:
		r.Failures = append(r.Failures, failure)
		o.bytes += len(failure.Error.Message) + len(failure.Error.Stack) + len(failure.Error.Detail)
	case large: // not copied: it is the function's last word on this memory
		r.Values.Data = t.result
		r.Values.Added(len(t.result))
		t.scratch = nil
	default:
		r.Values.Append(t.result)
		t.scratch = t.result[:0]
	}
	o.bytes += len(t.result)

	if s.progress != nil {
		kind, b := uint32(recordValue), t.result
		if failure != nil {
			kind = recordFailure
			b, _ = proto.Marshal(failure) // generated code encodes what it has just been given
		}
		kept = s.progress.store(c.ID, t.offset, kind, b, ran)
		o.pos = s.progress.written
		// A message that the runner waits for asks by itself: an earlier question is answered for an earlier message.
		if !kept || (s.progress.pressing() && !s.asked) {
			s.asked = true
			s.say(func(h *pb.AttachRequest) { h.AckWanted = true })
		}
	}
	switch {
	case len(s.queue) == 1 && c.next >= c.end, o.bytes >= enough, !kept:
		s.flush() // nothing follows soon, or there is enough
	case n == 1 && r.Len() == 1:
		o.timer.Reset(linger)
	}
	return kept
}

// largeResult is the size, in bytes, from which a result is not copied.
const largeResult = 32 << 10

// outcomeOf says why a task failed. It asks nothing of the function's error, whose methods may panic.
func outcomeOf(t *task) pb.Outcome {
	if t.failed == errCancelled { //nolint:errorlint // the function's error may have methods that panic
		return pb.Outcome_OUTCOME_CANCELLED
	}
	if _, crashed := t.failed.(*crash); crashed || t.ctx == nil { //nolint:errorlint // as above
		return pb.Outcome_OUTCOME_TASK_ERROR
	}
	switch cause := context.Cause(t.ctx); {
	case errors.Is(cause, context.Canceled):
		return pb.Outcome_OUTCOME_CANCELLED
	case errors.Is(cause, errTimeout), errors.Is(cause, context.DeadlineExceeded):
		return pb.Outcome_OUTCOME_TIMEOUT
	default:
		return pb.Outcome_OUTCOME_TASK_ERROR
	}
}

// goodbye gives back what has not been started and ends the worker's half of the conversation.
func (s *session) goodbye() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.progress != nil {
		s.progress.idle()
	}
	if s.broken {
		return
	}
	for _, c := range s.queue {
		if c.next < c.end {
			s.giveBack(c, c.next)
		}
	}
	s.say(func(h *pb.AttachRequest) { h.Goodbye = &pb.Goodbye{} })
	s.out.ended = true
	s.wakeSender()
}

// taskContext is the context of a task. It knows which task that is.
type taskContext struct {
	context.Context //nolint:containedctx // it is a context
	session         *session
	chunk           *chunk
	offset          atomic.Int32 // of the task in hand
}

type taskKey struct{}

func (t *taskContext) Value(key any) any {
	if key == (taskKey{}) {
		return t
	}
	return t.Context.Value(key)
}

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
	return Info{Worker: t.session.boot.Worker, Attempt: int(t.chunk.Attempt)}, true
}

// Output is a stream on which a function sends output while it runs, for callers that have asked for it (client.TaskOutput): 1 for stdout, 2
// for stderr, others as you like. What is written arrives in order and before the task's outcome. Write blocks while 256 KiB are on their way,
// and fails when ctx ends or the task has ended. In a context that is not a task's, Write throws everything away.
func Output(ctx context.Context, stream int) io.Writer {
	t, ok := ctx.Value(taskKey{}).(*taskContext)
	if !ok {
		return io.Discard
	}
	return &taskWriter{task: t, offset: uint32(t.offset.Load()), ctx: ctx, stream: uint32(stream)}
}

type taskWriter struct {
	task   *taskContext
	offset uint32
	ctx    context.Context //nolint:containedctx // of the task, whose part the writer is
	stream uint32
}

// maxOutput is the largest piece of output in a message, in bytes.
const maxOutput = 64 << 10

func (w *taskWriter) Write(b []byte) (n int, err error) {
	s := w.task.session
	for n < len(b) {
		s.mu.Lock()
		if s.current != (running{w.task.chunk, int(w.offset)}) {
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
			h.Outputs = append(h.Outputs, &pb.TaskOutput{Chunk: w.task.chunk.ID, Offset: w.offset, Stream: w.stream, Data: data})
		})
		s.mu.Unlock()
		n += len(piece)
	}
	return n, nil
}
