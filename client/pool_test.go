package client

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

func TestDialWithoutDaemonSaysWhatItTried(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PROCPOOL_ADDR", "")
	t.Setenv("XDG_RUNTIME_DIR", dir)
	user := filepath.Join(dir, "procpool", "api.sock")
	if got, want := Addresses(), []string{user, "/run/procpool/api.sock"}; !slices.Equal(got, want) {
		t.Errorf("addresses are %q, want %q", got, want)
	}
	_, err := Dial(t.Context(), "")
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("error is %v, want ErrUnavailable", err)
	}
	for _, want := range []string{user + ": ", "/run/procpool/api.sock: ", "no such file", "is procpoold running?"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not mention %q", err, want)
		}
	}
	t.Setenv("PROCPOOL_ADDR", "unix:/nowhere/api.sock")
	if _, err := Dial(t.Context(), ""); strings.Contains(err.Error(), user) || !strings.Contains(err.Error(), "/nowhere/api.sock: ") {
		t.Errorf("error is %q, want the named daemon and no other", err)
	}
}

func TestDialSaysThatAPathIsTooLong(t *testing.T) {
	if _, err := Dial(t.Context(), "/"+strings.Repeat("x", 119)); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "has 120 bytes") {
		t.Errorf("got %v, want to hear how long the path is", err)
	}
}

func TestDialOverAUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "api.sock")
	f := newFake(t)
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { // until newFake's cleanup stops the server
		defer close(served)
		_ = f.server.Serve(listener)
	}()
	for _, addr := range []string{path, "unix:" + path, "unix://" + path} {
		c, err := Dial(t.Context(), addr)
		if err != nil {
			t.Fatalf("dial %s: %v", addr, err)
		}
		if pools, err := c.Pools(t.Context()); err != nil || len(pools) != 1 {
			t.Errorf("pools are %v, %v; want one", pools, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	f.server.Stop()
	<-served
}

func TestDialOfSomethingElse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "other.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	if _, err := Dial(t.Context(), path); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error is %v, want ErrUnavailable", err)
	}
}

func TestUnknownPool(t *testing.T) {
	t.Parallel()
	_, err := newFake(t).client(t).Pool(t.Context(), "q")
	var refused *RefusedError
	if !errors.Is(err, ErrUnknownPool) || !errors.As(err, &refused) || !slices.Equal(refused.Known, []string{"p"}) {
		t.Errorf("error is %v, want ErrUnknownPool with a list", err)
	}
}

func TestClosedPoolTakesNoCalls(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	p, other := f.pool(t), f.pool(t)
	if err := p.Join(t.Context()); !errors.Is(err, ErrPoolOpen) {
		t.Errorf("join of an open pool: %v, want ErrPoolOpen", err)
	}
	if _, err := Apply(t.Context(), p, double, 1); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	eventually(t, "the stream of applies has ended", func() bool { return f.count(&f.live) == 0 })
	for _, p := range []*Pool{p, other} {
		if _, err := Map(t.Context(), p, double, numbers(1)); !errors.Is(err, ErrPoolClosed) {
			t.Errorf("map: %v, want ErrPoolClosed", err)
		}
		if _, err := Apply(t.Context(), p, double, 1); !errors.Is(err, ErrPoolClosed) {
			t.Errorf("apply: %v, want ErrPoolClosed", err)
		}
		for _, err := range IMap(t.Context(), p, double, slices.Values(numbers(1))) {
			if !errors.Is(err, ErrPoolClosed) {
				t.Errorf("imap: %v, want ErrPoolClosed", err)
			}
		}
	}
	for range 2 {
		if err := p.Join(t.Context()); err != nil {
			t.Errorf("join: %v", err)
		}
	}
	if err := p.Terminate(); err != nil {
		t.Errorf("terminate after join: %v", err)
	}
}

func TestTerminateEndsEverythingThatWaits(t *testing.T) {
	t.Parallel()
	for name, hang := range map[string]bool{"daemon answers": false, "daemon hangs": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				if hang {
					f.terminate = func(ctx context.Context) { <-ctx.Done() }
				}
				release := f.hold()
				defer release()
				p := f.pool(t)
				many, one := MapAsync(t.Context(), p, double, numbers(10)), ApplyAsync(t.Context(), p, double, 1)
				lazy := make(chan error, 1)
				go func() {
					for _, err := range IMap(t.Context(), p, double, slices.Values(numbers(10))) {
						lazy <- err
					}
				}()
				synctest.Wait()
				begin := time.Now()
				err := p.Terminate()
				if hang != (err != nil) {
					t.Errorf("terminate: %v", err)
				}
				if took := time.Since(begin); took > terminatePatience+2*endPatience {
					t.Errorf("terminate took %v", took)
				}
				if again := p.Terminate(); !errors.Is(again, err) {
					t.Errorf("terminate again: %v, want what it was", again)
				}
				if _, err := many.Get(t.Context()); !errors.Is(err, ErrPoolTerminated) {
					t.Errorf("map: %v, want ErrPoolTerminated", err)
				}
				if _, err := one.Get(t.Context()); !errors.Is(err, ErrPoolTerminated) {
					t.Errorf("apply: %v, want ErrPoolTerminated", err)
				}
				if err := <-lazy; !errors.Is(err, ErrPoolTerminated) {
					t.Errorf("imap: %v, want ErrPoolTerminated", err)
				}
			})
		})
	}
}

func TestClientCloseEndsEverythingThatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		release := f.hold()
		defer release()
		c := f.client(t)
		p, err := c.OpenPool(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		many, one := MapAsync(t.Context(), p, double, numbers(10)), ApplyAsync(t.Context(), p, double, 1)
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if _, err := many.Get(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("map: %v, want ErrClosed", err)
		}
		if _, err := one.Get(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("apply: %v, want ErrClosed", err)
		}
		if _, err := Apply(t.Context(), p, double, 1); !errors.Is(err, ErrClosed) {
			t.Errorf("next apply: %v, want ErrClosed", err)
		}
		if _, err := c.Pools(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("list: %v, want ErrClosed", err)
		}
	})
}

func TestOpenPoolCarriesThisProgram(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	p, err := f.client(t).OpenPool(t.Context(), Workers(3), InitArg(map[string]int{"a": 1}), CancelGrace(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	spec := f.specs[0]
	self, _ := os.Executable()
	dir, _ := os.Getwd()
	program := spec.Program
	if program.Path != self || program.Dir != dir || !slices.Equal(program.Env, os.Environ()) || program.Umask == nil || program.Inode == 0 || program.MtimeNs == 0 {
		t.Errorf("program is %v, want this one, here", program)
	}
	if spec.Workers != 3 || string(spec.InitArgument) != `{"a":1}` || spec.CancelGrace.AsDuration() != time.Second || spec.KillDelay != nil {
		t.Errorf("spec is %v", spec)
	}
	if p.Name() != "pool-1" {
		t.Errorf("name is %q, want the daemon's choice", p.Name())
	}
	for name, opt := range map[string]PoolOption{"workers": Workers(-1), "init argument": InitArg(func() {}), "program": Program("/no/such/program")} {
		if _, err := f.client(t).OpenPool(t.Context(), opt); err == nil {
			t.Errorf("bad %s: no error", name)
		}
	}
}

func TestOpenPoolCarriesAnotherProgram(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	_, err := f.client(t).OpenPool(t.Context(), Name("q"), Program("sh", "-c", "true"), Dir("."), Env("A=b"), Umask(0o27),
		StartTimeout(time.Second), ReadyTimeout(time.Minute), KillDelay(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	spec, program := f.specs[0], f.specs[0].Program
	if !filepath.IsAbs(program.Path) || filepath.Base(program.Path) != "sh" || !slices.Equal(program.Args, []string{"-c", "true"}) ||
		!filepath.IsAbs(program.Dir) || !slices.Equal(program.Env, []string{"A=b"}) || program.ClearEnv || program.GetUmask() != 0o27 {
		t.Errorf("program is %v", program)
	}
	if spec.Name != "q" || spec.StartTimeout.AsDuration() != time.Second || spec.ReadyTimeout.AsDuration() != time.Minute || spec.KillDelay.AsDuration() != time.Hour {
		t.Errorf("spec is %v", spec)
	}
	if _, err := f.client(t).OpenPool(t.Context(), Program("no such program")); !errors.Is(err, ErrProgram) {
		t.Errorf("error is %v, want ErrProgram", err)
	}
	if _, err := f.client(t).OpenPool(t.Context(), Env()); err != nil || len(f.specs[1].Program.Env) != 0 || !f.specs[1].Program.ClearEnv {
		t.Errorf("an empty environment: %v, %v", f.specs[1].Program, err)
	}
}

func TestOpenPoolTellsOutputAndExits(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.events = func(stream grpc.ServerStreamingServer[pb.OpenPoolResponse]) {
		_ = stream.Send(&pb.OpenPoolResponse{Outputs: []*pb.WorkerOutput{{Worker: "pool-1-1", Pid: 4711, Stream: 2, Line: []byte("hello")}}})
		_ = stream.Send(&pb.OpenPoolResponse{Dropped: 3, Exits: []*pb.WorkerExit{{Worker: "pool-1-1", Pid: 4711, ExitCode: 3, Reason: "exit status 3"}}})
	}
	var got []string
	ended := 0
	p, err := f.client(t).OpenPool(t.Context(),
		Output(func(o WorkerOutput) { got = append(got, o.Worker+" wrote "+string(o.Line)) }),
		OnExit(func(e WorkerExit) { got = append(got, e.String()) }),
		AtEnd(func() error { ended++; return nil }))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Join(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.Terminate(); err != nil {
		t.Error(err)
	}
	want := []string{"pool-1-1 wrote hello", "exit status 3 (pool-1-1, pid 4711)", "killed by SIGTERM (pool-1-1, pid 4711)"}
	if !slices.Equal(got, want) {
		t.Errorf("events are %q, want %q", got, want)
	}
	if ended != 1 {
		t.Errorf("AtEnd was called %d times, want once", ended)
	}
}

func TestOpenPoolEndsWithItsDaemon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		defer f.hold()()
		p, err := f.client(t).OpenPool(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r := MapAsync(t.Context(), p, double, numbers(1))
		synctest.Wait()
		f.server.Stop()
		if _, err := r.Get(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("map: %v, want ErrUnavailable", err)
		}
		synctest.Wait()
		if _, err := Apply(t.Context(), p, double, 1); !errors.Is(err, ErrUnavailable) {
			t.Errorf("apply: %v, want ErrUnavailable", err)
		}
		if err := p.Terminate(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("terminate: %v, want ErrUnavailable", err)
		}
	})
}

func TestOpenPoolIsBoundByItsContextOnlyWhileOpening(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	c := f.client(t)
	ctx, cancel := context.WithCancel(t.Context())
	p, err := c.OpenPool(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := Apply(t.Context(), p, double, 1); err != nil {
		t.Errorf("apply after the opening context has ended: %v", err)
	}
	if _, err := c.OpenPool(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("open with an ended context: %v, want Canceled", err)
	}
}

func TestCreatePool(t *testing.T) {
	t.Parallel()
	c := newFake(t).client(t)
	p, err := c.CreatePool(t.Context(), "thumbs", Workers(2))
	if err != nil || p.Name() != "thumbs" {
		t.Fatalf("created %v, %v", p, err)
	}
	if _, err := c.CreatePool(t.Context(), "thumbs"); !errors.Is(err, ErrPoolExists) {
		t.Errorf("error is %v, want ErrPoolExists", err)
	}
}

func TestAWorkerThatDoesNotServeOpensNoPool(t *testing.T) {
	c := newFake(t).client(t)
	t.Setenv("PROCPOOL_WORKER", "3")
	want := "this process was started as a procpool worker, but it does not serve: call workerproc.Main() first in main (and in TestMain)"
	if _, err := c.OpenPool(t.Context()); err == nil || err.Error() != want {
		t.Errorf("open: error is %v, want exactly %q", err, want)
	}
	if _, err := c.CreatePool(t.Context(), "x"); !errors.Is(err, ErrNotServing) {
		t.Errorf("create: %v, want ErrNotServing", err)
	}
}
