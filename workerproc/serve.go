package workerproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
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
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(16<<20), grpc.WithDisableRetry(),
		experimental.WithBufferPool(wire.Buffers))
	if err != nil {
		return err
	}
	if s.fatal == nil { // else the end of the process closes it, with less ado
		defer conn.Close()
	}
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
	if p := registry.pipe; p != nil {
		err = protect(func() error { return p.Start(ctx, func() { s.stop(nil) }) })
	}
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
	for received := 0; ; {
		if err := s.stream.RecvMsg(m); err != nil {
			return err
		}
		if s.fatal != nil && ballast == nil && received >= ballastFrom { // this is a process of its own, and busy
			ballast = makeBallast()
		}
		s.mu.Lock()
		for i := range m.Chunks {
			received += m.Chunks[i].Items.Total()
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

// ballast keeps the collector from running for every few megabytes that pass through. What lives in a worker is two megabytes; as Go collects when
// as much again has come, it would be at it all the time. Nobody writes to the ballast, so that it takes address space and no memory. What is set about
// the collector ($GOGC, debug.SetGCPercent) holds as ever.
var ballast []byte

const (
	ballastSize = 8 << 20
	ballastFrom = 1 << 20 // bytes of items: making it starts the collector, which a worker with little to do is to be spared
)

// makeBallast is the ballast; it is short where the program has a limit of its memory, which would count it.
func makeBallast() []byte {
	if debug.SetMemoryLimit(-1) < math.MaxInt64 {
		return make([]byte, 1)
	}
	return make([]byte, ballastSize)
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

func sdkName() string {
	return "procpool-go " + runtime.Version()
}

func validUTF8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
