package server

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"github.com/procpool/procpool/workerproc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// workerService lets workers in and carries chunks to them and results back. It is served on the private socket.
type workerService struct {
	pb.UnimplementedWorkerServiceServer
	server *Server
}

// outputWindow is how much output a task may have on its way to its client, in bytes.
const outputWindow = 256 << 10

// expected is the workers that have been started and have not said Hello, by the hash of their token. Looking a secret up by its
// hash takes the same time whatever was sent.
type expected struct {
	mu      sync.Mutex
	workers map[[32]byte]*worker
}

func (e *expected) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.workers)
}

func (s *Server) expect(w *worker) {
	s.expected.mu.Lock()
	s.expected.workers[sha256.Sum256(w.token[:])] = w
	s.expected.mu.Unlock()
}

// unexpect forgets a worker that will not come any more. It reports false if it has come.
func (s *Server) unexpect(w *worker) bool {
	s.expected.mu.Lock()
	defer s.expected.mu.Unlock()
	key := sha256.Sum256(w.token[:])
	_, waiting := s.expected.workers[key]
	delete(s.expected.workers, key)
	return waiting
}

// claim takes the worker that a token is for. A token is good for one attempt, whatever comes of it.
func (s *Server) claim(token []byte) *worker {
	s.expected.mu.Lock()
	defer s.expected.mu.Unlock()
	key := sha256.Sum256(token)
	w := s.expected.workers[key]
	delete(s.expected.workers, key)
	return w
}

// Attach is a worker's life.
func (ws *workerService) Attach(stream grpc.BidiStreamingServer[pb.AttachRequest, pb.AttachResponse]) error {
	hello, err := firstHello(stream)
	if err != nil {
		return err
	}
	w := ws.server.claim(hello.Token)
	if w == nil {
		return sayRefused(stream, "the token is wrong or has been used: a worker attaches once, with the token from its bootstrap frame")
	}
	defer close(w.attached)
	if v := peerOf(stream.Context()).visit; v != nil {
		v.admit()
	}
	identity, err := w.identify(stream.Context())
	if err != nil {
		return ws.turnAway(stream, w, err.Error())
	}
	protocol := min(hello.ProtocolMax, workerproc.ProtocolMax)
	if protocol < workerproc.ProtocolMin || protocol < hello.ProtocolMin {
		return ws.turnAway(stream, w, fmt.Sprintf("the worker speaks protocol versions %d to %d, this daemon %d to %d: update the older of the two",
			hello.ProtocolMin, hello.ProtocolMax, workerproc.ProtocolMin, workerproc.ProtocolMax))
	}
	if err := checkFunctions(hello.Functions); err != nil {
		return ws.turnAway(stream, w, err.Error())
	}
	p := w.pool
	welcome := &pb.Welcome{
		Protocol: protocol, InitArgument: p.spec.InitArgument, ReadyTimeoutMs: uint32(p.spec.ReadyTimeout.AsDuration().Milliseconds()),
		CancelGraceMs: uint32(p.spec.CancelGrace.AsDuration().Milliseconds()), ResultLimit: wire.MaxItem, OutputCredit: outputWindow,
	}
	if slices.Contains(hello.Features, workerproc.FeatureProgress) {
		welcome.Features = []string{workerproc.FeatureProgress}
	}
	p.post(func(now time.Time) { w.registered(now, hello, identity, welcome) })

	sent := make(chan struct{})
	go func() { // ends when the outbox is closed, which the owner does when the worker is gone, or when the stream breaks
		defer close(sent)
		w.send(stream)
	}()
	defer func() { // also after a panic
		w.out.close()
		time.AfterFunc(streamGrace, func() { p.post(w.outlived) }) // before waiting: a worker that does not read holds the sender up until it is killed
		<-sent
	}()
	err = w.receive(stream)
	if why, itsFault := unreadable(err); itsFault {
		p.post(func(now time.Time) { p.core.Misbehaved(now, w.id, why) })
	}
	return err
}

// unreadable tells whether a stream has ended because of a message that is too long or no message of ours, and what was wrong with it.
func unreadable(err error) (why string, yes bool) {
	st := status.Convert(err)
	switch st.Code() {
	case codes.ResourceExhausted, codes.Internal, codes.InvalidArgument:
		return st.Message(), true
	default:
		return "", false
	}
}

// streamGrace is how long a worker may live on after its goodbye, and without its stream.
const streamGrace = 2 * time.Second

// outlived ends a worker that has said goodbye or ended its stream, and not itself: it runs nothing more, or nothing more can be heard of it.
func (w *worker) outlived(time.Time) {
	if w.pool.workers[w.id] != w || w.proc == nil {
		return
	}
	if w.refused == "" && w.report == nil { // else it is being killed for something else
		w.refused = "it ended its stream and lived on"
		if w.goodbye {
			w.refused = "it said goodbye and lived on"
		}
	}
	w.proc.Kill()
}

// firstHello waits for the first message. A stream that says nothing is not waited for.
func firstHello(stream grpc.BidiStreamingServer[pb.AttachRequest, pb.AttachResponse]) (*pb.Hello, error) {
	got := make(chan error, 1) // one slot: the receiver never waits, also when nobody listens any more
	m := &wire.AttachRequest{}
	go func() { got <- stream.RecvMsg(m) }() // ends with the stream at the latest
	select {
	case err := <-got:
		if err != nil {
			return nil, err
		}
		if m.Head == nil || m.Head.Hello == nil {
			return nil, badRequest("the first message of a worker must have hello")
		}
		return m.Head.Hello, nil
	case <-time.After(helloTimeout):
		return nil, badRequest("no hello within %v", helloTimeout)
	}
}

// helloTimeout is how long a connection may stay silent.
const helloTimeout = 5 * time.Second

func sayRefused(stream grpc.ServerStream, why string) error {
	return stream.SendMsg(&wire.AttachResponse{Head: &pb.AttachResponse{Refused: &pb.Refused{Message: why}}})
}

// turnAway refuses a worker that did start here. It will not get better by trying again.
func (ws *workerService) turnAway(stream grpc.ServerStream, w *worker, why string) error {
	w.pool.post(func(time.Time) { w.refused, w.turnedAway = why, true })
	time.AfterFunc(streamGrace, func() { w.pool.post(w.outlived) }) // a wrapper may not end with its worker
	return sayRefused(stream, why)
}

// checkFunctions looks at what a worker says it can do.
func checkFunctions(list []*pb.Function) error {
	seen := make(map[string]bool, len(list))
	for _, f := range list {
		switch {
		case f.Name == "" || len(f.Name) > 200:
			return fmt.Errorf("the function name %.200q has %d bytes; 1 to 200 are allowed", f.Name, len(f.Name))
		case f.Encoding == "":
			return fmt.Errorf("function %q has no encoding", f.Name)
		case seen[f.Name]:
			return fmt.Errorf("there are two functions %q", f.Name)
		}
		seen[f.Name] = true
	}
	return nil
}

// receive posts what the worker says, one event for a message.
func (w *worker) receive(stream grpc.ServerStream) error {
	for {
		m := spentRequests.Get().(*wire.AttachRequest)
		if err := stream.RecvMsg(m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if !w.pool.post(func(now time.Time) { w.said(now, m) }) {
			return errPoolEnded
		}
	}
}

// spentRequests are messages of workers whose results have been delivered. Their lists are used again: with small chunks a message has thousands.
var spentRequests = sync.Pool{New: func() any { return new(wire.AttachRequest) }}

// spent gives back the memory of a message when the effects of what it said have been carried out.
func spent(m *wire.AttachRequest) {
	m.Free()
	clear(m.Results)
	if cap(m.Results) <= maxSpare {
		*m = wire.AttachRequest{Results: m.Results[:0]}
		spentRequests.Put(m)
	}
}

// send carries the outbox to the worker: whatever is there, whenever the stream can take it.
func (w *worker) send(stream grpc.ServerStream) {
	for range w.out.awake {
		for {
			m, closed := w.out.take()
			if m == nil && closed {
				return
			}
			if m == nil {
				break
			}
			if err := stream.SendMsg(m); err != nil {
				return
			}
			w.out.sent(m)
		}
	}
}
