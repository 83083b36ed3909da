package workerproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// session is a worker's life on its stream. Three goroutines share it: the receiver takes messages in, the runner runs tasks, the sender
// sends whatever is ready whenever the stream can take it.
type session struct {
	boot     *pb.Bootstrap
	progress *progressWriter // of the runner
	shared   bool            // progress is shared with the daemon
	fatal    func()          // what to do when the daemon is gone; nil: just return
	stream   grpc.BidiStreamingClient[pb.AttachRequest, pb.AttachResponse]
	welcome  *pb.Welcome

	mu       sync.Mutex
	work     sync.Cond     // the runner waits here: for chunks, for an acknowledgement, for its end
	held     atomic.Bool   // the runner must come back for the lock after the task in hand; see hold
	queue    []*chunk      // received, not ended
	spare    []*chunk      // to be used again
	current  *chunk        // the runner has a claim on tasks of this one, which is the first; nil: it has none
	first    int           // the first task of the claim
	stopping bool          // no task is started any more
	broken   bool          // the stream is gone
	out      outgoing      // for the sender
	marks    []ackMark     // results sent and not acknowledged, oldest first
	asked    bool          // an acknowledgement has been asked for
	credit   int           // bytes of task output that may be sent
	room     chan struct{} // closed when there is output credit again
}

// chunk is a wire.Chunk on its way.
type chunk struct {
	wire.Chunk
	fn     *registered
	items  wire.Items
	n      int // tasks; those from end on have been given back
	end    int
	next   int          // first task that has not been claimed
	cancel map[int]bool // tasks that must not be started
	ctx    *taskContext // of its tasks; nil once it is done, for the next one to make another
}

// outgoing is what waits for the sender: a head, and outcomes in the progress record.
type outgoing struct {
	head     *pb.AttachRequest
	read     progressReader
	recorded uint64              // outcomes in the record up to the runner's last claim…
	written  uint64              // …and where it stood
	taken    uint64              // outcomes sent
	failures []*pb.TaskFailure   // those of the outcomes that are failures, so that they need not be decoded
	runs     []run               // run times, by chunk
	alone    *wire.ChunkResults  // an outcome for which there is no room in the record, after all others
	spare    []wire.ChunkResults // of the last message, which the sender has cleared
	ready    bool                // there is something that must not wait
	ended    bool                // nothing more will come
	awake    chan struct{}       // one slot
	timer    *time.Timer         // for outcomes that may wait a little
	armed    bool
}

// run is how long tasks of a chunk have run.
type run struct {
	chunk uint64
	ran   time.Duration
}

// ackMark is where the progress record stood when results were sent.
type ackMark struct {
	chunk uint64
	tasks uint32
	pos   uint64
}

// linger is how long a result may wait for others.
const linger = 300 * time.Microsecond

// enough is the size of results in the progress record, in bytes, that need not wait for more.
const enough = 128 << 10

// largeResult is the size, in bytes, from which a result is sent from where it is, and not copied.
const largeResult = 32 << 10

// privateSize is the size of a progress record that is not shared with the daemon: such a worker has one task at a time.
const privateSize = 64 << 10

var (
	errTimeout   = errors.New("the task ran into its timeout")
	errCancelled = fmt.Errorf("the task was cancelled (%w)", context.Canceled)
	errStopped   = fmt.Errorf("the worker was told to end (%w)", context.Canceled)
	errLost      = errors.New("the daemon is gone")
	errEnded     = errors.New("the task has ended")
)

func newSession(boot *pb.Bootstrap) *session {
	s := &session{boot: boot, room: make(chan struct{})}
	s.work.L = &s.mu
	s.out.awake = make(chan struct{}, 1)
	s.out.timer = time.AfterFunc(time.Hour, s.lingered)
	s.out.timer.Stop()
	return s
}

// share has the session keep its progress record in mem, where the daemon can read it.
func (s *session) share(mem []byte) { s.progress, s.shared = newProgressWriter(mem), true }

// initError is an init function that failed.
type initError struct{ err error }

func (e *initError) Error() string { return "the init function failed: " + e.err.Error() }

// exitStatus is the exit status of a worker process that has served.
func (s *session) exitStatus(err error) int {
	var failedInit *initError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &failedInit):
		fmt.Fprintln(os.Stderr, "procpool worker:", err)
		return 1
	case errors.Is(err, errLost) && s.fatal != nil:
		time.AfterFunc(lostGrace, s.fatal) // in case nobody reads what is written here
		fmt.Fprintln(os.Stderr, "procpool worker:", err)
		s.fatal()
	}
	fmt.Fprintln(os.Stderr, "procpool worker:", err)
	return ExitConfig
}

// serve is the whole conversation. It returns nil after a stop; ctx is SIGTERM.
func (s *session) serve(ctx context.Context) error {
	if !s.shared {
		s.progress = newProgressWriter(make([]byte, privateSize))
	}
	conn, err := grpc.NewClient("unix:"+s.boot.Socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", s.boot.Socket)
		}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec{}), grpc.MaxCallRecvMsgSize(wire.MaxMessage), grpc.MaxCallSendMsgSize(wire.MaxMessage)),
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(16<<20), grpc.WithDisableRetry())
	if err != nil {
		return err
	}
	defer conn.Close()
	life, end := context.WithCancelCause(context.Background())
	defer end(nil)
	unwatch := context.AfterFunc(ctx, func() { end(errStopped) }) // nobody else ends a wait for welcome
	defer func() { unwatch() }()
	if s.stream, err = pb.NewWorkerServiceClient(conn).Attach(life); err != nil {
		return fmt.Errorf("attach to %s: %w", s.boot.Socket, err)
	}
	if err := s.hello(); err != nil {
		return err
	}
	unwatch()
	if err := s.initialise(ctx); err != nil {
		return err
	}

	received := make(chan error, 1)
	go func() { received <- s.receive() }() // ends when the stream does
	sent := make(chan struct{})
	go func() { defer close(sent); s.send() }() // ends when out.ended or the stream breaks
	ran := make(chan struct{})
	go s.run(life, &task{stride: 1}, ran) // ends when stopping or broken
	unwatch = context.AfterFunc(ctx, func() { s.stop(errStopped) })

	err = <-received
	s.mu.Lock()
	if s.out.ended { // the runner has said goodbye, though it may not have closed ran yet
		s.mu.Unlock()
		<-ran
		<-sent
		return nil
	}
	// The stream is gone before its time.
	s.broken, s.stopping, s.out.ended = true, true, true
	if s.current != nil {
		s.hold()
	}
	s.mu.Unlock()
	s.work.Broadcast()
	s.wakeSender()
	end(errLost)
	<-sent
	select {
	case <-ran:
	case <-time.After(lostGrace):
	}
	return fmt.Errorf("%w: %w", errLost, err)
}

// hello introduces the worker and waits for the answer.
func (s *session) hello() error {
	h := &pb.Hello{
		Token: s.boot.Token, Generation: s.boot.Generation, ProtocolMin: ProtocolMin, ProtocolMax: ProtocolMax,
		CreditTasks: 1, CreditBytes: creditBytes, Sdk: sdkName(),
	}
	if s.shared {
		h.Features, h.CreditTasks = []string{FeatureProgress}, creditTasks
	}
	for _, f := range registry.functions {
		h.Functions = append(h.Functions, f.Function)
	}
	if err := s.stream.SendMsg(&wire.AttachRequest{Head: &pb.AttachRequest{Hello: h}}); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: say hello: %w", errLost, err)
	}
	m := &wire.AttachResponse{}
	if err := s.stream.RecvMsg(m); err != nil {
		return fmt.Errorf("%w: wait for welcome: %w", errLost, err)
	}
	switch {
	case m.Head.GetRefused() != nil:
		return errors.New(m.Head.Refused.Message)
	case m.Head.GetWelcome() == nil:
		return errors.New("the daemon answered hello with neither welcome nor refused")
	}
	s.welcome = m.Head.Welcome
	if s.welcome.ResultLimit == 0 || s.welcome.ResultLimit > wire.MaxItem {
		s.welcome.ResultLimit = wire.MaxItem
	}
	s.credit = int(s.welcome.OutputCredit)
	return nil
}

// initialise runs the init function and says whether it succeeded.
func (s *session) initialise(ctx context.Context) error {
	ready := &pb.Ready{}
	var err error
	if registry.init != nil {
		err = protect(func() error { return registry.init(ctx, s.welcome.InitArgument) })
	}
	if err != nil {
		ready.Error = taskError(err)
	}
	if serr := s.stream.SendMsg(&wire.AttachRequest{Head: &pb.AttachRequest{Ready: ready}}); serr != nil {
		return fmt.Errorf("%w: say ready: %w", errLost, serr)
	}
	if err != nil {
		_ = s.stream.CloseSend()                              // its errors are the receiver's
		for s.stream.RecvMsg(&wire.AttachResponse{}) == nil { // until the daemon has read it
		}
		return &initError{err}
	}
	return nil
}

// protect runs f in a goroutine of its own and makes an error of a panic and of Goexit.
func protect(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := error(&crash{kind: "goexit", message: "the init function called runtime.Goexit"})
		defer func() {
			if r := recover(); r != nil {
				err = &crash{kind: "panic", message: fmt.Sprint(r), stack: string(debug.Stack())}
			}
			done <- err
		}()
		err = f()
	}()
	return <-done
}

// receive takes the daemon's messages in, until there are no more.
func (s *session) receive() error {
	m := &wire.AttachResponse{}
	for {
		if err := s.stream.RecvMsg(m); err != nil {
			return err
		}
		s.mu.Lock()
		for i := range m.Chunks {
			s.add(&m.Chunks[i])
		}
		if h := m.Head; h != nil {
			s.hear(h)
		}
		s.mu.Unlock()
		s.work.Signal()
		if m.Head.GetStop() != nil {
			s.stop(nil)
		}
	}
}

// add queues a chunk. mu is held.
func (s *session) add(w *wire.Chunk) {
	c := new(chunk)
	if n := len(s.spare); n > 0 {
		c, s.spare = s.spare[n-1], s.spare[:n-1]
	}
	c.Chunk, c.n = *w, w.Items.Len()
	c.end = c.n
	c.items = c.Items.Items()
	if int(c.Function) < len(registry.functions) {
		c.fn = registry.functions[c.Function]
	}
	if s.stopping {
		s.giveBack(c, 0)
		return
	}
	s.queue = append(s.queue, c)
}

// hear takes in what a message says besides work. mu is held.
func (s *session) hear(h *pb.AttachResponse) {
	if h.Ack != nil {
		s.acknowledged(h.Ack)
	}
	for _, x := range h.Cancels {
		s.cancelTask(x.Chunk, int(x.Offset))
	}
	for _, r := range h.Revokes {
		s.revoke(r.Chunk, int(r.From))
	}
	if h.OutputCredit > 0 {
		s.credit += int(h.OutputCredit)
		close(s.room)
		s.room = make(chan struct{})
	}
}

func (s *session) find(id uint64) *chunk {
	for _, c := range s.queue {
		if c.ID == id {
			return c
		}
	}
	return nil
}

// acknowledged frees what the daemon has taken over. Chunks run in the order of their numbers, so an acknowledgement covers all smaller
// ones. mu is held, which the runner also holds when it stores results.
func (s *session) acknowledged(a *pb.Ack) {
	for len(s.marks) > 0 {
		m := s.marks[0]
		if m.chunk > a.Chunk || m.chunk == a.Chunk && m.tasks > a.Tasks {
			return
		}
		s.progress.free(m.pos)
		s.marks = s.marks[1:]
		s.asked = false
	}
}

// cancelTask cancels a task. One that has begun, or is about to, is the one in hand.
func (s *session) cancelTask(id uint64, offset int) {
	c := s.find(id)
	if c == nil {
		return
	}
	from := c.next
	if c == s.current {
		if from = s.hold(); from == offset {
			s.cancelCurrent(errCancelled)
		}
	}
	if offset >= from {
		if c.cancel == nil {
			c.cancel = make(map[int]bool)
		}
		c.cancel[offset] = true
	}
}

// revoke gives back what has not been started of a chunk. There is always an answer.
func (s *session) revoke(id uint64, from int) {
	c := s.find(id)
	if c == nil {
		s.say(func(h *pb.AttachRequest) {
			h.Returned = append(h.Returned, &pb.Returned{Chunk: id, From: math.MaxUint32})
		})
		return
	}
	s.giveBack(c, from)
}

// giveBack says which tasks of c will not be run: those from place from on that have not been started. mu is held.
func (s *session) giveBack(c *chunk, from int) {
	if c == s.current && from < c.next {
		s.hold()
	}
	from = min(max(from, c.next), c.end)
	answer := from
	if from == c.end {
		answer = c.n
	}
	c.end = from
	s.say(func(h *pb.AttachRequest) {
		h.Returned = append(h.Returned, &pb.Returned{Chunk: c.ID, From: uint32(answer)})
	})
}

// stop has the runner end after the task in hand. With a cause, that task is cancelled.
func (s *session) stop(cause error) {
	s.mu.Lock()
	s.stopping = true
	if s.current != nil {
		s.hold()
	}
	if cause != nil {
		s.cancelCurrent(cause)
	}
	s.mu.Unlock()
	s.work.Signal()
}

// say changes the head of the next message. mu is held.
func (s *session) say(f func(*pb.AttachRequest)) {
	if s.out.head == nil {
		s.out.head = &pb.AttachRequest{}
	}
	f(s.out.head)
	s.flush()
}

// flush has the sender send. mu is held.
func (s *session) flush() {
	s.out.ready = true
	s.wakeSender()
}

// lingers sees to it that what there is is sent after a while. mu is held.
func (o *outgoing) lingers() {
	if !o.armed {
		o.armed = true
		o.timer.Reset(linger)
	}
}

// lingered is the end of the while. A claim that has gone on for so long had better end.
func (s *session) lingered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.armed = false
	if s.current != nil {
		s.hold()
	}
	s.flush()
}

// ran takes note of how long tasks have run. mu is held.
func (o *outgoing) ran(chunk uint64, d time.Duration) {
	if n := len(o.runs); n > 0 && o.runs[n-1].chunk == chunk {
		o.runs[n-1].ran += d
		return
	}
	o.runs = append(o.runs, run{chunk, d})
}

func (s *session) wakeSender() {
	select {
	case s.out.awake <- struct{}{}:
	default:
	}
}

// send sends whatever is ready, until there is nothing more to come.
func (s *session) send() {
	defer s.out.timer.Stop()
	for {
		m, ended := s.takeOut()
		if m == nil && ended {
			_ = s.stream.CloseSend() // its errors are the receiver's
			return
		}
		if m == nil {
			<-s.out.awake
			continue
		}
		if err := s.stream.SendMsg(m); err != nil {
			return // the receiver sees why
		}
		clear(m.Results)
	}
}

// takeOut is the next message; nil if there is nothing to send now.
func (s *session) takeOut() (m *wire.AttachRequest, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.out
	if o.head == nil && !o.ready {
		return nil, o.ended
	}
	o.ready = false
	m = &wire.AttachRequest{Head: o.head, Results: s.collect()}
	o.head = nil
	if n := len(m.Results); n > 0 {
		last := &m.Results[n-1]
		s.marks = append(s.marks, ackMark{last.Chunk, last.First + uint32(last.Len()), o.read.pos})
	} else if m.Head == nil {
		return nil, o.ended
	}
	return m, false
}

// collect takes the outcomes that are there out of the progress record: those up to the runner's last claim, and those of the tasks of the
// claim that it has passed. mu is held.
func (s *session) collect() []wire.ChunkResults {
	o, w := &s.out, s.progress
	n := o.recorded - o.taken
	if s.current != nil {
		n += uint64(w.inHand() - s.first)
	}
	results := o.spare[:0]
	var free []byte // for values, one after the other
	for range n {
		chunk, offset, kind, b := o.read.next(w)
		if cap(free) == 0 && len(b) < largeResult {
			free = make([]byte, 0, max(64, len(b), min(int(o.written-o.read.pos), largeResult)))
		}
		last := len(results) - 1
		if last < 0 || results[last].Chunk != chunk || len(b) >= largeResult || len(results[last].Values.Data) >= largeResult {
			if last >= 0 && cap(results[last].Values.Data) == cap(free) { // else it has outgrown it, and left it
				used := len(results[last].Values.Data)
				free = free[used:used]
			}
			results = append(results, wire.ChunkResults{Chunk: chunk, First: uint32(offset), Values: wire.Batch{Data: free}})
			last++
		}
		r := &results[last]
		switch {
		case kind == recordFailure:
			r.Failures = append(r.Failures, o.failures[0])
			o.failures = o.failures[1:]
		case len(b) >= largeResult: // from the record: it stays there until it has been acknowledged
			r.Values.Data = b
			r.Values.Added(len(b))
		default:
			r.Values.Append(b)
		}
	}
	o.taken += n
	if o.alone != nil {
		results = append(results, *o.alone)
		o.alone = nil
		s.work.Signal()
	}
	for i := range results { // chunks run in the order of their numbers
		r := &results[i]
		for ; len(o.runs) > 0 && o.runs[0].chunk <= r.Chunk; o.runs = o.runs[1:] {
			if o.runs[0].chunk == r.Chunk {
				r.RunNS += uint64(o.runs[0].ran)
			}
		}
	}
	o.spare = results
	return results
}

func sdkName() string {
	var b strings.Builder
	b.WriteString("procpool-go")
	if info, ok := debug.ReadBuildInfo(); ok {
		fmt.Fprintf(&b, " %s", info.GoVersion)
	}
	return b.String()
}

func validUTF8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
