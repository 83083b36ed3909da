package workerproc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"google.golang.org/grpc"
)

// detailed is an error with everything that an error may have.
type detailed struct{}

func (detailed) Error() string  { return "it did not work" }
func (detailed) Detail() []byte { return []byte("detail") }
func (detailed) Stack() string  { return "main.go:1" }

// gate holds up the tasks of "gate", one place for each.
var gate = struct{ entered, leave chan int }{make(chan int, 1000), make(chan int, 1000)}

// The functions that the tests' workers offer.
var (
	_ = Func("echo", func(_ context.Context, b []byte) ([]byte, error) { return b, nil })
	_ = Func("add1", func(_ context.Context, n int) (int, error) { return n + 1, nil })
	_ = Func("fail", func(_ context.Context, wrapped bool) (int, error) {
		if wrapped {
			return 0, fmt.Errorf("outside: %w", detailed{})
		}
		return 0, detailed{}
	})
	_ = Func("panic", func(_ context.Context, text string) (int, error) { panic(text) })
	_ = Func("goexit", func(_ context.Context, _ int) (int, error) { runtime.Goexit(); return 0, nil })
	// gate tells that it has begun, and ends when it may or must.
	_ = Func("gate", func(ctx context.Context, n int) (int, error) {
		gate.entered <- n
		select {
		case <-gate.leave:
			return n, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	})
	_ = Func("until done", func(ctx context.Context, _ int) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
	// tells that it has begun, and why it must end.
	_ = Func("tell the cause", func(ctx context.Context, n int) (int, error) {
		gate.entered <- n
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return 0, ctx.Err()
	})
	_ = Func("value though done", func(ctx context.Context, n int) (int, error) { <-ctx.Done(); return n, nil })
	_ = Func("print", func(ctx context.Context, text string) (int, error) {
		n, err := Output(ctx, 1).Write([]byte(text))
		return n, err
	})
	_ = Func("leak a writer", func(ctx context.Context, _ int) (int, error) {
		w := Output(ctx, 2)
		leaked <- w.Write
		return 0, nil
	})
	_ = Func("info", func(ctx context.Context, _ int) (Info, error) {
		info, ok := TaskInfo(ctx)
		if !ok {
			return info, errors.New("no info")
		}
		return info, nil
	})
	_ = Func("die at -1", func(_ context.Context, n int) (int, error) {
		if n == -1 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return n, nil
	})
)

var (
	leaked = make(chan func([]byte) (int, error), 1)
	causes = make(chan error, 1)
)

// place is the function's place in the list of functions.
func place(t testing.TB, name string) uint32 {
	t.Helper()
	for i, f := range registry.functions {
		if f.Name == name {
			return uint32(i)
		}
	}
	t.Fatalf("there is no function %q", name)
	return 0
}

// host is the daemon of these tests: a real gRPC server on a Unix socket. A test speaks for it through its guests.
type host struct {
	pb.UnimplementedWorkerServiceServer
	t       testing.TB
	path    string
	welcome *pb.AttachResponse // set before a worker is started
	guests  chan *guest
	done    chan struct{} // closed at the end of the test
}

func newHost(t testing.TB) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "wp") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	h := &host{
		t: t, path: filepath.Join(dir, "s"), guests: make(chan *guest, 1), done: make(chan struct{}),
		welcome: &pb.AttachResponse{Welcome: &pb.Welcome{Protocol: 1, ResultLimit: 1 << 20, OutputCredit: 256 << 10}},
	}
	l, err := net.Listen("unix", h.path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec{}), grpc.MaxRecvMsgSize(wire.MaxMessage), grpc.MaxSendMsgSize(wire.MaxMessage))
	pb.RegisterWorkerServiceServer(server, h)
	served := make(chan struct{})
	go func() { defer close(served); server.Serve(l) }()
	t.Cleanup(func() {
		close(h.done)
		server.Stop()
		<-served
		os.RemoveAll(dir)
	})
	return h
}

// guest is a worker as its daemon sees it.
type guest struct {
	t      testing.TB
	stream grpc.BidiStreamingServer[pb.AttachRequest, pb.AttachResponse]
	hello  *pb.Hello
	said   chan *wire.AttachRequest // closed at the end of the stream; room for all that a test does not read
	leave  chan struct{}            // closed: the daemon ends the stream
	seen   []outcome                // by tasks
	wanted atomic.Int32             // acknowledgements asked for
	quiet  atomic.Bool              // do not acknowledge

	mu sync.Mutex // held while sending
}

func (h *host) Attach(stream grpc.BidiStreamingServer[pb.AttachRequest, pb.AttachResponse]) error {
	m := &wire.AttachRequest{}
	if err := stream.RecvMsg(m); err != nil {
		return err
	}
	g := &guest{t: h.t, stream: stream, hello: m.Head.GetHello(), said: make(chan *wire.AttachRequest, 1000), leave: make(chan struct{})}
	g.send(&wire.AttachResponse{Head: h.welcome})
	read := make(chan struct{})
	go func() { // ends with the stream
		defer close(read)
		defer close(g.said)
		for {
			m := &wire.AttachRequest{}
			if err := stream.RecvMsg(m); err != nil {
				return
			}
			if m.Head.GetAckWanted() {
				g.wanted.Add(1)
			}
			if n := len(m.Results); n > 0 && m.Head.GetAckWanted() && !g.quiet.Load() {
				last := &m.Results[n-1]
				g.head(&pb.AttachResponse{Ack: &pb.Ack{Chunk: last.Chunk, Tasks: last.First + uint32(last.Len())}})
			}
			select {
			case g.said <- m:
			case <-h.done:
				return
			}
		}
	}()
	h.guests <- g
	select {
	case <-g.leave:
	case <-read:
	case <-h.done:
	}
	return nil
}

func (g *guest) send(m *wire.AttachResponse) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stream.SendMsg(m)
}

func (g *guest) head(h *pb.AttachResponse) { g.send(&wire.AttachResponse{Head: h}) }

// chunk is a chunk of tasks with these arguments.
func (g *guest) chunk(id uint64, function string, args ...string) *wire.Chunk {
	g.t.Helper()
	c := &wire.Chunk{ID: id, Function: place(g.t, function), Attempt: 1}
	for _, a := range args {
		c.Items.Append([]byte(a))
	}
	return c
}

// dispatch sends chunks in one message.
func (g *guest) dispatch(chunks ...*wire.Chunk) {
	m := &wire.AttachResponse{}
	for _, c := range chunks {
		m.Chunks = append(m.Chunks, *c)
	}
	g.send(m)
}

// next is the worker's next message; nil: there are no more.
func (g *guest) next() *wire.AttachRequest {
	g.t.Helper()
	select {
	case m := <-g.said:
		if m != nil {
			g.seen = append(g.seen, outcomes(m.Results)...)
		}
		return m
	case <-time.After(patience):
		g.t.Fatalf("the worker says nothing for %v, after %v", patience, g.seen)
		return nil
	}
}

// until reads on until a message has what is looked for.
func (g *guest) until(what string, is func(*wire.AttachRequest) bool) *wire.AttachRequest {
	g.t.Helper()
	for {
		m := g.next()
		if m == nil {
			g.t.Fatalf("the worker has ended its stream without %s", what)
		}
		if is(m) {
			return m
		}
	}
}

// results reads on until n tasks have been reported, and checks that they are these.
func (g *guest) results(want ...outcome) (failures []*pb.TaskFailure) {
	g.t.Helper()
	from := len(g.seen)
	for len(g.seen) < from+len(want) {
		m := g.next()
		if m == nil {
			g.t.Fatalf("the worker has ended its stream after %v, want %v", g.seen[from:], want)
		}
		for i := range m.Results {
			failures = append(failures, m.Results[i].Failures...)
		}
	}
	if got := g.seen[from:]; !slices.Equal(got, want) {
		g.t.Fatalf("got %v, want %v", got, want)
	}
	return failures
}

func (g *guest) returned(want *pb.Returned) {
	g.t.Helper()
	m := g.until("returning anything", func(m *wire.AttachRequest) bool { return len(m.Head.GetReturned()) > 0 })
	if got := m.Head.Returned; len(got) != 1 || got[0].Chunk != want.Chunk || got[0].From != want.From {
		g.t.Fatalf("got back %v, want %v", got, want)
	}
}

const (
	failed    = pb.Outcome_OUTCOME_TASK_ERROR
	timedOut  = pb.Outcome_OUTCOME_TIMEOUT
	cancelled = pb.Outcome_OUTCOME_CANCELLED
)

// local is a worker of goroutines, with a progress record.
type local struct {
	*guest
	s       *session
	sigterm context.CancelFunc
	served  chan error
}

// join is a worker of this process that is ready.
func (h *host) join() *local {
	h.t.Helper()
	l := &local{s: newSession(&pb.Bootstrap{Socket: h.path, Worker: "p-1", Token: []byte("t"), Generation: 3}), served: make(chan error, 1)}
	l.s.share(make([]byte, ProgressSize))
	ctx, cancel := context.WithCancel(context.Background())
	l.sigterm = cancel
	h.t.Cleanup(cancel)
	go func() { l.served <- l.s.serve(ctx) }()
	select {
	case l.guest = <-h.guests:
	case err := <-l.served:
		h.t.Fatal(err)
	}
	if m := l.next(); m == nil || m.Head.GetReady() == nil || m.Head.Ready.Error != nil {
		h.t.Fatalf("got %+v, want ready", m)
	}
	return l
}

// end waits for the end of serve.
func (l *local) end() error {
	l.t.Helper()
	select {
	case err := <-l.served:
		return err
	case <-time.After(patience):
		l.t.Fatal("serve does not return")
		return nil
	}
}

func TestTasksHaveTheirResultsInOrder(t *testing.T) {
	w := newHost(t).join()
	if h := w.hello; string(h.Token) != "t" || h.Generation != 3 || !slices.Equal(h.Features, []string{FeatureProgress}) || h.CreditTasks != creditTasks {
		t.Errorf("hello is %v", h)
	}
	w.dispatch(w.chunk(1, "add1", "1", "2", "99"), w.chunk(2, "echo", "", "x"), w.chunk(3, "add1", "0"))
	w.results(outcome{1, 0, "2", 0}, outcome{1, 1, "3", 0}, outcome{1, 2, "100", 0}, outcome{2, 0, "", 0}, outcome{2, 1, "x", 0}, outcome{3, 0, "1", 0})
}

func TestErrorsSayEverything(t *testing.T) {
	w := newHost(t).join()
	w.dispatch(w.chunk(1, "fail", "false", "true"), w.chunk(2, "add1", "1"))
	failures := w.results(outcome{1, 0, "", failed}, outcome{1, 1, "", failed}, outcome{2, 0, "2", 0})
	for i, text := range []string{"it did not work", "outside: it did not work"} {
		if e := failures[i].Error; e.Message != text || string(e.Detail) != "detail" || e.Stack != "main.go:1" || e.Type == "" {
			t.Errorf("error %d is %v, want the text %q with detail and stack", i, e, text)
		}
	}
	if got := failures[0].Error.Type; got != "workerproc.detailed" {
		t.Errorf("its type is %q, want workerproc.detailed", got)
	}
}

func TestPanicAndGoexitFailTheirTaskOnly(t *testing.T) {
	w := newHost(t).join()
	w.dispatch(w.chunk(1, "panic", `"oh"`, `"no"`), w.chunk(2, "goexit", "1", "2"), w.chunk(3, "add1", "1"))
	failures := w.results(outcome{1, 0, "", failed}, outcome{1, 1, "", failed}, outcome{2, 0, "", failed}, outcome{2, 1, "", failed}, outcome{3, 0, "2", 0})
	if e := failures[1].Error; e.Type != "panic" || !strings.Contains(e.Message, "no") || !strings.Contains(e.Stack, "serve_test.go") {
		t.Errorf("the panic is reported as %v", e)
	}
	if e := failures[2].Error; e.Type != "goexit" || !strings.Contains(e.Stack, "serve_test.go") {
		t.Errorf("Goexit is reported as %v", e)
	}
}

func TestWhatTheFunctionNeverSeesIsATaskError(t *testing.T) {
	w := newHost(t).join()
	unknown := w.chunk(3, "add1", "1")
	unknown.Function = 1 << 20
	w.dispatch(w.chunk(1, "add1", "seven", "7"), w.chunk(2, "large", strconv.Itoa(1<<20), strconv.Itoa(1<<20+1)), unknown, w.chunk(4, "add1", "1"))
	failures := w.results(outcome{1, 0, "", failed}, outcome{1, 1, "8", 0}, outcome{2, 0, string(make([]byte, 1<<20)), 0}, outcome{2, 1, "", failed},
		outcome{3, 0, "", failed}, outcome{4, 0, "2", 0})
	for i, text := range []string{"decode the argument of add1", "1048577 bytes; at most 1048576", "no function number 1048576"} {
		if got := failures[i].Error.Message; !strings.Contains(got, text) {
			t.Errorf("the error is %q, want it to say %q", got, text)
		}
	}
}

func TestCancelledTasks(t *testing.T) {
	w := newHost(t).join()
	w.dispatch(w.chunk(1, "gate", "0", "1", "2", "3"))
	<-gate.entered
	w.head(&pb.AttachResponse{Cancels: []*pb.CancelTask{
		{Chunk: 1, Offset: 2}, {Chunk: 1, Offset: 0}, {Chunk: 1, Offset: 77}, {Chunk: 9, Offset: 0}, // the last two are nobody's
	}})
	if n := <-gate.entered; n != 1 {
		t.Errorf("task %d runs after the cancelled one, want 1", n)
	}
	gate.leave <- 1
	if n := <-gate.entered; n != 3 {
		t.Errorf("task %d runs after 1, want 3, because 2 has been cancelled before its start", n)
	}
	gate.leave <- 1
	w.results(outcome{1, 0, "", cancelled}, outcome{1, 1, "1", 0}, outcome{1, 2, "", cancelled}, outcome{1, 3, "3", 0})
}

func TestTimeouts(t *testing.T) {
	w := newHost(t).join()
	slow, kept, late := w.chunk(1, "until done", "0", "1"), w.chunk(2, "value though done", "5"), w.chunk(3, "until done", "0")
	slow.TaskTimeoutNS, kept.TaskTimeoutNS = uint64(time.Millisecond), uint64(time.Millisecond)
	late.DeadlineUnixNS = time.Now().UnixNano()
	w.dispatch(slow, kept, late, w.chunk(4, "add1", "1"))
	w.results(outcome{1, 0, "", timedOut}, outcome{1, 1, "", timedOut}, outcome{2, 0, "5", 0}, outcome{3, 0, "", timedOut}, outcome{4, 0, "2", 0})
}

func TestRevoke(t *testing.T) {
	w := newHost(t).join()
	w.dispatch(w.chunk(1, "gate", "0", "1", "2", "3"), w.chunk(2, "add1", "1", "2"))
	<-gate.entered
	revoke := func(chunk uint64, from uint32) {
		w.head(&pb.AttachResponse{Revokes: []*pb.Revoke{{Chunk: chunk, From: from}}})
	}
	revoke(1, 2)
	w.returned(&pb.Returned{Chunk: 1, From: 2})
	revoke(1, 3) // they have been given back already
	w.returned(&pb.Returned{Chunk: 1, From: 4})
	revoke(2, 0)
	w.returned(&pb.Returned{Chunk: 2, From: 0})
	revoke(77, 5)
	w.returned(&pb.Returned{Chunk: 77, From: math.MaxUint32}) // nothing came back
	revoke(1, 0)                                              // the running task stays
	w.returned(&pb.Returned{Chunk: 1, From: 1})
	gate.leave <- 1
	w.results(outcome{1, 0, "0", 0})
	w.dispatch(w.chunk(3, "add1", "1"))
	w.results(outcome{3, 0, "2", 0})
}

func TestStopFinishesTheTaskInHand(t *testing.T) {
	w := newHost(t).join()
	w.dispatch(w.chunk(1, "gate", "0", "1", "2"), w.chunk(2, "add1", "1"))
	<-gate.entered
	w.head(&pb.AttachResponse{Stop: &pb.Stop{}})
	w.dispatch(w.chunk(3, "add1", "1")) // the daemon has sent it before it decided to stop the worker
	w.returned(&pb.Returned{Chunk: 3, From: 0})
	gate.leave <- 1
	returned := map[uint64]uint32{}
	goodbye := false
	for m := w.next(); m != nil; m = w.next() {
		for _, r := range m.Head.GetReturned() {
			returned[r.Chunk] = r.From
		}
		goodbye = goodbye || m.Head.GetGoodbye() != nil
	}
	if want := []outcome{{1, 0, "0", 0}}; !slices.Equal(w.seen, want) {
		t.Errorf("it ran %v, want %v", w.seen, want)
	}
	if from, ok := returned[2]; !goodbye || returned[1] != 1 || !ok || from != 0 {
		t.Errorf("it gave back %v and said goodbye: %v; want chunk 1 from 1, chunk 2 from 0, and goodbye", returned, goodbye)
	}
	if err := w.end(); err != nil {
		t.Errorf("serve returned %v, want nil after a stop", err)
	}
	if p, err := parseProgress(w.s.progress.mem); err != nil || p.Running {
		t.Errorf("the record says %+v, %v after the end; want that nothing runs", p, err)
	}
}

// A revoke that comes when everything has been given back is answered, in the same message perhaps, as one for what is not held.
func TestRevokeWhenAllHasBeenGivenBack(t *testing.T) {
	s := newSession(&pb.Bootstrap{})
	s.progress = newProgressWriter(make([]byte, progressHeader+4096))
	c := &wire.Chunk{ID: 1}
	c.Items.Append([]byte("0"))
	s.add(c)
	s.goodbye()
	s.revoke(1, 0)
	m, _ := s.takeOut()
	var froms []uint32
	for _, r := range m.Head.GetReturned() {
		froms = append(froms, r.From)
	}
	if want := []uint32{0, math.MaxUint32}; !slices.Equal(froms, want) || m.Head.Goodbye == nil {
		t.Errorf("got %v, want all of it, then nothing, and goodbye", m)
	}
}

func TestStopOfAnIdleWorkerAndStopAgain(t *testing.T) {
	w := newHost(t).join()
	w.dispatch(w.chunk(1, "add1", "1"))
	w.results(outcome{1, 0, "2", 0})
	w.head(&pb.AttachResponse{Stop: &pb.Stop{}})
	w.head(&pb.AttachResponse{Stop: &pb.Stop{}})
	w.until("goodbye", func(m *wire.AttachRequest) bool { return m.Head.GetGoodbye() != nil })
	if err := w.end(); err != nil {
		t.Errorf("serve returned %v, want nil", err)
	}
}

func TestSIGTERMCancelsTheTaskInHand(t *testing.T) {
	w := newHost(t).join()
	w.dispatch(w.chunk(1, "gate", "0", "1"))
	<-gate.entered
	w.sigterm()
	w.results(outcome{1, 0, "", cancelled})
	if err := w.end(); err != nil {
		t.Errorf("serve returned %v, want nil", err)
	}
}

func TestALostStreamCancelsTheTaskInHand(t *testing.T) {
	w := newHost(t).join()
	w.dispatch(w.chunk(1, "tell the cause", "0"))
	<-gate.entered
	close(w.leave)
	if err := w.end(); !errors.Is(err, errLost) {
		t.Errorf("serve returned %v, want %v", err, errLost)
	}
	select {
	case cause := <-causes:
		if !errors.Is(cause, errLost) {
			t.Errorf("the task was cancelled because of %v, want %v", cause, errLost)
		}
	case <-time.After(patience):
		t.Error("the task has not been cancelled")
	}
}

func TestOutputObeysItsCredit(t *testing.T) {
	h := newHost(t)
	h.welcome.Welcome.OutputCredit = 3
	w := h.join()
	w.dispatch(w.chunk(1, "print", `"abcdefgh"`))
	var text strings.Builder
	listen := func(want string) {
		t.Helper()
		for text.Len() < len(want) {
			m := w.until("output", func(m *wire.AttachRequest) bool { return len(m.Head.GetOutputs()) > 0 || len(m.Results) > 0 })
			for _, o := range m.Head.GetOutputs() {
				if o.Chunk != 1 || o.Offset != 0 || o.Stream != 1 {
					t.Errorf("output of %v, want stream 1 of place 0 of chunk 1", o)
				}
				text.Write(o.Data)
			}
		}
		if text.String() != want {
			t.Fatalf("the output is %q, want %q", text.String(), want)
		}
	}
	listen("abc")
	w.head(&pb.AttachResponse{OutputCredit: 2})
	listen("abcde")
	if len(w.seen) != 0 {
		t.Errorf("%v though its output is not out", w.seen)
	}
	w.head(&pb.AttachResponse{OutputCredit: 1000})
	listen("abcdefgh")
	if len(w.seen) == 0 { // else it came with the output, in the same message
		w.results(outcome{1, 0, "8", 0})
	}
	long := strings.Repeat("x", maxOutput+1)
	w.head(&pb.AttachResponse{OutputCredit: 1 << 20})
	w.dispatch(w.chunk(2, "print", strconv.Quote(long)))
	n := 0
	for n < len(long) {
		for _, o := range w.next().Head.GetOutputs() {
			if n += len(o.Data); len(o.Data) > maxOutput {
				t.Errorf("a piece of %d bytes, want at most %d", len(o.Data), maxOutput)
			}
		}
	}
}

func TestOutputWithoutCreditEndsWithTheTask(t *testing.T) {
	h := newHost(t)
	h.welcome.Welcome.OutputCredit = 0
	w := h.join()
	w.dispatch(w.chunk(1, "print", `"abc"`), w.chunk(2, "leak a writer", "0"))
	eventually(t, "the task runs", func() bool { w.s.mu.Lock(); defer w.s.mu.Unlock(); return w.s.current != nil })
	w.head(&pb.AttachResponse{Cancels: []*pb.CancelTask{{Chunk: 1}}})
	w.results(outcome{1, 0, "", cancelled}, outcome{2, 0, "0", 0})
	if n, err := (<-leaked)([]byte("too late")); n != 0 || !errors.Is(err, errEnded) {
		t.Errorf("a write after the end of the task: %d, %v; want 0, %v", n, err, errEnded)
	}
}

func TestFunctionsKnowTheirTask(t *testing.T) {
	w := newHost(t).join()
	c := w.chunk(1, "info", "0")
	c.Attempt = 4
	w.dispatch(c)
	w.results(outcome{1, 0, `{"Worker":"p-1","Attempt":4}`, 0})
	if _, ok := TaskInfo(t.Context()); ok {
		t.Error("a context that is no task's has a task")
	}
	if n, err := Output(t.Context(), 1).Write([]byte("abc")); n != 3 || err != nil {
		t.Errorf("output without a task: %d, %v; want it to be thrown away", n, err)
	}
}

// A worker whose record is full waits for the acknowledgement and asks for it, again and again.
func TestAFullRecordHoldsUpTheNextTask(t *testing.T) {
	w := newHost(t).join()
	w.quiet.Store(true)
	w.s.welcome.ResultLimit = wire.MaxItem
	const size = 400 << 10 // two fit
	w.dispatch(w.chunk(1, "large", slices.Repeat([]string{strconv.Itoa(size)}, 4)...), w.chunk(2, "gate", "7"))
	value := string(make([]byte, size))
	w.results(outcome{1, 0, value, 0}, outcome{1, 1, value, 0}, outcome{1, 2, value, 0})
	eventually(t, "it asks for an acknowledgement", func() bool { return w.wanted.Load() > 0 })
	if p, _ := parseProgress(w.s.progress.mem); p.Offset != 2 {
		t.Errorf("place %d has been started, though the result of place 2 is not safe", p.Offset)
	}
	w.head(&pb.AttachResponse{Ack: &pb.Ack{Chunk: 1, Tasks: 2}}) // it does not cover everything
	w.head(&pb.AttachResponse{Ack: &pb.Ack{Chunk: 1, Tasks: 3}})
	w.results(outcome{1, 3, value, 0})
	<-gate.entered // one fits again
	w.head(&pb.AttachResponse{Ack: &pb.Ack{Chunk: 2, Tasks: 0}})
	gate.leave <- 1
	w.results(outcome{2, 0, "7", 0})
	eventually(t, "the record is free again", func() bool {
		w.s.mu.Lock()
		defer w.s.mu.Unlock()
		return w.s.progress.written-w.s.progress.freed <= 64
	})
}

// The outcome of a task that has never run needs room in the record like any other.
func TestACancelledTaskWaitsForRoomInTheRecord(t *testing.T) {
	w := newHost(t).join()
	w.quiet.Store(true)
	w.s.welcome.ResultLimit = wire.MaxItem
	filling := len(w.s.progress.ring) - 32 - recordHeader - 8 // beside the first result; it leaves 8 bytes
	w.dispatch(w.chunk(1, "gate", "0"), w.chunk(2, "large", strconv.Itoa(filling)), w.chunk(3, "gate", "1", "2"))
	<-gate.entered
	w.head(&pb.AttachResponse{Cancels: []*pb.CancelTask{{Chunk: 3, Offset: 0}}, Revokes: []*pb.Revoke{{Chunk: 9}}})
	w.returned(&pb.Returned{Chunk: 9, From: math.MaxUint32}) // so it has heard both
	gate.leave <- 1
	w.results(outcome{1, 0, "0", 0}, outcome{2, 0, string(make([]byte, filling)), 0}, outcome{3, 0, "", cancelled})
	select {
	case <-gate.entered:
		t.Fatal("the next task runs, though the outcome before it is not safe")
	case <-time.After(20 * time.Millisecond):
	}
	w.head(&pb.AttachResponse{Ack: &pb.Ack{Chunk: 3, Tasks: 1}})
	<-gate.entered
	gate.leave <- 1
	w.results(outcome{3, 1, "2", 0})
}

func TestStopWhileTheRecordIsFull(t *testing.T) {
	w := newHost(t).join()
	w.quiet.Store(true)
	w.s.welcome.ResultLimit = wire.MaxItem
	w.dispatch(w.chunk(1, "large", "2000000", "1"))
	m := w.until("a result", func(m *wire.AttachRequest) bool { return len(m.Results) > 0 })
	if !m.Head.GetAckWanted() {
		t.Error("a result that is not in the record comes without asking for an acknowledgement")
	}
	w.head(&pb.AttachResponse{Stop: &pb.Stop{}})
	w.head(&pb.AttachResponse{Ack: &pb.Ack{Chunk: 1, Tasks: 1}})
	w.returned(&pb.Returned{Chunk: 1, From: 1})
	if err := w.end(); err != nil {
		t.Errorf("serve returned %v, want nil", err)
	}
}

func TestALostStreamFreesAWorkerWhoseRecordIsFull(t *testing.T) {
	w := newHost(t).join()
	w.quiet.Store(true)
	w.s.welcome.ResultLimit = wire.MaxItem
	w.dispatch(w.chunk(1, "large", "2000000", "1"))
	w.until("a result", func(m *wire.AttachRequest) bool { return len(m.Results) > 0 })
	close(w.leave)
	if err := w.end(); !errors.Is(err, errLost) {
		t.Errorf("serve returned %v, want %v", err, errLost)
	}
}

func TestResultsDoNotWaitForASlowTask(t *testing.T) {
	w := newHost(t).join()
	w.dispatch(w.chunk(1, "add1", "1", "2"), w.chunk(2, "gate", "0"))
	<-gate.entered
	w.results(outcome{1, 0, "2", 0}, outcome{1, 1, "3", 0}) // while the gate is closed
	gate.leave <- 1
	w.results(outcome{2, 0, "0", 0})
}

// A call may let its results wait longer, and another one need not wait for them.
func TestResultsLingerAsTheirCallsWish(t *testing.T) {
	w := newHost(t).join()
	patient := func(id uint64, function, arg string) *wire.Chunk {
		c := w.chunk(id, function, arg)
		c.LingerNS = uint64(time.Hour)
		return c
	}
	w.dispatch(patient(1, "add1", "1"), patient(2, "add1", "2"), patient(3, "gate", "0"))
	<-gate.entered
	gate.leave <- 1
	if m := w.next(); len(m.Results) != 3 {
		t.Errorf("the first message has the results of %d chunks, want those of all 3", len(m.Results))
	}
	w.dispatch(patient(4, "add1", "4"), w.chunk(5, "add1", "5"), patient(6, "gate", "0"))
	<-gate.entered
	w.seen = nil
	w.results(outcome{4, 0, "5", 0}, outcome{5, 0, "6", 0}) // while the gate is closed
	gate.leave <- 1
	w.results(outcome{6, 0, "0", 0})
}

// The clock is not read after each tiny task. Slow tasks that follow must have their own time all the same: a claim that lasts is held.
func TestSlowTasksAfterTinyOnesAreMeasured(t *testing.T) {
	w := newHost(t).join()
	w.dispatch(w.chunk(1, "add1", slices.Repeat([]string{"1"}, 2000)...))
	for len(w.seen) < 2000 {
		w.next()
	}
	w.dispatch(w.chunk(2, "gate", "0", "1", "2", "3"))
	var begun []time.Time
	for range 4 {
		<-gate.entered
		eventually(t, "the claim ends with the task in hand", func() bool {
			w.s.mu.Lock()
			defer w.s.mu.Unlock()
			return w.s.current.next == w.s.progress.inHand()+1
		})
		<-time.After(5 * time.Millisecond) // the task is slow
		p, _ := parseProgress(w.snapshot())
		begun = append(begun, p.Started)
		gate.leave <- 1
	}
	for i := range begun[1:] {
		if d := begun[i+1].Sub(begun[i]); d < 4*time.Millisecond {
			t.Errorf("task %d began %v after the one before, which took 5 ms", i+1, d)
		}
	}
	var ran uint64
	for n := 0; n < 4; {
		m := w.next()
		for i := range m.Results {
			n += m.Results[i].Len()
			ran += m.Results[i].RunNS
		}
	}
	if time.Duration(ran) < 20*time.Millisecond {
		t.Errorf("four tasks of 5 ms ran for %v", time.Duration(ran))
	}
}

// snapshot is the head of the progress record. The runner must be in a task.
func (l *local) snapshot() []byte { return slices.Clone(l.s.progress.mem[:progressHeader]) }

func TestInit(t *testing.T) {
	defer func() { registry.init = nil }()
	type arg struct{ N int }
	got := make(chan arg, 1)
	for name, tt := range map[string]struct {
		argument string
		init     func(context.Context, arg) error
		want     string // the error; empty: none
	}{
		"succeeds":               {`{"N":4}`, func(_ context.Context, a arg) error { got <- a; return nil }, ""},
		"has no argument":        {"", func(_ context.Context, a arg) error { got <- a; return nil }, ""},
		"fails":                  {"", func(context.Context, arg) error { return errors.New("no luck") }, "no luck"},
		"panics":                 {"", func(context.Context, arg) error { panic("oh") }, "oh"},
		"calls Goexit":           {"", func(context.Context, arg) error { runtime.Goexit(); return nil }, "Goexit"},
		"has another's argument": {"[", func(context.Context, arg) error { return nil }, "decode the init argument"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			registry.init = nil
			Init(tt.init)
			h.welcome.Welcome.InitArgument = []byte(tt.argument)
			served := make(chan error, 1)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go func() { served <- ServeInProcess(ctx, &pb.Bootstrap{Socket: h.path}) }()
			g := <-h.guests
			if g.hello.CreditTasks != 1 || len(g.hello.Features) != 0 {
				t.Errorf("a worker without a record says %v, want that it takes one task at a time", g.hello)
			}
			ready := g.next().Head.GetReady()
			if tt.want == "" {
				if ready.Error != nil {
					t.Errorf("init failed: %v", ready.Error)
				}
				if a := <-got; (a.N == 4) != (tt.argument != "") {
					t.Errorf("the argument is %v, want %s", a, tt.argument)
				}
				cancel()
				if err := <-served; err != nil {
					t.Errorf("serve returned %v, want nil", err)
				}
				return
			}
			if !strings.Contains(ready.GetError().GetMessage(), tt.want) {
				t.Errorf("ready with %v, want an error that says %q", ready, tt.want)
			}
			var failed *initError
			if err := <-served; !errors.As(err, &failed) {
				t.Errorf("serve returned %v, want an error of init", err)
			}
		})
	}
}

func TestARefusedWorkerSaysWhy(t *testing.T) {
	h := newHost(t)
	h.welcome = &pb.AttachResponse{Refused: &pb.Refused{Message: "not you"}}
	if err := ServeInProcess(t.Context(), &pb.Bootstrap{Socket: h.path}); err == nil || !strings.Contains(err.Error(), "not you") {
		t.Errorf("got %v, want the daemon's words", err)
	}
}

func TestNamesOfFunctions(t *testing.T) {
	for name, function := range map[string]string{"empty": "", "too long": strings.Repeat("x", 201), "there already": "echo"} {
		t.Run(name, func(t *testing.T) {
			before := len(registry.functions)
			defer func() {
				if recover() == nil || len(registry.functions) != before {
					t.Errorf("%d functions, want a panic and still %d", len(registry.functions), before)
				}
			}()
			Func(function, func(context.Context, int) (int, error) { return 0, nil })
		})
	}
}

// BenchmarkServe is the cost of a trivial task: from a chunk in a message to its result in a message.
func BenchmarkServe(b *testing.B) {
	for _, size := range []int{1, 10, 1000} {
		b.Run(fmt.Sprintf("chunk=%d", size), func(b *testing.B) {
			w := newHost(b).join()
			c := w.chunk(0, "add1", slices.Repeat([]string{"12345"}, size)...)
			b.ReportAllocs()
			b.ResetTimer()
			sent, got := 0, 0
			for got < b.N {
				m := &wire.AttachResponse{}
				for ; sent < b.N && sent-got < creditTasks-size; sent += size {
					c.ID++
					m.Chunks = append(m.Chunks, *c)
				}
				if len(m.Chunks) > 0 {
					w.send(m)
				}
				r := <-w.said
				for i := range r.Results {
					got += r.Results[i].Len()
				}
			}
		})
	}
}
