package server_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/server"
	"github.com/procpool/procpool/workerproc"
)

// The test binary is also the workers and the clients of these tests: real processes. Worker and client stand in os.Args.
const (
	asEvilWorker = "evil-worker" // and what is wrong with it; see evilworker_test.go
	asClient     = "client"      // and what it does, and where the daemon is; see evilclient_test.go
)

// The evil worker serves while packages initialise: a program that links workerproc and runs its main without calling Main is ended.
func init() {
	if len(os.Args) > 2 && os.Args[1] == asEvilWorker {
		os.Exit(beEvilWorker(os.Args[2]))
	}
}

func TestMain(m *testing.M) {
	workerproc.Main()
	if len(os.Args) > 3 && os.Args[1] == asClient {
		os.Exit(beClient(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

// daemon is a daemon in this process, with real sockets and real workers, and a client of it.
type daemon struct {
	*client.Client
	addr   string
	server *server.Server
}

func serve(t *testing.T) *daemon {
	t.Helper()
	return serveAs(t, server.Config{})
}

func serveAs(t *testing.T, cfg server.Config) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "p") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cfg.Dir, cfg.DrainTimeout = dir, time.Second
	s, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("daemon: %v", err)
		}
	})
	d := &daemon{Client: dial(t, s.Addr()), addr: s.Addr(), server: s}
	if _, err := d.Pools(t.Context()); err != nil { // its second connection is there from now on
		t.Fatal(err)
	}
	d.guarded(t)
	return d
}

// guarded waits until the daemon has its guardian, which comes with the first worker and stays: what is counted from now on includes it.
func (d *daemon) guarded(t *testing.T) {
	t.Helper()
	p := d.open(t, "", client.Workers(1))
	eventually(t, func() string {
		about, err := d.Describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range about.Guarantees {
			if g.Name == "guardian" && !strings.Contains(g.How, "started") {
				return "" // it stands, or cannot be had here
			}
		}
		return "the guardian is being started"
	})
	p.end(t)
}

func dial(t *testing.T, addr string) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// pool is a pool with quick limits, whose processes can be told from all others.
type pool struct {
	*client.Pool
	d     *daemon
	mark  string
	exits chan client.WorkerExit
}

// Limits of the pools in these tests.
const (
	cancelGrace = 200 * time.Millisecond
	killDelay   = 100 * time.Millisecond
)

// open opens a pool of workers. Evil is what is wrong with them; "": they are made with workerproc.
func (d *daemon) open(t *testing.T, evil string, opts ...client.PoolOption) *pool {
	t.Helper()
	p := &pool{d: d, mark: "PROCPOOL_TEST_POOL=" + strconv.FormatInt(time.Now().UnixNano(), 36), exits: make(chan client.WorkerExit, 1000)}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := client.Program(self)
	if evil != "" {
		program = client.Program(self, asEvilWorker, evil)
	}
	p.Pool, err = d.OpenPool(t.Context(), append([]client.PoolOption{
		client.Workers(2), program, client.Env(append(os.Environ(), p.mark, "GORACE=atexit_sleep_ms=0")...),
		client.CancelGrace(cancelGrace), client.KillDelay(killDelay),
		client.Output(func(client.WorkerOutput) {}),
		client.OnExit(func(e client.WorkerExit) {
			select {
			case p.exits <- e:
			default: // a loop of crashes; the first thousand will do
			}
		}),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.end(t) })
	return p
}

// end terminates the pool, and makes sure that no process of it is left.
func (p *pool) end(t *testing.T) {
	t.Helper()
	if err := p.Terminate(); err != nil {
		t.Errorf("terminate: %v", err)
	}
	eventually(t, func() string {
		if left := marked(p.mark); len(left) > 0 {
			return fmt.Sprintf("processes %v of the pool are left", left)
		}
		return ""
	})
}

// rest waits until n workers are idle and no more are there.
func (p *pool) rest(t *testing.T, n int) {
	t.Helper()
	eventually(t, func() string {
		info, err := p.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if int(info.Idle) != n || info.Busy+info.Starting != 0 || info.Calls != 0 {
			return fmt.Sprintf("the pool has %d idle, %d busy and %d starting workers and %d calls, want %d idle workers and nothing else",
				info.Idle, info.Busy, info.Starting, info.Calls, n)
		}
		return ""
	})
}

// exited waits for the end of a worker whose reason contains text.
func (p *pool) exited(t *testing.T, text string) client.WorkerExit {
	t.Helper()
	limit := time.After(patience)
	var seen []string
	for {
		select {
		case e := <-p.exits:
			if strings.Contains(e.String(), text) {
				return e
			}
			seen = append(seen, e.String())
		case <-limit:
			t.Fatalf("no worker ended by %q, but by %q", text, seen)
		}
	}
}

// marked is the processes with an entry in their environment that no others have.
func marked(entry string) (pids []int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range paths {
		env, err := os.ReadFile(path)
		if err != nil || !strings.Contains("\x00"+string(env), "\x00"+entry+"\x00") {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		pids = append(pids, pid)
	}
	return pids
}

// usage is what this process, in which the daemon runs, uses.
type usage struct{ goroutines, files, children int }

func used(t *testing.T) usage {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("this system has no /proc/self/fd, which this test counts")
	}
	u := usage{goroutines: runtime.NumGoroutine(), files: len(files)}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ") // the name may contain anything
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
			u.children++ // a zombie counts as well
		}
	}
	return u
}

// back waits until no more is used than before.
func (before usage) back(t *testing.T) {
	t.Helper()
	var now usage
	defer func() {
		if t.Failed() && now.goroutines > before.goroutines {
			stacks := make([]byte, 1<<20)
			t.Logf("goroutines:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
	}()
	eventually(t, func() string {
		now = used(t)
		if now.goroutines > before.goroutines || now.files > before.files || now.children > before.children {
			return fmt.Sprintf("%+v in use, before it was %+v", now, before)
		}
		return ""
	})
}

// patience is how long anything here may take at most, on a busy machine; nothing waits for it to pass.
const patience = 2 * time.Minute

// eventually waits until wrong has nothing to complain about.
func eventually(t *testing.T, wrong func() string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		complaint := wrong()
		if complaint == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(complaint)
		}
	}
}

// promptly measures how long something takes, says it, and complains when that is more than twenty times what is published. On a machine so busy that somebody
// had to wait for a CPU most of that time, late is no proof: then it measures again, five times in all.
func promptly(t *testing.T, what string, published time.Duration, measure func() time.Duration) {
	t.Helper()
	for attempt := 1; ; attempt++ {
		began, waited := time.Now(), waitedForCPU()
		took := measure()
		waited = waitedForCPU() - waited
		t.Logf("%s took %v, published is %v", what, took.Round(100*time.Microsecond), published)
		if took <= 20*published || t.Failed() {
			return
		}
		if attempt == 5 || waited < time.Since(began)/2 {
			t.Errorf("%s took %v, more than twenty times the published %v (attempt %d)", what, took, published, attempt)
			return
		}
	}
}

// waitedForCPU is for how long there has been a process that had to wait for a CPU, anywhere on this machine; always 0 on a system that does not say.
func waitedForCPU() time.Duration {
	pressure, err := os.ReadFile("/proc/pressure/cpu")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(pressure), "\n") // some avg10=0.00 avg60=0.00 avg300=0.00 total=0
	_, total, _ := strings.Cut(line, "total=")
	us, _ := strconv.ParseInt(total, 10, 64)
	return time.Duration(us) * time.Microsecond
}

const (
	stop   = syscall.SIGSTOP
	resume = syscall.SIGCONT
)

// signal sends a signal to every worker.
func (p *pool) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	workers, err := p.d.Workers(t.Context(), p.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range workers {
		if w.Pid != 0 { // else it is being started
			syscall.Kill(int(w.Pid), sig)
		}
	}
}

// cancelCalls cancels the calls of the pool once they run so many tasks. It complains until then.
func (p *pool) cancelCalls(t *testing.T, running uint64) string {
	t.Helper()
	calls, err := p.d.Calls(t.Context(), p.Name())
	if err != nil {
		t.Fatal(err)
	}
	if len(calls) != 1 || calls[0].RunningTasks < running {
		return fmt.Sprintf("the calls are %v, want one with %d running tasks", calls, running)
	}
	if err := p.d.Cancel(t.Context(), calls[0].Id); err != nil {
		t.Fatal(err)
	}
	return ""
}
