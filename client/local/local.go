// Package local embeds a daemon in your program. The workers are children of this process: they have its user, working
// directory, environment and umask, and they are this very program, so main begins with workerproc.Main.
//
//	func main() {
//		workerproc.Main()
//		pool, err := local.OpenPool(ctx, client.Workers(2))
//		defer pool.Terminate()
//		lengths, err := client.Map(ctx, pool, countChars, files)
//	}
//
// Each worker is a start of this program, with all its package initialisation: docs/performance.md has the parts of a start, and the switches of
// go build that make it shorter.
//
// A daemon that happens to run on the machine is never used here; client.Dial is for that.
package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/server"
	"github.com/procpool/procpool/workerproc"
)

// OpenPool opens a pool on a daemon inside this process. All pools of a process share one daemon; it goes with the last of them.
// Should the process be killed, its workers and their children go as well.
//
// If the cgroup of this process has been delegated to it, the daemon divides it: the process moves to a leaf of it, and each worker gets one of its own.
// $PROCPOOL_CGROUP says otherwise: off, or the directory of a cgroup for the workers. docs/cgroups.md tells more.
//
// By default the pool's program is this program, with as many workers as there are usable CPUs; see client.PoolOption.
func OpenPool(ctx context.Context, opts ...client.PoolOption) (*client.Pool, error) {
	return shared.open(ctx, opts)
}

// Inline opens a pool whose workers are goroutines of this process: the same calls and the same results, for debuggers and unit
// tests. It isolates nothing. A function that crashes takes the program with it, and one that never returns cannot be killed. What goroutines cannot have (a limit of
// memory or processes; another program, working directory or environment) is client.ErrUnsupported; client.Umask has no effect.
func Inline(ctx context.Context, opts ...client.PoolOption) (*client.Pool, error) {
	return inline.open(ctx, opts)
}

// NewProcess prepares one call of fn in a process of its own; see client.Process.
func NewProcess[A, R any](fn client.Function[A, R], arg A) *client.Process[R] {
	return client.NewProcess(OpenPool, fn, arg)
}

var (
	shared = &embedded{}
	inline = &embedded{inProcess: true}
)

// embedded is a daemon inside this process, while there are pools on it.
type embedded struct {
	inProcess bool

	mu     sync.Mutex
	pools  int
	client *client.Client
	stop   func() error // stops the daemon and waits for it
}

func (e *embedded) open(ctx context.Context, opts []client.PoolOption) (*client.Pool, error) {
	if err := workerproc.Forgotten(); err != nil {
		return nil, fmt.Errorf("open pool: %w", client.ErrNotServing) // before it starts anything
	}
	c, err := e.acquire()
	if err != nil {
		return nil, err
	}
	pool, err := c.OpenPool(ctx, append(opts[:len(opts):len(opts)], client.AtEnd(e.release))...)
	if err != nil {
		return nil, errors.Join(err, e.release())
	}
	return pool, nil
}

// acquire starts the daemon, if there is none, and counts a pool.
func (e *embedded) acquire() (*client.Client, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client == nil {
		if err := e.start(); err != nil {
			return nil, fmt.Errorf("start the embedded daemon: %w", err)
		}
	}
	e.pools++
	return e.client, nil
}

// release counts a pool that has ended. The last one stops the daemon.
func (e *embedded) release() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pools--; e.pools > 0 {
		return nil
	}
	stop := e.stop
	e.client, e.stop = nil, nil
	return stop()
}

func (e *embedded) start() error {
	dir, err := makeDir()
	if err != nil {
		return err
	}
	s, err := server.New(server.Config{Dir: dir.path, Embedded: true, InProcess: e.inProcess, Cgroup: os.Getenv("PROCPOOL_CGROUP")})
	if err != nil {
		dir.remove()
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var dialer net.Dialer
	c, err := client.DialFunc(ctx, func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "unix", s.Addr()) })
	if err != nil {
		cancel()
		err = errors.Join(err, <-done)
		dir.remove()
		return err
	}
	e.client = c
	e.stop = func() error {
		err := c.Close()
		cancel()
		err = errors.Join(err, <-done)
		dir.remove()
		return err
	}
	return nil
}
