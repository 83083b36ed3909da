package workerproc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"google.golang.org/grpc"
)

// nilError is an error whose nil pointer cannot say what it is.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

var started = make(chan struct{}, 16) // a task of "wait" has begun

var (
	_ = Func("large", func(_ context.Context, n int) ([]byte, error) { return make([]byte, n), nil })
	_ = Func("nilerror", func(_ context.Context, _ int) (int, error) { var e *nilError; return 0, e })
	_ = Func("wait", func(ctx context.Context, _ int) (bool, error) {
		_, has := ctx.Deadline()
		started <- struct{}{}
		if has {
			<-ctx.Done()
			return false, ctx.Err()
		}
		return has, nil
	})
)

// daemon is a fake daemon: script speaks for it.
type daemon struct {
	pb.UnimplementedWorkerServiceServer
	script func(*conversation) error
}

type conversation struct {
	grpc.BidiStreamingServer[pb.AttachRequest, pb.AttachResponse]
}

func (d *daemon) Attach(s grpc.BidiStreamingServer[pb.AttachRequest, pb.AttachResponse]) error {
	return d.script(&conversation{s})
}

func (c *conversation) read() (*wire.AttachRequest, error) {
	m := &wire.AttachRequest{}
	return m, c.RecvMsg(m)
}

// welcome lets the worker in and waits until it is ready.
func (c *conversation) welcome() error {
	if _, err := c.read(); err != nil {
		return err
	}
	if err := c.SendMsg(&wire.AttachResponse{Head: &pb.AttachResponse{Welcome: &pb.Welcome{Protocol: 1, ResultLimit: wire.MaxItem}}}); err != nil {
		return err
	}
	_, err := c.read()
	return err
}

func (c *conversation) chunk(id uint64, function string, deadline int64, items ...string) error {
	at := slices.IndexFunc(registry.functions, func(f *registered) bool { return f.Name == function })
	w := wire.Chunk{ID: id, Function: uint32(at), Attempt: 1, DeadlineUnixNS: deadline}
	for _, i := range items {
		w.Items.Append([]byte(i))
	}
	return c.SendMsg(&wire.AttachResponse{Chunks: []wire.Chunk{w}})
}

// converse runs a session with a progress record against script.
func converse(t *testing.T, script func(*conversation) error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "wp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec{}), grpc.MaxRecvMsgSize(wire.MaxMessage))
	done := make(chan error, 1)
	pb.RegisterWorkerServiceServer(srv, &daemon{script: func(c *conversation) error { err := script(c); done <- err; return err }})
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	s := newSession(&pb.Bootstrap{Socket: path})
	s.share(make([]byte, ProgressSize))
	served := make(chan error, 1)
	go func() { served <- s.serve(context.Background()) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the conversation hangs")
	}
	select {
	case <-served:
	case <-time.After(patience):
		t.Fatal("the session does not end with its stream")
	}
}

// The daemon acknowledges at once only what the worker asks it to, as the server does.
func TestAFullRecordIsAskedForAgain(t *testing.T) {
	converse(t, func(c *conversation) error {
		if err := c.welcome(); err != nil {
			return err
		}
		const tasks = 4
		items := []string{"700000", "700000", "700000", "700000"}
		if err := c.chunk(1, "large", 0, items...); err != nil {
			return err
		}
		for got := 0; got < tasks; {
			m, err := c.read()
			if err != nil {
				return err
			}
			for i := range m.Results {
				got += m.Results[i].Len()
			}
			if m.Head.GetAckWanted() {
				<-time.After(50 * time.Millisecond) // stand-in for a busy daemon: the answer comes after the next task
				if err := c.SendMsg(&wire.AttachResponse{Head: &pb.AttachResponse{Ack: &pb.Ack{Chunk: 1, Tasks: uint32(got)}}}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func TestAnErrorThatCannotSayItsTextFailsItsTaskOnly(t *testing.T) {
	converse(t, func(c *conversation) error {
		if err := c.welcome(); err != nil {
			return err
		}
		if err := c.chunk(1, "nilerror", 0, "1"); err != nil {
			return err
		}
		m, err := c.read()
		if err != nil {
			return err
		}
		if len(m.Results) != 1 || len(m.Results[0].Failures) != 1 {
			return fmt.Errorf("got %+v, want one failure", m.Results)
		}
		return nil
	})
}

func TestTheDeadlineOutlivesACancelledTask(t *testing.T) {
	converse(t, func(c *conversation) error {
		if err := c.welcome(); err != nil {
			return err
		}
		if err := c.chunk(1, "wait", time.Now().Add(5*time.Second).UnixNano(), "1", "2"); err != nil {
			return err
		}
		<-started
		if err := c.SendMsg(&wire.AttachResponse{Head: &pb.AttachResponse{Cancels: []*pb.CancelTask{{Chunk: 1, Offset: 0}}}}); err != nil {
			return err
		}
		<-started
		var outcomes []pb.Outcome
		for n := 0; n < 2; {
			m, err := c.read()
			if err != nil {
				return err
			}
			for i := range m.Results {
				n += m.Results[i].Len()
				for range m.Results[i].Values.Len() {
					outcomes = append(outcomes, pb.Outcome_OUTCOME_VALUE)
				}
				for _, f := range m.Results[i].Failures {
					outcomes = append(outcomes, f.Outcome)
				}
			}
		}
		if got, want := fmt.Sprint(outcomes), "[OUTCOME_CANCELLED OUTCOME_TIMEOUT]"; got != want {
			return fmt.Errorf("outcomes %s, want %s", got, want)
		}
		return nil
	})
}

func TestARecordWhosePositionsOverflowIsGarbage(t *testing.T) {
	mem := make([]byte, 4096)
	copy(mem, progressMagic)
	binary.NativeEndian.PutUint64(mem[40:], ^uint64(0)-7)  // head
	binary.NativeEndian.PutUint64(mem[48:], ^uint64(0)-15) // tail
	done := make(chan error, 1)
	go func() { _, err := readRecord(bytes.NewReader(mem), len(mem)); done <- err }()
	select {
	case err := <-done:
		if !errors.Is(err, errGarbage) {
			t.Errorf("got %v, want %v", err, errGarbage)
		}
	case <-time.After(patience):
		t.Fatal("reading a record of 4 KiB does not end")
	}
}

func TestAWorkerThatCannotConnectSaysSo(t *testing.T) {
	var out strings.Builder
	r, w := io.Pipe()
	read := make(chan struct{})
	go func() { io.Copy(&out, r); close(read) }()
	p, err := Start(Spec{
		Program:   &pb.Program{Path: os.Args[0]},
		Bootstrap: &pb.Bootstrap{Socket: "/nonexistent/worker.sock"},
		Output:    func(l Line) { fmt.Fprintf(w, "%s\n", l.Text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	exit := p.Wait()
	w.Close()
	<-read
	if !strings.Contains(out.String(), "/nonexistent/worker.sock") {
		t.Errorf("the worker ended with %v and said %q; want the socket's name", exit, out.String())
	}
}

func TestTheReasonOfALongCrashIsKept(t *testing.T) {
	l := newLines(nil)
	l.read(strings.NewReader("fatal error: all goroutines are asleep\n"+strings.Repeat("\tframe\n", 1000)), 2)
	if got, _ := l.report(time.Time{}); got[0] != "fatal error: all goroutines are asleep" || len(got) != 40 {
		t.Errorf("a report of %d lines begins with %q", len(got), got[0])
	}
}

func TestAWaitForWelcomeCanBeEnded(t *testing.T) {
	dir, err := os.MkdirTemp("", "wp")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	hello := make(chan struct{})
	srv := grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec{}))
	pb.RegisterWorkerServiceServer(srv, &daemon{script: func(c *conversation) error {
		c.read()
		close(hello)
		<-c.Context().Done()
		return nil
	}})
	go srv.Serve(l)
	defer srv.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- ServeInProcess(ctx, &pb.Bootstrap{Socket: path}) }()
	<-hello
	cancel()
	select {
	case err := <-served:
		if err == nil {
			t.Error("no error, though it was never let in")
		}
	case <-time.After(patience):
		t.Fatal("it goes on waiting for welcome")
	}
}

func BenchmarkProgress(b *testing.B) {
	w := newProgressWriter(make([]byte, ProgressSize))
	result := []byte("12345")
	for i := 0; b.Loop(); i++ {
		w.begin(i)
		room := w.room()
		if out := append(room, result...); !w.commit(i, room, out) {
			w.free(w.written)
			w.enter(1, time.Unix(0, 1))
			w.commit(i, nil, out)
		}
	}
}
