package server_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/server"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// clientBound is how soon everything of a client that is gone is gone, too.
const clientBound = time.Second

// TestBadClients is what a client may do to a daemon. Others are served meanwhile, and when it is gone nothing is left of it.
func TestBadClients(t *testing.T) {
	d := serveAs(t, server.Config{PerUser: server.Limits{Calls: 20_000, Streams: 20_000}}) // they have the same user as the others
	pool := d.open(t, "", client.Name("shared"))
	pool.mustAnswer(t)
	for _, row := range []struct {
		does string
		busy int // workers of the shared pool that are its own, until it ends
	}{
		{does: "vanishes", busy: 1},
		{does: "leaves its sockets to a child and vanishes", busy: 1},
		{does: "never reads"},
		{does: "half-closes"},
		{does: "sends garbage"},
		{does: "opens 10,000 streams"},
	} {
		t.Run(row.does, func(t *testing.T) {
			promptly(t, "the end of everything", clientBound, func() time.Duration {
				pool.rest(t, 2)
				before := used(t)
				c := startClient(t, row.does, d.addr)
				c.expect(t, "ready")
				pool.mustAnswer(t)
				eventually(t, func() string {
					if info, err := pool.Info(t.Context()); err != nil || int(info.Busy) < row.busy {
						return fmt.Sprintf("%d workers work for it, %v; want %d", info.GetBusy(), err, row.busy)
					}
					return ""
				})
				c.Process.Kill()
				began := time.Now()
				eventually(t, func() string {
					if left := marked(c.mark); len(left) > 0 {
						return fmt.Sprintf("processes %v of the client are left", left)
					}
					return ""
				})
				_ = c.Wait() // killed, as it should be
				eventually(t, func() string {
					if pools, err := d.Pools(t.Context()); err != nil || len(pools) != 1 {
						return fmt.Sprintf("the pools are %v, %v; want the shared one alone", pools, err)
					}
					return ""
				})
				pool.rest(t, 2)
				took := time.Since(began)
				pool.mustAnswer(t)
				before.back(t)
				if c.heir != 0 {
					if syscall.Kill(c.heir, 0) != nil {
						t.Error("the client's child, which holds its sockets, should have lived on")
					}
					syscall.Kill(c.heir, syscall.SIGKILL)
				}
				return took
			})
		})
	}
}

// Calls that nobody reads fill their own windows: those of others go on beside them, on the same connection.
func TestStuckReadersDelayNoOtherCallOfTheirConnection(t *testing.T) {
	d := serve(t)
	pool := d.open(t, "", client.Name("shared"))
	pool.mustAnswer(t)
	pool.rest(t, 2)
	before := used(t)
	conn, rpc, err := byHand(d.addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	const stuck = 8
	for range stuck {
		stream, err := rpc.Map(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&pb.MapRequest{Pool: "shared", Function: "do"}); err != nil {
			t.Fatal(err)
		}
		large := &pb.Batch{Data: bytes.Repeat([]byte(`"`+strings.Repeat("x", 1022)+`"`), 100), ItemSize: 1024, Count: 100} // the function answers with as much
		go func() {                                                                                                        // ends with ctx
			for stream.Send(&pb.MapRequest{Items: large}) == nil {
			}
		}()
	}
	eventually(t, func() string { // all windows are full: the workers have nothing to do
		info, err := pool.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.Calls != stuck || info.DoneTasks < stuck*1000 || info.Busy > 0 {
			return fmt.Sprintf("the pool is %v", info)
		}
		return ""
	})
	for range 100 {
		response, err := rpc.Apply(t.Context(), &pb.ApplyRequest{Pool: "shared", Function: "do", Item: []byte(`"a"`)})
		if err != nil || string(response.GetValue()) != `"A"` {
			t.Fatalf("an Apply beside them has %v, %v", response, err)
		}
	}
	cancel()
	conn.Close()
	pool.rest(t, 2)
	before.back(t)
}

// A client in a debugger is alive: its calls wait for it, and those of others do not.
func TestClientThatIsStoppedAndGoesOn(t *testing.T) {
	d := serve(t)
	pool := d.open(t, "", client.Name("shared"))
	pool.mustAnswer(t)
	promptly(t, "the rest of its call", clientBound, func() time.Duration {
		pool.rest(t, 2)
		before := used(t)
		c := startClient(t, "maps and checks", d.addr)
		c.expect(t, "ready")
		c.Process.Signal(syscall.SIGSTOP)
		for range 20 {
			promptly(t, "the call of another", crashBound, func() time.Duration {
				began := time.Now()
				pool.mustAnswer(t)
				return time.Since(began)
			})
		}
		c.Process.Signal(syscall.SIGCONT)
		began := time.Now()
		c.expect(t, "right")
		if err := c.Wait(); err != nil {
			t.Errorf("the client: %v", err)
		}
		pool.rest(t, 2)
		took := time.Since(began)
		before.back(t)
		return took
	})
}

// 64 processes use one pool at once, each with its own connections.
func TestSixtyFourClientsAtOnce(t *testing.T) {
	d := serve(t)
	pool := d.open(t, "", client.Name("shared"))
	pool.mustAnswer(t)
	pool.rest(t, 2)
	before := used(t)
	began := time.Now()
	clients := make([]*clientProcess, 64)
	for i := range clients {
		clients[i] = startClient(t, "maps and checks", d.addr)
	}
	for _, c := range clients {
		c.expect(t, "right")
		if err := c.Wait(); err != nil {
			t.Errorf("a client: %v", err)
		}
	}
	t.Logf("64 clients took %v", time.Since(began))
	pool.rest(t, 2)
	before.back(t)
}

// clientProcess is a client that is a process of its own.
type clientProcess struct {
	*exec.Cmd
	mark string
	says *bufio.Reader
	heir int // a child that holds its sockets
}

func startClient(t *testing.T, does, addr string) *clientProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &clientProcess{Cmd: exec.Command(self, asClient, does, addr), mark: fmt.Sprintf("PROCPOOL_TEST_CLIENT=%d", time.Now().UnixNano())}
	c.Env = append(os.Environ(), c.mark, "GORACE=atexit_sleep_ms=0")
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill() })
	c.says = bufio.NewReader(out)
	return c
}

// expect reads what the client says until it says word.
func (c *clientProcess) expect(t *testing.T, word string) {
	t.Helper()
	for {
		line, err := c.says.ReadString('\n')
		if err != nil {
			t.Fatalf("the client ends without saying %q: %v, %q", word, err, line)
		}
		if pid, ok := strings.CutPrefix(line, "heir "); ok {
			c.heir, _ = strconv.Atoi(strings.TrimSpace(pid))
		}
		if line == word+"\n" {
			return
		}
	}
}

// beClient is the client's process.
func beClient(does, addr string) int {
	if err := evilClients[does](context.Background(), addr); err != nil {
		fmt.Fprintf(os.Stderr, "a client that %s: %v\n", does, err)
		return 1
	}
	return 0
}

var evilClients = map[string]func(ctx context.Context, addr string) error{
	"maps and checks": mapAndCheck,
	"vanishes":        func(ctx context.Context, addr string) error { return vanish(ctx, addr, false) },
	"leaves its sockets to a child and vanishes": func(ctx context.Context, addr string) error { return vanish(ctx, addr, true) },
	"never reads":          neverRead,
	"half-closes":          halfClose,
	"sends garbage":        sendGarbage,
	"opens 10,000 streams": openStreams,
}

// ready says so, and waits to be killed.
func ready() error {
	fmt.Println("ready")
	for {
		<-time.After(time.Hour)
	}
}

func mapAndCheck(ctx context.Context, addr string) error {
	soon, cancel := context.WithTimeout(ctx, patience) // longer than Dial waits by itself
	defer cancel()
	c, err := client.Dial(soon, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	pool, err := c.Pool(ctx, "shared")
	if err != nil {
		return err
	}
	n := 0
	for out, err := range client.IMap(ctx, pool, poison, slices.Values(slices.Repeat([]int{7}, 2000))) {
		if err != nil || out.Err != nil || out.Value != 8 || out.Index != n {
			return fmt.Errorf("outcome %d is %+v, %w", n, out, err)
		}
		if n++; n == 100 {
			fmt.Println("ready")
		}
	}
	if n != 2000 {
		return fmt.Errorf("%d outcomes", n)
	}
	fmt.Println("right")
	return nil
}

// vanish has a pool of its own with a family in it, and a task on the shared one.
func vanish(ctx context.Context, addr string, withHeir bool) error {
	c, err := client.Dial(ctx, addr)
	if err != nil {
		return err
	}
	own, err := c.OpenPool(ctx, client.Workers(1))
	if err != nil {
		return err
	}
	if _, err := client.Apply(ctx, own, do, "has a family"); err != nil {
		return err
	}
	client.ApplyAsync(ctx, own, do, "stays a minute")
	shared, err := c.Pool(ctx, "shared")
	if err != nil {
		return err
	}
	client.ApplyAsync(ctx, shared, do, "stays a minute")
	if withHeir {
		if err := leaveSockets(); err != nil {
			return err
		}
	}
	return ready()
}

// leaveSockets starts a child that inherits the connections to the daemon.
func leaveSockets() error {
	heir := &os.ProcAttr{Files: []*os.File{nil, nil, nil}, Env: []string{"A=1"}}
	for fd := 3; fd < 100; fd++ {
		name, err := os.Readlink(fmt.Sprint("/proc/self/fd/", fd))
		if err != nil || !strings.HasPrefix(name, "socket:") {
			continue
		}
		dup, err := syscall.Dup(fd)
		if err != nil {
			return err
		}
		heir.Files = append(heir.Files, os.NewFile(uintptr(dup), name))
	}
	p, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, heir)
	if err != nil {
		return err
	}
	fmt.Println("heir", p.Pid)
	return nil
}

// byHand is a connection that does not go through our SDK.
func byHand(addr string) (*grpc.ClientConn, pb.PoolServiceClient, error) {
	conn, err := grpc.NewClient("unix:"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	return conn, pb.NewPoolServiceClient(conn), err
}

func numbers(n int) *pb.Batch {
	b := &pb.Batch{Data: bytes.Repeat([]byte("7"), n), ItemSize: 1, Count: uint32(n)}
	return b
}

// neverRead sends items as long as the daemon takes them, and reads no result.
func neverRead(ctx context.Context, addr string) error {
	_, rpc, err := byHand(addr)
	if err != nil {
		return err
	}
	for range 4 {
		stream, err := rpc.Map(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&pb.MapRequest{Pool: "shared", Function: "poison"}); err != nil {
			return err
		}
		go func() { // ends with the process
			for stream.Send(&pb.MapRequest{Items: numbers(1000)}) == nil {
			}
		}()
	}
	return ready()
}

// halfClose ends its half of connections and streams wherever that is not expected.
func halfClose(ctx context.Context, addr string) error {
	for _, begin := range []string{"", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"} {
		conn, err := net.Dial("unix", addr)
		if err != nil {
			return err
		}
		_, err = io.WriteString(conn, begin)
		if err := errors.Join(err, conn.(*net.UnixConn).CloseWrite()); err != nil {
			return err
		}
	}
	_, rpc, err := byHand(addr)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		first   *pb.MapRequest // nil: nothing is sent
		results int
		ends    codes.Code
	}{
		{nil, 0, codes.InvalidArgument},
		{&pb.MapRequest{Pool: "shared", Function: "poison"}, 0, codes.OK},
		{&pb.MapRequest{Pool: "shared", Function: "poison", Items: numbers(10)}, 10, codes.OK},
	} {
		stream, err := rpc.Map(ctx)
		if err != nil {
			return err
		}
		if c.first != nil {
			err = stream.Send(c.first)
		}
		if err := errors.Join(err, stream.CloseSend()); err != nil {
			return err
		}
		if results, err := eights(stream); results != c.results || status.Code(err) != c.ends {
			return fmt.Errorf("after %v and the end of its half it gets %d results and %w, want %d and %v", c.first, results, err, c.results, c.ends)
		}
	}
	return ready()
}

// eights reads a call to its end, whose results must be what sevens become. A call that ends well has no error.
func eights(stream grpc.BidiStreamingClient[pb.MapRequest, pb.MapResponse]) (results int, err error) {
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return results, nil
		case err != nil:
			return results, err
		case len(m.Failures) > 0:
			return results, fmt.Errorf("failures %v", m.Failures)
		}
		for _, r := range m.Results {
			for _, item := range split(r.Values) {
				if string(item) != "8" {
					return results, fmt.Errorf("the result %q, want 8", item)
				}
				results++
			}
		}
	}
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(_ []byte, _ any) error { return nil }
func (rawCodec) Name() string                    { return "proto" }

// sendGarbage sends bytes that mean nothing, in every envelope there is.
func sendGarbage(ctx context.Context, addr string) error {
	garbage := bytes.Repeat([]byte("garbage\xff\x00"), 10_000)
	for _, begin := range []string{"", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"} {
		conn, err := net.Dial("unix", addr)
		if err != nil {
			return err
		}
		_, _ = conn.Write(append([]byte(begin), garbage...)) // it may hang up in the middle
	}
	conn, _, err := byHand(addr)
	if err != nil {
		return err
	}
	for _, method := range []string{"Map", "ApplyAsync", "Apply", "OpenPool", "CreatePool", "Cancel", "None"} {
		for n := 1; n < 1000; n *= 3 {
			part := garbage[:n]
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/procpool.v1.PoolService/"+method, grpc.ForceCodec(rawCodec{}))
			if err != nil {
				return err
			}
			_ = stream.SendMsg(&part) // it may have been refused already
			if err := stream.RecvMsg(&part); err == nil {
				return fmt.Errorf("%s takes garbage", method)
			}
		}
	}
	return ready()
}

func openStreams(ctx context.Context, addr string) error {
	_, rpc, err := byHand(addr)
	if err != nil {
		return err
	}
	n := 100
	if raceEnabled {
		n = 20 // a fifth: they take ten times as long
	}
	var wg sync.WaitGroup
	errs := make(chan error, n*100)
	for range 100 {
		wg.Go(func() {
			for range n {
				stream, err := rpc.Map(ctx)
				if err == nil {
					err = stream.Send(&pb.MapRequest{Pool: "shared", Function: "poison", Items: numbers(1)})
				}
				if err == nil {
					_, err = stream.Recv() // it has begun, and does not end
				}
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return ready()
}
