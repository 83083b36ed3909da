package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
)

const (
	applyIdle       = time.Second          // an unused stream is ended after one to two of these: an open call keeps a closed pool from ending
	directBytes     = 16 << 10             // argument that a lone apply sends itself; far below what makes gRPC block
	cancelRepeat    = 5 * time.Millisecond // a cancel may overtake its task, so it is repeated after this and twice this and so on
	cancelRepeatMax = 5 * time.Second
	maxPendingBytes = 32 << 20 // that wait to be sent together, whatever the window: it must fit into a message
)

// applyKey says which applies share a stream.
type applyKey struct {
	function string
	encoding string
	callSettings
}

// applyStream is an ApplyAsync call that many applies share. Tasks have the ids 0, 1, 2… in the order in which they are added. A
// goroutine of its own sends what is pending whenever the stream is free, so what comes meanwhile travels together; only a task that is alone
// on the stream is sent by its caller, to whom the hop to that goroutine would be half the time.
type applyStream struct {
	pool   *Pool
	key    applyKey
	callID string
	life   *life
	end    context.CancelCauseFunc            // of its life
	spawn  func(f func(context.Context)) bool // runs f within its life; false if the client is closed
	done   chan struct{}                      // closed when no more outcomes will come

	mu        sync.Mutex
	work      sync.Cond // the sender waits here
	stream    grpc.ClientStream
	pending   wire.Batch // not sent yet
	last      measure
	nextID    uint64
	tasks     map[uint64]pendingTask // without outcome
	bytes     int                    // of their arguments
	space     chan struct{}          // closed when there is room again; nil when nobody waits
	sending   bool                   // somebody is in SendMsg
	finishing bool                   // takes no more tasks
	ended     bool                   // no more outcomes will come
	groups    map[<-chan struct{}]*taskGroup
	cancels   bool   // cancelTasks runs
	idleID    uint64 // nextID at the last look of idle
	idleTimer *time.Timer
}

type pendingTask struct {
	completer
	size      int
	group     *taskGroup // nil if its context cannot end
	cancelled bool       // its result is there; only the place in the window is still taken
}

// taskGroup is tasks that end with one context: one registration there serves all of them.
type taskGroup struct {
	tasks int
	done  <-chan struct{}
	stop  func() bool
}

var errFinished = fmt.Errorf("%w: stream of applies has ended", ErrProtocol)

// applyStream is the stream for these applies; a new one if there is none, or if it takes no more.
func (p *Pool) applyStream(key applyKey) (*applyStream, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refusal != nil {
		return nil, p.refusal
	}
	if s := p.applies[key]; s != nil {
		return s, nil
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	l := p.newLife(cancel)
	s := &applyStream{
		pool:   p,
		life:   l,
		key:    key,
		callID: newCallID(),
		end:    cancel,
		done:   make(chan struct{}),
		tasks:  map[uint64]pendingTask{},
		groups: map[<-chan struct{}]*taskGroup{},
	}
	s.work.L = &s.mu
	s.spawn = func(f func(context.Context)) bool { return p.client.start(func() { f(ctx) }) }
	s.mu.Lock()
	s.idleTimer = time.AfterFunc(applyIdle, s.idle)
	s.mu.Unlock()
	if !p.client.start(func() { s.run(ctx) }) {
		s.idleTimer.Stop()
		cancel(nil)
		return nil, ErrClosed
	}
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		s.idleTimer.Stop()
		s.mu.Unlock()
		p.mu.Lock()
		delete(p.calls, l)
		p.mu.Unlock()
	})
	p.calls[l] = struct{}{}
	p.applies[key] = s
	return s, nil
}

func newCallID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

func (s *applyStream) what() string {
	return fmt.Sprintf("apply %s on pool %q", s.key.function, s.pool.name)
}

// add gives the stream a task. The error is errFinished, or why the task cannot be done.
func (s *applyStream) add(ctx context.Context, item []byte, task completer) error {
	s.mu.Lock()
	for !s.finishing && !s.room(len(item)) {
		if err := s.waitForRoom(ctx); err != nil {
			s.mu.Unlock()
			return err
		}
	}
	if s.finishing {
		s.mu.Unlock()
		return errFinished
	}
	if ctx.Err() != nil { // its group may have been cancelled already; from here on it has not
		s.mu.Unlock()
		return fmt.Errorf("%s: %w", s.what(), contextError(ctx))
	}
	alone := len(s.tasks) == 0 && s.stream != nil && !s.sending && len(item) <= directBytes
	id := s.nextID
	s.nextID++
	s.tasks[id] = pendingTask{completer: task, size: len(item), group: s.join(ctx)}
	s.bytes += len(item)
	if s.pending.Len() == 0 {
		s.pending = newBatch(s.last, min(2*max(s.last.items, 1), maxBatchItems))
	}
	s.pending.Append(item)
	if !alone {
		s.work.Signal()
		s.mu.Unlock()
		return nil
	}
	s.sendPending()
	s.mu.Unlock()
	return nil
}

// room tells whether a task may be added. One that is larger than the window passes alone.
func (s *applyStream) room(size int) bool {
	if len(s.tasks) == 0 {
		return true
	}
	return len(s.tasks) < s.key.windowItems && s.bytes+size <= s.key.windowBytes &&
		(s.pending.Len() == 0 || len(s.pending.Data)+size <= maxPendingBytes)
}

// waitForRoom waits, without the lock, until something has changed.
func (s *applyStream) waitForRoom(ctx context.Context) error {
	if s.space == nil {
		s.space = make(chan struct{})
	}
	space := s.space
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-space:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", s.what(), contextError(ctx))
	}
}

func (s *applyStream) madeRoom() {
	if s.space != nil {
		close(s.space)
		s.space = nil
	}
}

// sendPending sends what is pending, without the lock meanwhile. s.sending must be false.
func (s *applyStream) sendPending() {
	m := &wire.CallRequest{Items: s.pending}
	s.last, s.pending = measureOf(&s.pending), wire.Batch{}
	s.sending = true
	s.madeRoom()
	s.mu.Unlock()
	err := s.stream.SendMsg(m)
	s.mu.Lock()
	s.sending = false
	if err != nil {
		s.forget()
		s.finishing = true // receive knows why
	}
	if s.pending.Len() > 0 || s.finishing {
		s.work.Signal()
	}
}

// run is the stream's life.
func (s *applyStream) run(ctx context.Context) {
	defer s.end(nil)
	stream, err := s.pool.client.dataRPC.ApplyAsync(ctx)
	if err == nil {
		settings := s.key.request(s.pool.name, s.key.function, s.callID)
		err = stream.SendMsg(&wire.CallRequest{Settings: settings})
		if errors.Is(err, io.EOF) { // why, is what receiving says
			err = stream.RecvMsg(new(wire.CallResponse))
		}
	}
	if err != nil {
		s.over(rpcError(ctx, err, "%s", s.what()))
		return
	}
	if !s.spawn(func(ctx context.Context) { finally(func() error { return s.receive(ctx, stream) }, s.over) }) {
		s.over(ErrClosed)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stream = stream
	for {
		for s.sending || (s.pending.Len() == 0 && !s.finishing) {
			s.work.Wait()
		}
		if s.pending.Len() == 0 || s.ended {
			break
		}
		s.sendPending()
	}
	s.mu.Unlock()
	_ = stream.CloseSend() // its errors are receive's
	<-s.done
	s.mu.Lock()
}

// receive takes outcomes until the stream ends.
func (s *applyStream) receive(ctx context.Context, stream grpc.ClientStream) error {
	type ended struct {
		completer
		value    []byte
		attempts int
	}
	var good []ended
	defer func() {
		for i := range good {
			if t := good[i].completer; t != nil { // its decoder has ended the goroutine
				t.fail(newPanicError(nil))
			}
		}
	}()
	for {
		var r wire.CallResponse
		if err := stream.RecvMsg(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return rpcError(ctx, err, "%s", s.what())
		}
		if err := checkAccepted(r.Accepted, s.key.function, s.key.encoding); err != nil {
			return err
		}
		if r.Accepted.GetInputEnded() {
			s.life.keep()
		}
		s.outputs(r.Outputs)
		good = good[:0]
		s.mu.Lock()
		for i := range r.Results {
			res := &r.Results[i]
			it := res.Values.Items()
			for k := uint64(0); it.Next(); k++ {
				id := res.First + k
				if res.Indexes != nil {
					id = res.Indexes[k]
				}
				if t, ok := s.remove(id); ok && !t.cancelled {
					good = append(good, ended{t.completer, it.Item(), attempts(res)})
				}
			}
		}
		bad := make([]pendingTask, len(r.Failures))
		for i, f := range r.Failures {
			bad[i], _ = s.remove(f.GetIndex())
		}
		s.madeRoom()
		s.mu.Unlock()
		for i, t := range bad {
			if t.completer != nil && !t.cancelled {
				t.fail(newTaskError(r.Failures[i], 0, s.key.function))
			}
		}
		for i := range good {
			good[i].completer.value(good[i].value, good[i].attempts)
			good[i] = ended{} // the result is its owner's
		}
	}
}

// outputs hands on what tasks have written.
func (s *applyStream) outputs(list []*pb.TaskOutput) {
	for _, o := range list {
		s.mu.Lock()
		t, ok := s.tasks[o.GetIndex()]
		s.mu.Unlock()
		if ok && !t.cancelled && t.output() != nil {
			f := t.output()
			protect(s.pool.client.log, "TaskOutput", func() { f(0, int(o.GetAttempt()), int(o.GetStream()), o.GetData()) })
		}
	}
}

// remove takes out a task that has its outcome. False for one that had it before.
func (s *applyStream) remove(id uint64) (pendingTask, bool) {
	t, ok := s.tasks[id]
	if !ok {
		return t, false
	}
	delete(s.tasks, id)
	s.bytes -= t.size
	s.leave(t.group)
	return t, true
}

// over ends the stream: whoever still waits has err as the outcome.
func (s *applyStream) over(err error) {
	if err == nil {
		err = fmt.Errorf("%s: %w: the call ended without an outcome for this task", s.what(), ErrProtocol)
	}
	s.forget()
	s.mu.Lock()
	s.finishing, s.ended = true, true
	left := s.tasks
	for id := range left {
		s.leave(left[id].group)
	}
	s.tasks, s.bytes, s.pending = map[uint64]pendingTask{}, 0, wire.Batch{}
	s.madeRoom()
	s.work.Broadcast()
	s.mu.Unlock()
	for _, t := range left {
		if !t.cancelled {
			t.fail(err)
		}
	}
	close(s.done)
	s.life.finish()
	s.end(nil)
}

// finish makes the stream end with the last of its tasks.
func (s *applyStream) finish() {
	s.forget()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finishing = true
	s.madeRoom()
	s.work.Signal()
}

// forget makes room for a successor.
func (s *applyStream) forget() {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if s.pool.applies[s.key] == s {
		delete(s.pool.applies, s.key)
	}
}

// idle finishes a stream that has not been used since it last looked.
func (s *applyStream) idle() {
	s.mu.Lock()
	unused := len(s.tasks) == 0 && s.nextID == s.idleID
	s.idleID = s.nextID
	if !unused && !s.ended {
		s.idleTimer.Reset(applyIdle)
	}
	s.mu.Unlock()
	if unused {
		s.finish()
	}
}

// join makes the task that is being added end with ctx.
func (s *applyStream) join(ctx context.Context) *taskGroup {
	done := ctx.Done()
	if done == nil {
		return nil
	}
	g := s.groups[done]
	if g == nil {
		g = &taskGroup{done: done}
		s.groups[done] = g
		g.stop = context.AfterFunc(ctx, func() { s.cancelGroup(g, fmt.Errorf("%s: %w", s.what(), contextError(ctx))) })
	}
	g.tasks++
	return g
}

func (s *applyStream) leave(g *taskGroup) {
	if g == nil {
		return
	}
	if g.tasks--; g.tasks == 0 {
		g.stop()
		delete(s.groups, g.done)
	}
}

// cancelGroup completes the tasks of g with err and has them cancelled. It looks at all tasks: at most a window of them.
func (s *applyStream) cancelGroup(g *taskGroup, err error) {
	var tasks []completer
	s.mu.Lock()
	for id, t := range s.tasks {
		if t.group == g && !t.cancelled {
			t.cancelled = true
			s.tasks[id] = t
			tasks = append(tasks, t.completer)
		}
	}
	if len(tasks) > 0 && !s.cancels && !s.ended {
		s.cancels = true
		s.spawn(s.cancelTasks)
	}
	s.mu.Unlock()
	for _, t := range tasks {
		t.fail(err)
	}
}

// cancelTasks asks the daemon to cancel until all cancelled tasks have their outcome: a request may arrive before the task it is about.
func (s *applyStream) cancelTasks(ctx context.Context) {
	asked := uint64(0) // highest id asked for, and one
	for pause := cancelRepeat; ; {
		ids := s.cancelled()
		if len(ids) == 0 {
			return
		}
		if top := ids[len(ids)-1] + 1; top > asked {
			asked, pause = top, cancelRepeat
		}
		_ = s.pool.client.Cancel(ctx, s.callID, ids...) // if it fails, the next one may not
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-s.done:
			timer.Stop()
			return
		}
		pause = min(2*pause, cancelRepeatMax)
	}
}

// cancelled lists the tasks to cancel, in order; with none, cancelTasks is over.
func (s *applyStream) cancelled() (ids []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, t := range s.tasks {
		if t.cancelled {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		s.cancels = false
	}
	slices.Sort(ids)
	return ids
}
