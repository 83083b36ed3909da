package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
)

// fake is a daemon without workers: it speaks the protocol and runs functions by itself.
type fake struct {
	pb.UnimplementedPoolServiceServer
	server   *grpc.Server
	listener *bufconn.Listener

	// work serves a call's stream after its first message; nil: runTasks.
	work func(stream grpc.ServerStream, first *wire.CallRequest) error
	// events is sent to whoever opens a pool; nothing if nil, until it terminates.
	events func(stream grpc.ServerStreamingServer[pb.OpenPoolResponse])
	// terminate holds up TerminatePool, if not nil.
	terminate func(ctx context.Context)
	joined    bool // the workers are gone, and outcomes are still on their way

	mu       sync.Mutex
	states   map[string]pb.PoolState
	ended    map[string]chan struct{} // closed when the pool has been terminated
	specs    []*pb.PoolSpec
	messages []int // number of items in each message of calls
	settings []*pb.MapRequest
	streams  int // calls that have begun
	live     int // calls that run
	received int // items
	cancels  []*pb.CancelRequest
}

// newFake starts a fake with a pool "p". It lives as long as the test.
func newFake(tb testing.TB) *fake {
	tb.Helper()
	f := &fake{
		listener: bufconn.Listen(1 << 20),
		states:   map[string]pb.PoolState{"p": pb.PoolState_POOL_STATE_OPEN},
		ended:    map[string]chan struct{}{"p": make(chan struct{})},
	}
	f.server = grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec{}), grpc.MaxRecvMsgSize(wire.MaxMessage), grpc.MaxSendMsgSize(wire.MaxMessage),
		grpc.StaticStreamWindowSize(256<<10), grpc.StaticConnWindowSize(1<<20))
	pb.RegisterPoolServiceServer(f.server, f)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = f.server.Serve(f.listener)
	}()
	tb.Cleanup(func() {
		f.server.Stop()
		<-served
	})
	return f
}

func (f *fake) dial(ctx context.Context) (net.Conn, error) { return f.listener.DialContext(ctx) }

// client is a client of f, closed at the end of the test.
func (f *fake) client(tb testing.TB, opts ...Option) *Client {
	tb.Helper()
	c, err := DialFunc(tb.Context(), f.dial, opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Errorf("close client: %v", err)
		}
	})
	return c
}

// pool is the pool "p" of a new client of f.
func (f *fake) pool(tb testing.TB) *Pool {
	tb.Helper()
	p, err := f.client(tb).Pool(tb.Context(), "p")
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func refuse(code codes.Code, reason pb.Reason, message string, known ...string) error {
	s, err := status.New(code, message).WithDetails(&pb.Refusal{Reason: reason, Known: known})
	if err != nil {
		return err
	}
	return s.Err()
}

func (f *fake) check(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch f.states[name] {
	case pb.PoolState_POOL_STATE_UNSPECIFIED:
		return refuse(codes.NotFound, pb.Reason_REASON_UNKNOWN_POOL, fmt.Sprintf("no pool %q; there is p", name), "p")
	case pb.PoolState_POOL_STATE_CLOSED:
		return refuse(codes.FailedPrecondition, pb.Reason_REASON_POOL_CLOSED, "pool is closed")
	case pb.PoolState_POOL_STATE_TERMINATED:
		return refuse(codes.Aborted, pb.Reason_REASON_POOL_TERMINATED, "pool is terminated")
	}
	return nil
}

func (f *fake) Map(stream grpc.BidiStreamingServer[pb.MapRequest, pb.MapResponse]) error {
	return f.call(stream)
}

func (f *fake) ApplyAsync(stream grpc.BidiStreamingServer[pb.ApplyAsyncRequest, pb.ApplyAsyncResponse]) error {
	return f.call(stream)
}

func (f *fake) call(stream grpc.ServerStream) error {
	f.mu.Lock()
	f.streams++
	f.live++
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.live--
		f.mu.Unlock()
	}()
	var first wire.CallRequest
	if err := f.recv(stream, &first); err != nil {
		return err
	}
	s := first.Settings
	if err := f.check(s.GetPool()); err != nil {
		return err
	}
	if _, ok := functions[s.GetFunction()]; !ok {
		return refuse(codes.NotFound, pb.Reason_REASON_UNKNOWN_FUNCTION, "no function "+s.GetFunction(), "double")
	}
	if err := stream.SendMsg(&wire.CallResponse{Accepted: &pb.CallAccepted{CallId: s.GetCallId(), Encoding: functions[s.GetFunction()].encoding}}); err != nil {
		return err
	}
	f.mu.Lock()
	ended := f.ended[s.GetPool()]
	f.mu.Unlock()
	work := f.work
	if work == nil {
		work = f.runTasks
	}
	done := make(chan error, 1)
	go func() { done <- work(stream, &first) }()
	select {
	case err := <-done:
		return err
	case <-ended:
		return refuse(codes.Aborted, pb.Reason_REASON_POOL_TERMINATED, "pool is terminated")
	}
}

// recv receives a message and remembers what tests ask for.
func (f *fake) recv(stream grpc.ServerStream, r *wire.CallRequest) error {
	if err := stream.RecvMsg(r); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Settings != nil {
		f.settings = append(f.settings, r.Settings)
	}
	if n := r.Items.Len(); n > 0 {
		f.messages = append(f.messages, n)
		f.received += n
	}
	return nil
}

// runTasks runs the function on what each message brings and answers with one message.
func (f *fake) runTasks(stream grpc.ServerStream, r *wire.CallRequest) error {
	function := functions[r.Settings.GetFunction()]
	var index uint64
	for {
		out := wire.CallResponse{Results: []wire.Results{{First: index}}}
		results := &out.Results[0]
		failed := false
		for it := r.Items.Items(); it.Next(); index++ {
			v, failure := function.f(it.Item())
			if failure != nil {
				failure.Index, failure.Attempts = index, max(1, failure.Attempts)
				out.Failures = append(out.Failures, failure)
				failed = true
				continue
			}
			if failed || results.Indexes != nil {
				if results.Indexes == nil {
					for i := range results.Values.Len() {
						results.Indexes = append(results.Indexes, results.First+uint64(i))
					}
					if results.Indexes == nil {
						results.Indexes = []uint64{}
					}
				}
				results.Indexes = append(results.Indexes, index)
			}
			results.Values.Append(v)
		}
		if results.Values.Len() == 0 {
			out.Results = nil
		}
		if err := stream.SendMsg(&out); err != nil {
			return err
		}
		*r = wire.CallRequest{}
		if err := f.recv(stream, r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// answer sends one result.
func answer(stream grpc.ServerStream, index uint64, value string) error {
	r := wire.Results{First: index}
	r.Values.Append([]byte(value))
	return stream.SendMsg(&wire.CallResponse{Results: []wire.Results{r}})
}

type function struct {
	encoding string
	f        func(item []byte) ([]byte, *pb.Failure)
}

func taskError(typ, message string) *pb.Failure {
	return &pb.Failure{Outcome: pb.Outcome_OUTCOME_TASK_ERROR, Message: message, Worker: "p-1", TaskError: &pb.TaskError{Type: typ, Message: message}}
}

var functions = map[string]function{
	"double": {"json", func(item []byte) ([]byte, *pb.Failure) {
		n, err := strconv.Atoi(string(item))
		if err != nil {
			return nil, taskError("*strconv.NumError", err.Error())
		}
		return strconv.AppendInt(nil, int64(2*n), 10), nil
	}},
	// odd fails for even numbers.
	"odd": {"json", func(item []byte) ([]byte, *pb.Failure) {
		n, _ := strconv.Atoi(string(item))
		if n%2 == 0 {
			return nil, taskError("*errors.errorString", fmt.Sprintf("%d is even", n))
		}
		return item, nil
	}},
	"echo": {"bytes", func(item []byte) ([]byte, *pb.Failure) { return item, nil }},
	"die": {"json", func([]byte) ([]byte, *pb.Failure) {
		return nil, &pb.Failure{Outcome: pb.Outcome_OUTCOME_WORKER_LOST, Message: "worker lost", WorkerExit: &pb.WorkerExit{
			Worker: "p-2", Pid: 4711, Signal: "SIGKILL", CrashReport: []string{"panic: boom"}}}
	}},
}

func (f *fake) Apply(context.Context, *pb.ApplyRequest) (*pb.ApplyResponse, error) {
	return nil, errors.New("the SDK does not use it")
}

func (f *fake) Cancel(_ context.Context, r *pb.CancelRequest) (*pb.CancelResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cancels = append(f.cancels, r)
	return &pb.CancelResponse{}, nil
}

func (f *fake) GetPool(_ context.Context, r *pb.GetPoolRequest) (*pb.GetPoolResponse, error) {
	if err := f.check(r.GetPool()); errors.Is(refused(err), ErrUnknownPool) {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return &pb.GetPoolResponse{Pool: &pb.Pool{Name: r.GetPool(), State: f.states[r.GetPool()]}}, nil
}

func (f *fake) create(spec *pb.PoolSpec) (*pb.Pool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if spec.Name == "" {
		spec.Name = fmt.Sprintf("pool-%d", len(f.specs)+1)
	}
	if f.states[spec.Name] != 0 {
		return nil, refuse(codes.AlreadyExists, pb.Reason_REASON_POOL_EXISTS, "pool "+spec.Name+" exists")
	}
	f.specs = append(f.specs, spec)
	f.states[spec.Name] = pb.PoolState_POOL_STATE_OPEN
	f.ended[spec.Name] = make(chan struct{})
	return &pb.Pool{Name: spec.Name, State: pb.PoolState_POOL_STATE_OPEN}, nil
}

func (f *fake) CreatePool(_ context.Context, r *pb.CreatePoolRequest) (*pb.CreatePoolResponse, error) {
	p, err := f.create(r.GetSpec())
	if err != nil {
		return nil, err
	}
	return &pb.CreatePoolResponse{Pool: p}, nil
}

func (f *fake) OpenPool(r *pb.OpenPoolRequest, stream grpc.ServerStreamingServer[pb.OpenPoolResponse]) error {
	p, err := f.create(r.GetSpec())
	if err != nil {
		return err
	}
	defer f.end(p.Name, pb.PoolState_POOL_STATE_TERMINATED)
	if err := stream.Send(&pb.OpenPoolResponse{Opened: p}); err != nil {
		return err
	}
	if f.events != nil {
		f.events(stream)
	}
	f.mu.Lock()
	ended := f.ended[p.Name]
	f.mu.Unlock()
	select {
	case <-ended:
		return stream.Send(&pb.OpenPoolResponse{
			Exits: []*pb.WorkerExit{{Worker: p.Name + "-1", Pid: 4711, Signal: "SIGTERM", Reason: "killed by SIGTERM"}},
			Ended: true,
		})
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// end closes a pool, or terminates it.
func (f *fake) end(name string, state pb.PoolState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.states[name] < state {
		f.states[name] = state
	}
	if state == pb.PoolState_POOL_STATE_TERMINATED && !isClosed(f.ended[name]) {
		close(f.ended[name])
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (f *fake) ClosePool(_ context.Context, r *pb.ClosePoolRequest) (*pb.ClosePoolResponse, error) {
	f.end(r.GetPool(), pb.PoolState_POOL_STATE_CLOSED)
	return &pb.ClosePoolResponse{}, nil
}

func (f *fake) JoinPool(_ context.Context, r *pb.JoinPoolRequest) (*pb.JoinPoolResponse, error) {
	f.mu.Lock()
	state := f.states[r.GetPool()]
	f.mu.Unlock()
	if f.joined {
		return &pb.JoinPoolResponse{}, nil
	}
	if state == pb.PoolState_POOL_STATE_OPEN {
		return nil, refuse(codes.FailedPrecondition, pb.Reason_REASON_POOL_OPEN, "pool is still open: close or terminate it first")
	}
	f.end(r.GetPool(), pb.PoolState_POOL_STATE_TERMINATED) // nothing runs that would have to be waited for
	return &pb.JoinPoolResponse{}, nil
}

func (f *fake) TerminatePool(ctx context.Context, r *pb.TerminatePoolRequest) (*pb.TerminatePoolResponse, error) {
	if f.terminate != nil {
		f.terminate(ctx)
	}
	f.end(r.GetPool(), pb.PoolState_POOL_STATE_TERMINATED)
	return &pb.TerminatePoolResponse{}, nil
}

func (f *fake) ListPools(context.Context, *pb.ListPoolsRequest) (*pb.ListPoolsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &pb.ListPoolsResponse{}
	for name, state := range f.states {
		r.Pools = append(r.Pools, &pb.Pool{Name: name, State: state})
	}
	return r, nil
}

func (f *fake) ListWorkers(_ context.Context, r *pb.ListWorkersRequest) (*pb.ListWorkersResponse, error) {
	return &pb.ListWorkersResponse{Workers: []*pb.Worker{{Name: r.GetPool() + "-1", Pool: r.GetPool(), Pid: 4711}}}, nil
}

func (f *fake) ListCalls(context.Context, *pb.ListCallsRequest) (*pb.ListCallsResponse, error) {
	return &pb.ListCallsResponse{}, nil
}

// count is a number that the fake keeps.
func (f *fake) count(n *int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *n
}

func (f *fake) cancelRequests() []*pb.CancelRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.cancels)
}

func (f *fake) sizes() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.messages)
}

// eventually waits, outside of bubbles, for what has no event of its own.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); pass(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// pass lets time pass: in a bubble on its clock, elsewhere only in eventually's bounded poll.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // see above
}

// numbers is 0, 1, 2… n-1.
func numbers(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

var (
	double = Func[int, int]("double")
	odd    = Func[int, int]("odd")
	echo   = Func[[]byte, []byte]("echo")
)
