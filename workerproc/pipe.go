package workerproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// A Pipe is a function that takes items ahead, because somebody else works on them: a process behind a pipe, say. It begins the next ones while the
// first has no result yet, and so pays for the way there and back once for many. It gets one item after the other and gives their outcomes in
// the same order. The oldest one without an outcome is the task in hand: a timeout counts from when it became that, and should the process
// die, it is the one to blame; those behind it run elsewhere.
//
// A Pipe does not see when a task is cancelled: it goes on, and the daemon ends the worker after the cancel grace. An item that it has not
// taken is never begun then.
type Pipe interface {
	// Start is called before the first task. A worker whose pipe does not start does not start. The worker ends when leave has been called, after the
	// items that have been taken.
	Start(ctx context.Context, leave func()) error
	// Run answers tasks of one chunk. It returns nil when every item that it has taken has its outcome. Anything else is the outcome of the task in hand,
	// and the end of the worker: what else it had taken runs elsewhere.
	Run(f *Feed) error
	// Close is called after the last task, before the worker ends.
	Close()
}

// MainPipe is Main for a worker that offers p, under name, and nothing else. The encoding of its items and results is named "json", "bytes" or as its
// callers know it. In any other process it returns at once.
func MainPipe(name, encoding string, p Pipe) {
	called.Store(true)
	if os.Getenv(mark) != markValue {
		return
	}
	registry.Lock()
	registry.functions = []*registered{{Function: &pb.Function{Name: name, Encoding: encoding}}}
	registry.pipe, registry.init = p, nil
	registry.Unlock()
	Main()
}

// Feed is where a Pipe gets the items of a chunk and leaves their outcomes. It belongs to the goroutine that runs Pipe.Run, until that returns.
type Feed struct {
	s     *session
	t     *task
	taken int // place of the next item to be taken; the oldest is t.offset, and up to t.end they are claimed
	since time.Time
	of    int // the place of the task that is the oldest since then
}

// Claim accounts for the outcomes so far, and says how many items may be taken now: at most so many, none when the chunk or the worker's life is at
// its end. Call it also before waiting for answers: outcomes are on their way only after it.
func (f *Feed) Claim(most int) int {
	s, t := f.s, f.t
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(t)
	for c := t.chunk; t.end-f.taken < most && !s.stopping && c.next < c.end && !c.cancel[c.next]; {
		c.next++
		t.end++
	}
	f.resume()
	return t.end - f.taken
}

// Take is the next item, of those that have been claimed. It must not be changed, and not be kept after its outcome.
func (f *Feed) Take() []byte {
	if f.taken >= f.t.end {
		panic(fmt.Sprintf("Feed.Take: all %d items have been taken", f.taken))
	}
	if f.taken == f.t.offset {
		f.s.progress.begin(f.taken)
	}
	f.taken++
	items := &f.t.chunk.items
	items.Next()
	return items.Item()
}

// Waiting is how many items have been taken and have no outcome.
func (f *Feed) Waiting() int { return f.taken - f.t.offset }

// Abandon says that no item that has been taken and has no outcome has been begun by anybody. They run elsewhere, and the worker ends: Run must return nil.
func (f *Feed) Abandon() {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.taken = f.t.offset
	f.s.stopping = true
}

// Limit is when the task in hand runs into its timeout; zero if it has none.
func (f *Feed) Limit() time.Time {
	if d := f.t.chunk.TaskTimeoutNS; d > 0 {
		return f.since.Add(time.Duration(d))
	}
	return time.Time{}
}

// Room is where the result of the task in hand should be appended to. It has no length.
func (f *Feed) Room() []byte { return f.s.progress.room() }

// Result is the result of the task in hand: what came of appending to Room. It must not be changed any more.
func (f *Feed) Result(b []byte) {
	t, w := f.t, f.s.progress
	f.expectTask()
	if uint64(len(b)) > f.s.welcome.ResultLimit || !w.commit(t.offset, w.room(), b) {
		t.result, t.failed = b, nil
		f.end()
		return
	}
	t.offset++
	if t.offset < f.taken {
		w.begin(t.offset)
	}
}

// ResultLimit is the size of the largest result that is allowed, in bytes.
func (f *Feed) ResultLimit() int { return int(f.s.welcome.ResultLimit) }

// Fail is the other outcome of the task in hand.
func (f *Feed) Fail(err error) {
	f.expectTask()
	f.t.result, f.t.failed = nil, err
	f.end()
}

func (f *Feed) expectTask() {
	if f.Waiting() <= 0 {
		panic(fmt.Sprintf("Feed: an outcome for task %d of the chunk, which has not been taken", f.t.offset))
	}
}

// end records an outcome that takes more than to note its result.
func (f *Feed) end() {
	f.t.ended = true
	f.s.judge(f.t)
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.s.settle(f.t)
	f.resume()
}

// resume notes which task is in hand, if there is one. mu is held.
func (f *Feed) resume() {
	s, t := f.s, f.t
	t.first = t.offset
	if t.offset == t.end {
		return
	}
	if t.began.IsZero() {
		t.began = time.Now()
	}
	if f.of != t.offset {
		f.of, f.since = t.offset, t.began
	}
	s.progress.enter(t.chunk.ID, f.since)
	s.progress.begin(t.offset)
	s.held.Store(false)
	s.current, s.first = t.chunk, t.first
}

// runPipe has the pipe answer the chunk whose first task has been claimed.
func (s *session) runPipe(t *task) {
	f := &Feed{s: s, t: t, taken: t.offset, of: t.offset, since: t.began}
	err := registry.pipe.Run(f)
	if err == nil && f.Waiting() > 0 {
		err = errors.New("the pipe has left the task without an outcome")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.end, t.chunk.next = f.taken, f.taken
	if err == nil {
		return
	}
	s.stopping = true
	if f.Waiting() == 0 {
		fmt.Fprintln(os.Stderr, "procpool worker:", err) // there is no task whose outcome it could be
		return
	}
	t.result, t.failed, t.ended = nil, err, true
	if limit := f.Limit(); !limit.IsZero() && !time.Now().Before(limit) {
		t.failed = errTimeout
	}
	t.end = t.offset + 1
	t.chunk.next = t.end // what is behind it is given back
}
