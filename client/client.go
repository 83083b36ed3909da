package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
)

const (
	streamWindow  = 256 << 10              // bytes that the daemon may send on one stream before we have read them
	connWindow    = 1 << 20                // the same for a connection; gRPC reads on whatever the streams do, so it bounds nothing
	redialBackoff = 100 * time.Millisecond // first pause after a lost connection; doubles
	redialMax     = 2 * time.Second        // longest pause: a restarted daemon is found again within it
	redialWait    = 2 * time.Minute        // for an answer: while a daemon drains, connections wait in the socket that systemd keeps for the next one
	dialPatience  = 10 * time.Second       // for the first answer, unless systemd keeps the socket
	endPatience   = time.Second            // how long an end waits for callbacks that may be what called it
)

// Client is a connection to a daemon. It may be used by any number of goroutines. When the daemon is restarted it connects again by
// itself; calls that were running are lost, and it repeats none of them.
type Client struct {
	log *slog.Logger

	// Two connections: a Cancel or Terminate never waits behind the items of a Map.
	data, control       *grpc.ClientConn
	dataRPC, controlRPC pb.PoolServiceClient
	group               sync.WaitGroup // the goroutines of pools and their calls
	mu                  sync.Mutex
	closed              bool
	pools               map[*Pool]struct{} // that have something to end
}

const systemAddr = "/run/procpool/api.sock"

// Addresses lists the sockets at which Dial looks for a daemon when no address is given, in this order. $PROCPOOL_ADDR stands alone: a
// program whose daemon is named is never given another one. Else there are the user's own daemon and the
// system's: procpool/api.sock in $XDG_RUNTIME_DIR, else in /run/user/UID if that directory exists, else ~/.procpool/run/api.sock; then
// /run/procpool/api.sock.
func Addresses() []string {
	if addr := os.Getenv("PROCPOOL_ADDR"); addr != "" {
		return []string{SocketPath(addr)}
	}
	if user := userAddr(); user != systemAddr {
		return []string{user, systemAddr}
	}
	return []string{systemAddr}
}

// SocketPath is the path of an address: gRPC writes "unix:" or "unix://" before it, which may be left out.
func SocketPath(addr string) string {
	return strings.TrimPrefix(strings.TrimPrefix(addr, "unix://"), "unix:")
}

// userAddr is where the user's own daemon listens; for a user without a home, where the system's does.
func userAddr() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "procpool", "api.sock")
	}
	dir := filepath.Join("/run/user", strconv.Itoa(os.Getuid()))
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return filepath.Join(dir, "procpool", "api.sock")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return systemAddr
	}
	return filepath.Join(home, ".procpool", "run", "api.sock")
}

// Dial connects to a daemon at addr: the path of its Unix socket, or "unix:" and the path. With an empty addr it tries [Addresses] and takes
// the first where something listens. ctx bounds the connecting only; if it has no deadline, what listens has 10 s to answer, or 2 min if it is
// systemd, which keeps the socket while a daemon drains. The error lists what was tried and is [ErrUnavailable].
func Dial(ctx context.Context, addr string, opts ...Option) (*Client, error) {
	addrs := []string{addr}
	if addr == "" {
		addrs = Addresses()
	}
	var tried []string
	for _, a := range addrs {
		path := SocketPath(a)
		dial := func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
		c, err := DialFunc(ctx, dial, opts...)
		if err == nil {
			return c, nil
		}
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // without the path, which is said already
		}
		what := fmt.Sprintf("%s: %v", path, err)
		switch {
		case errors.Is(err, fs.ErrPermission):
			what += notOurs(path)
		case errors.Is(err, syscall.EINVAL) && len(path) > 100:
			what += fmt.Sprintf(": the path has %d bytes, and a Unix socket's at most 107, or fewer on other systems than Linux", len(path))
		}
		tried = append(tried, what)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("connect to procpoold at %s: %w", strings.Join(tried, "; "), contextError(ctx))
		}
	}
	return nil, fmt.Errorf("%w: tried %s (is procpoold running? If its socket is elsewhere, set PROCPOOL_ADDR)",
		ErrUnavailable, strings.Join(tried, "; "))
}

// notOurs says who may connect to a socket, as far as its mode says so.
func notOurs(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Perm()&0o020 == 0 {
		return ": only its owner may connect"
	}
	group := strconv.FormatUint(uint64(st.Gid), 10)
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return ": it is for members of the group " + group + "; ask the administrator for membership (usermod -aG), then log in anew"
}

// DialFunc is Dial for connections of another kind: dial makes one each time it is called, at any time until Close. ctx
// bounds the connecting only, which has 10 s if ctx has no deadline.
func DialFunc(ctx context.Context, dial func(context.Context) (net.Conn, error), opts ...Option) (*Client, error) {
	first, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	c := &Client{log: slog.Default(), pools: map[*Pool]struct{}{}}
	for _, o := range opts {
		o(c)
	}
	ready := make(chan net.Conn, 1) // the connection we have already, for the first to ask
	ready <- first
	c.data, err = newConn(func(ctx context.Context, _ string) (net.Conn, error) {
		select {
		case conn := <-ready:
			return conn, nil
		default:
			return dial(ctx)
		}
	})
	if err != nil {
		return nil, errors.Join(err, first.Close())
	}
	c.control, err = newConn(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) })
	if err != nil {
		return nil, errors.Join(err, c.data.Close(), first.Close())
	}
	c.dataRPC, c.controlRPC = pb.NewPoolServiceClient(c.data), pb.NewPoolServiceClient(c.control)
	if err := connect(ctx, c.data, listenerOf(first)); err != nil {
		_ = first.Close() // nobody may have asked for it
		return nil, errors.Join(err, c.data.Close(), c.control.Close())
	}
	return c, nil
}

func newConn(dial func(context.Context, string) (net.Conn, error)) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///procpool",
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithStaticStreamWindowSize(streamWindow),
		experimental.WithBufferPool(wire.Buffers),
		grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: redialBackoff, Multiplier: 2, Jitter: 0.2, MaxDelay: redialMax},
			MinConnectTimeout: redialWait,
		}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(wire.Codec{}),
			grpc.MaxCallRecvMsgSize(wire.MaxMessage),
			grpc.MaxCallSendMsgSize(wire.MaxMessage),
		),
	)
}

// connect waits until whoever listens has answered as a gRPC server does.
func connect(ctx context.Context, conn *grpc.ClientConn, who listener) error {
	patient := ctx
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		patient, cancel = context.WithTimeout(ctx, who.patience())
		defer cancel()
	}
	conn.Connect()
	for tried := false; ; {
		state := conn.GetState()
		switch {
		case state == connectivity.Ready:
			return nil
		case state == connectivity.Idle && !tried, state == connectivity.Connecting:
			tried = state == connectivity.Connecting
		default: // failed, or lost at once
			return fmt.Errorf("it listens%s, but does not answer as procpoold does, or does not admit this user", who)
		}
		if !conn.WaitForStateChange(patient, state) {
			silent := &silentError{listener: who}
			if ctx.Err() != nil {
				silent.ended = contextError(ctx)
			}
			return silent
		}
	}
}

// Close ends the connection. Pools opened by [Client.OpenPool] are terminated by that, calls and results still waiting end with [ErrClosed]; named
// pools live on. Idempotent.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	var pools []*Pool
	for p := range c.pools {
		pools = append(pools, p)
	}
	c.mu.Unlock()
	for _, p := range pools {
		p.end(ErrClosed)
	}
	err := errors.Join(c.data.Close(), c.control.Close())
	done := make(chan struct{})
	go func() { // ends with the last callback
		c.group.Wait()
		close(done)
	}()
	waitFor(done, endPatience)
	return err
}

// rpcError is err, the end of an RPC, in the words of this package.
func (c *Client) rpcError(ctx context.Context, err error, format string, args ...any) error {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed && ctx.Err() == nil {
		err = ErrClosed
	}
	return rpcError(ctx, err, format, args...)
}

// start runs f on a goroutine that Close waits for. False if the client is closed.
func (c *Client) start(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.group.Go(f)
	return true
}

// waitFor waits until done is closed, for at most d: the caller may be running inside what done stands for.
func waitFor(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// Describe tells who the daemon is, and which of its guarantees hold where it runs.
func (c *Client) Describe(ctx context.Context) (*pb.DescribeResponse, error) {
	r, err := c.controlRPC.Describe(ctx, &pb.DescribeRequest{})
	if err != nil {
		return nil, c.rpcError(ctx, err, "describe the daemon")
	}
	return r, nil
}

// Pools describes all pools of the daemon, by name.
func (c *Client) Pools(ctx context.Context) ([]*pb.Pool, error) {
	r, err := c.controlRPC.ListPools(ctx, &pb.ListPoolsRequest{})
	if err != nil {
		return nil, c.rpcError(ctx, err, "list pools")
	}
	return r.GetPools(), nil
}

// Workers describes the workers of a pool; of all pools if the name is empty.
func (c *Client) Workers(ctx context.Context, pool string) ([]*pb.Worker, error) {
	r, err := c.controlRPC.ListWorkers(ctx, &pb.ListWorkersRequest{Pool: pool})
	if err != nil {
		return nil, c.rpcError(ctx, err, "list workers")
	}
	return r.GetWorkers(), nil
}

// Calls describes the calls that have not ended, of a pool; of all pools if the name is empty.
func (c *Client) Calls(ctx context.Context, pool string) ([]*pb.Call, error) {
	r, err := c.controlRPC.ListCalls(ctx, &pb.ListCallsRequest{Pool: pool})
	if err != nil {
		return nil, c.rpcError(ctx, err, "list calls")
	}
	return r.GetCalls(), nil
}

// Cancel ends a call, whoever made it, or only the tasks with these indexes: waiting ones at once, running ones by their context,
// then by SIGTERM after the cancel grace, then by SIGKILL. It does not wait for them. A call whose client has not sent all its items yet ends
// with [ErrCancelled] as a whole.
func (c *Client) Cancel(ctx context.Context, callID string, indexes ...uint64) error {
	if _, err := c.controlRPC.Cancel(ctx, &pb.CancelRequest{CallId: callID, Indexes: indexes}); err != nil {
		return c.rpcError(ctx, err, "cancel %s", callID)
	}
	return nil
}
