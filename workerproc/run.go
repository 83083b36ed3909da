package workerproc

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
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
	if registry.pipe != nil {
		s.progress.idle()
		registry.pipe.Close()
	}
	s.goodbye()
	close(ran)
}

// task is what the runner works on: a run of tasks of a chunk, which it has claimed and runs without asking for each.
type task struct {
	chunk   *chunk
	offset  int          // of the task in hand
	end     int          // of what is claimed
	own     *taskContext // what the functions get
	started bool         // the function has been called and has not returned
	ended   bool         // the task in hand has an outcome that has not been recorded
	result  []byte
	failed  error
	failure *pb.TaskFailure // failed, for the daemon
	encoded []byte          // failure, for the progress record

	// A claim has up to stride tasks. It grows while tasks are tiny.
	stride int
	small  bool      // the results of the last one were
	args   any       // memory for the arguments of a claim, of the function's type
	began  time.Time // when the claim began; zero: the clock must be read, because time has passed without a task
	first  int       // its first task
}

// A stride grows up to strideMost while its tasks together take less than strideTime.
const (
	strideMost = 64
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
	for s.claim(life, t) {
		if registry.pipe != nil {
			s.runPipe(t)
		} else {
			s.runClaim(t)
		}
	}
	return true
}

// runClaim runs the tasks of a claim, until one of them has an outcome that takes more than to note its result, or somebody holds
// the runner.
func (s *session) runClaim(t *task) {
	c, w := t.chunk, s.progress
	if c.fn == nil {
		c.items.Next()
		t.failed, t.ended = fmt.Errorf("this worker has no function number %d", c.Function), true
		return
	}
	if w.run.sizes != nil {
		c.fn.runSmall(s, t)
		return
	}
	c.items.Next()
	run, limit, own := c.fn.run, s.welcome.ResultLimit, t.own
	t.small = limit >= smallResult
	for {
		room := w.room()
		t.started = true
		result, err := run(own, c.items.Item(), room)
		t.started = false
		if err != nil || uint64(len(result)) > limit || !w.commit(t.offset, room, result) {
			t.result, t.failed, t.ended = result, err, true
			t.small = t.small && len(result) < smallResult
			return
		}
		t.small = t.small && len(result) < smallResult
		t.offset++
		if t.offset == t.end {
			return
		}
		w.begin(t.offset)
		if s.held.Load() { // then this task has not been started; see hold
			return
		}
		c.items.Next()
	}
}

// claim accounts for the last claim and makes the next one. False: there will be none.
func (s *session) claim(life context.Context, t *task) bool {
	if t.ended {
		s.judge(t)
	}
	if t.own != nil && !t.own.timeout.IsZero() {
		t.own.end(nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.chunk != nil {
		s.settle(t)
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
			s.dequeue()
			continue
		}
		t.chunk, t.first, t.offset, t.end = c, c.next, c.next, min(c.next+t.stride, c.end)
		if t.began.IsZero() {
			t.began = time.Now()
		}
		if c.TaskTimeoutNS > 0 || c.cancel != nil { // the daemon goes by the time in the progress record
			t.end = t.offset + 1
		}
		if registry.pipe != nil { // which claims more as it goes
			t.end = t.offset + 1
		}
		if c.cancel[t.offset] {
			c.items.Next()
			t.failed, t.ended = errCancelled, true
			t.explain()
			s.settle(t)
			continue
		}
		if c.ctx == nil && registry.pipe == nil {
			c.ctx = &taskContext{session: s, life: life, chunk: c.ID, attempt: c.Attempt, deadline: c.DeadlineUnixNS}
			if c.TaskTimeoutNS > 0 {
				c.ctx.timeout = t.began.Add(time.Duration(c.TaskTimeoutNS))
			}
		}
		t.own = c.ctx
		s.progress.enter(c.ID, t.began)
		if n := t.end - t.offset; n > 1 && t.small {
			s.progress.open(t.offset, n)
		}
		s.progress.begin(t.offset)
		s.held.Store(false)
		s.current, s.first, c.next = c, t.first, t.end
		if t.end > t.offset+1 {
			s.out.lingers(c, t.began)
		}
		return true
	}
}

// dequeue ends the first chunk, whose tasks have been run or given back. mu is held.
func (s *session) dequeue() {
	c := s.queue[0]
	s.queue[0] = nil
	s.queue = s.queue[1:]
	if c.ctx != nil {
		c.ctx.end(nil)
	}
	*c = chunk{}
	if len(s.spare) < maxSpare {
		s.spare = append(s.spare, c)
	}
}

// maxSpare is how many chunks are kept to be used again.
const maxSpare = 1024

// hold has the runner come back for the lock after the task in hand, and returns the place of that task in s.current, which must not be nil.
// The runner first says which task it begins, and then looks whether it is held. So it has begun the task in hand, or will ask before
// it does; and it begins no other. mu is held.
func (s *session) hold() int {
	s.held.Store(true)
	hand := s.progress.inHand()
	if registry.pipe == nil { // a pipe has taken what is claimed, or is about to
		s.current.next = hand + 1
	}
	return hand
}

// cancelCurrent ends the context of the task in hand. mu is held.
func (s *session) cancelCurrent(cause error) {
	c := s.current
	if c == nil {
		return
	}
	s.hold() // the context is not that of the next task
	if c.ctx != nil {
		c.ctx.end(cause)
		c.ctx = nil // the next task gets another one
	}
}

// settle accounts for what the runner has done since its last claim. Its tasks before the one in hand have been recorded. That one has an
// outcome, which is recorded here; or it has not been started. mu is held.
func (s *session) settle(t *task) {
	c, w, o := t.chunk, s.progress, &s.out
	w.close()
	o.recorded += uint64(t.offset - t.first)
	s.current = nil
	if c.TaskTimeoutNS > 0 {
		c.ctx = nil
	}
	if t.ended {
		t.ended = false
		s.record(t)
		t.offset++
	}
	c.next = t.offset
	if registry.pipe != nil {
		c.next = max(t.offset, t.end)
	}
	o.ran(c.ID, t.clock(t.offset-t.first))
	o.written = w.written

	alone := o.alone != nil
	switch {
	case o.recorded == o.taken && !alone:
	case alone, len(s.queue) == 1 && t.offset >= c.end, w.written-o.read.pos >= enough:
		s.flush() // nothing follows soon, or there is enough
	default:
		o.lingers(c, t.began)
	}
	// A message that the runner waits for asks by itself: an earlier question is answered for an earlier message.
	if s.shared && (alone || w.pressing() && !s.asked) {
		s.asked = true
		s.say(func(h *pb.AttachRequest) { h.AckWanted = true })
	}
	for alone && !s.broken && (o.alone != nil || s.shared && len(s.marks) > 0) { // until it has been sent, and the daemon has it
		t.began = time.Time{}
		s.work.Wait()
	}
}

// record notes the outcome of the task in hand. If the progress record has no room for it, it is sent alone. mu is held.
func (s *session) record(t *task) {
	w, id, o := s.progress, t.chunk.ID, &s.out
	switch {
	case t.failure != nil && w.store(id, t.offset, recordFailure, t.encoded):
		o.failures = append(o.failures, t.failure)
		o.recorded++
	case t.failure != nil:
		o.alone = &wire.ChunkResults{Chunk: id, First: uint32(t.offset), Failures: []*pb.TaskFailure{t.failure}}
	case w.store(id, t.offset, recordValue, t.result):
		o.recorded++
	default:
		o.alone = &wire.ChunkResults{Chunk: id, First: uint32(t.offset)}
		o.alone.Values.Data = t.result // not copied: it is the function's last word on this memory
		o.alone.Values.Added(len(t.result))
	}
	t.result = nil
}

// clock is how long the last n tasks have run together.
func (t *task) clock(n int) time.Duration {
	now := time.Now()
	ran := now.Sub(t.began)
	t.began = now
	switch {
	case n > 0 && ran > strideTime*time.Duration(n)/time.Duration(t.stride):
		t.stride = max(1, t.stride/4)
	case n == t.stride:
		t.stride = min(2*t.stride, strideMost)
	}
	return ran
}

// explain puts the task's error into the words of the protocol. It calls methods of the function's error, so no lock is held.
func (t *task) explain() {
	t.failure = nil
	if t.failed != nil {
		t.failure = &pb.TaskFailure{Offset: uint32(t.offset), Outcome: outcomeOf(t), Error: taskError(t.failed)}
		t.encoded, _ = proto.Marshal(t.failure) // generated code encodes what it has just been given
	}
}

// outcomeOf says why a task failed. It asks nothing of the function's error, whose methods may panic.
func outcomeOf(t *task) pb.Outcome {
	if t.failed == errCancelled { //nolint:errorlint // the function's error may have methods that panic
		return pb.Outcome_OUTCOME_CANCELLED
	}
	if t.failed == errTimeout { //nolint:errorlint // as above
		return pb.Outcome_OUTCOME_TIMEOUT
	}
	if _, crashed := t.failed.(*crash); crashed || t.own == nil { //nolint:errorlint // as above
		return pb.Outcome_OUTCOME_TASK_ERROR
	}
	switch cause := context.Cause(t.own); {
	case errors.Is(cause, context.Canceled):
		return pb.Outcome_OUTCOME_CANCELLED
	case errors.Is(cause, errTimeout), errors.Is(cause, context.DeadlineExceeded):
		return pb.Outcome_OUTCOME_TIMEOUT
	default:
		return pb.Outcome_OUTCOME_TASK_ERROR
	}
}

// judge makes an outcome of the end of the task in hand, in the words of the protocol.
func (s *session) judge(t *task) {
	if limit := s.welcome.ResultLimit; t.failed == nil && uint64(len(t.result)) > limit {
		t.failed = fmt.Errorf("the result has %d bytes; at most %d are allowed", len(t.result), limit)
	}
	t.explain()
}

// goodbye gives back what has not been started and ends the worker's half of the conversation.
func (s *session) goodbye() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress.idle()
	if s.broken {
		return
	}
	for _, c := range s.queue {
		if c.next < c.end {
			s.giveBack(c, c.next)
		}
	}
	s.queue = nil // a revoke that comes now is for nothing that is held
	s.say(func(h *pb.AttachRequest) { h.Goodbye = &pb.Goodbye{} })
	s.out.ended = true
	s.wakeSender()
}
