// End-to-end tests: the built programs, real sockets, stock grpcurl. Each is a promise of the README.
package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// bin has the programs, built once.
var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "procpool")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := run(m, dir)
	os.RemoveAll(dir)
	os.Exit(code)
}

// run runs the tests with the programs, which it builds in dir. PROCPOOL_TEST_BIN names a directory that has them already, for who cannot build them:
// another user, in CI.
func run(m *testing.M, dir string) (code int) {
	races := filepath.Join(dir, "races")
	if err := prepareRaces(races); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if bin = os.Getenv("PROCPOOL_TEST_BIN"); bin == "" {
		bin = dir
		if err := build(bin+"/", "./cmd/...", "./examples/...", "./cmd/procpoold/testdata/e2eworker", "./cmd/procpoold/testdata/soak"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	code = m.Run()
	reports, _ := filepath.Glob(filepath.Join(races, "*"))
	for _, file := range reports {
		report, _ := os.ReadFile(file)
		fmt.Fprintf(os.Stderr, "a data race in a program of these tests, in process%s:\n%s\n", filepath.Ext(file), report)
		code = 1
	}
	return code
}

// prepareRaces has every program with the race detector that a test starts report into a directory, and end: then its test fails, and so do all tests,
// whoever hears of the end. Without the detector's second of waiting at every exit, which is for reports that come late.
func prepareRaces(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.Chmod(dir, 0o777|os.ModeSticky)); err != nil { // some tests have other users
		return err
	}
	return os.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0 log_path="+filepath.Join(dir, "race"))
}

// build builds programs of this module, with the race detector if the tests have it: so it sees the daemon as well, and not only its clients.
func build(out string, packages ...string) error {
	args := []string{"build", "-o", out}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, packages...)...)
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

// daemon is a procpoold of its own.
type daemon struct {
	t    *testing.T
	addr string
	cmd  *exec.Cmd
	log  *bytes.Buffer
	done chan struct{} // closed when it has exited
	err  error
}

// startDaemon starts procpoold and waits until it answers.
func startDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	d := newDaemon(t, args...)
	d.start()
	return d
}

// newDaemon prepares a procpoold.
func newDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "p") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &daemon{t: t, addr: filepath.Join(dir, "api.sock"), log: new(bytes.Buffer), done: make(chan struct{})}
	d.cmd = exec.Command(filepath.Join(bin, "procpoold"), append([]string{"--addr", d.addr, "--log-level", "debug"}, args...)...)
	d.cmd.Stderr = d.log
	return d
}

func (d *daemon) start() {
	t := d.t
	t.Helper()
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.err = d.cmd.Wait(); close(d.done) }()
	t.Cleanup(func() {
		d.cmd.Process.Signal(syscall.SIGTERM)
		<-d.done
		if t.Failed() {
			t.Logf("log of procpoold:\n%s", d.log)
		}
	})
	eventually(t, patience, func() string {
		c, err := client.Dial(t.Context(), d.addr)
		if err != nil {
			return err.Error()
		}
		c.Close()
		return ""
	})
}

// run runs one of the programs against the daemon and returns its output.
func (d *daemon) run(name string, args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), filepath.Join(bin, name), args...)
	cmd.Env = append(os.Environ(), "PROCPOOL_ADDR="+d.addr)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatalf("%s: %v", name, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (d *daemon) create(name string, workers int) *client.Pool {
	d.t.Helper()
	if _, stderr, code := d.run("procpool", "create", name, "-j", strconv.Itoa(workers), "--", filepath.Join(bin, "e2eworker")); code != 0 {
		d.t.Fatalf("create: %s", stderr)
	}
	c := d.dial()
	pool, err := c.Pool(d.t.Context(), name)
	if err != nil {
		d.t.Fatal(err)
	}
	return pool
}

func (d *daemon) dial() *client.Client {
	d.t.Helper()
	c, err := client.Dial(d.t.Context(), d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

// grpcurl is the stock tool. Without it the test cannot run, and says so; in CI it must be there.
func (d *daemon) grpcurl(args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	tool, err := exec.LookPath("grpcurl")
	if err != nil {
		tool, err = filepath.Abs("../../.tools/bin/grpcurl")
		if err == nil {
			_, err = os.Stat(tool)
		}
	}
	if err != nil {
		const missing = "grpcurl is not there, so its promise is NOT tested here; tools/install brings it"
		if os.Getenv("CI") != "" {
			d.t.Fatal(missing)
		}
		d.t.Skip(missing)
	}
	cmd := exec.CommandContext(d.t.Context(), tool, append([]string{"-plaintext", "-unix"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		d.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// patience is how long anything here may take at most, on a busy machine; nothing waits for it to pass.
const patience = 2 * time.Minute

// eventually waits until wrong has nothing to complain about, at most for limit.
func eventually(t *testing.T, limit time.Duration, wrong func() string) time.Duration {
	t.Helper()
	started := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for {
		complaint := wrong()
		if complaint == "" {
			return time.Since(started)
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %v: %s", limit, complaint)
		}
	}
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && !errors.Is(err, os.ErrNotExist)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// gone complains while any of the processes lives.
func gone(pids []int) func() string {
	return func() string {
		for _, pid := range pids {
			if alive(pid) {
				return fmt.Sprintf("process %d is still there", pid)
			}
		}
		return ""
	}
}

var (
	countChars = client.Func[string, int]("count_chars")
	family     = client.Func[int, []int]("family")
	die        = client.Func[int, int]("die_at_3")
	nap        = client.Func[int, int]("nap")
	until      = client.Func[string, int]("until") // a file is there
)

func repositoryFiles(t *testing.T) (files []string, counts map[string]int) {
	t.Helper()
	counts = make(map[string]int)
	for _, name := range []string{"README.md", "go.mod", "LICENSE", "CHANGELOG.md", "buf.yaml"} {
		path, err := filepath.Abs(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
		counts[path] = utf8.RuneCount(b)
	}
	return files, counts
}

// checkCounts reads lines of "count file".
func checkCounts(t *testing.T, how, out string, want map[string]int) {
	t.Helper()
	got := make(map[string]int)
	for line := range strings.Lines(out) {
		var n int
		var file string
		if _, err := fmt.Sscan(line, &n, &file); err != nil {
			t.Fatalf("%s: cannot read %q", how, line)
		}
		got[file] = n
	}
	for file, n := range want {
		if got[file] != n {
			t.Errorf("%s: %s has %d characters, want %d", how, file, got[file], n)
		}
	}
}

func TestFourWaysToCountTheSameFiles(t *testing.T) {
	files, want := repositoryFiles(t)
	d := startDaemon(t)
	d.create("counting", 2)

	// 1: the README's command. Its wc needs a locale to count characters and not bytes.
	cmd := exec.Command(filepath.Join(bin, "procpool"), append([]string{"map", "-j", "2", "--", "wc", "-m", "{}", ":::"}, files...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("procpool map: %v", err)
	}
	checkCounts(t, "procpool map", string(out), want)

	// 2: the Go example, embedded.
	stdout, stderr, code := d.run("countchars", files...)
	if code != 0 {
		t.Fatalf("countchars: %s", stderr)
	}
	checkCounts(t, "countchars", stdout, want)

	// 3: the daemon and a client that only knows names.
	stdout, stderr, code = d.run("byname", append([]string{"counting"}, files...)...)
	if code != 0 {
		t.Fatalf("byname: %s", stderr)
	}
	checkCounts(t, "byname", stdout, want)
	stdout, stderr, code = d.run("procpool", append([]string{"map", "-k", "--pool", "counting", "--func", "count_chars", ":::"}, files...)...)
	if code != 0 {
		t.Fatalf("procpool map --pool: %s", stderr)
	}
	for i, line := range strings.Fields(stdout) {
		if line != strconv.Itoa(want[files[i]]) {
			t.Errorf("procpool map --pool: %s has %s characters, want %d", files[i], line, want[files[i]])
		}
	}

	// 4: grpcurl.
	request, err := json.Marshal(map[string]any{"pool": "counting", "function": "count_chars", "json": files})
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code = d.grpcurl("-d", string(request), d.addr, "procpool.v1.PoolService/Map")
	if code != 0 {
		t.Fatalf("grpcurl: %s", stderr)
	}
	got := make(map[string]int)
	for dec := json.NewDecoder(strings.NewReader(stdout)); ; {
		var m struct {
			Results []struct {
				First json.Number
				JSON  []int
			}
		}
		if err := dec.Decode(&m); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Fatalf("grpcurl: %v in %s", err, stdout)
			}
			break
		}
		for _, r := range m.Results {
			first, _ := strconv.Atoi(string(r.First)) // absent: 0
			for i, n := range r.JSON {
				got[files[first+i]] = n
			}
		}
	}
	for file, n := range want {
		if got[file] != n {
			t.Errorf("grpcurl: %s has %d characters, want %d", file, got[file], n)
		}
	}
}

func TestKilledWorkerCostsItsTaskOnly(t *testing.T) {
	d := startDaemon(t)
	pool := d.create("p", 2)
	got, err := client.Map(t.Context(), pool, die, []int{0, 1, 2, 3, 4, 5, 6, 7}, client.ChunkSize(1))
	var failed *client.MapError
	if !errors.As(err, &failed) || failed.Failed != 1 || failed.Errors[0].Index != 3 || !errors.Is(failed.Errors[0], client.ErrWorkerLost) {
		t.Fatalf("got %v, want worker lost for task 3 alone", err)
	}
	for i, v := range got {
		if i != 3 && v != i {
			t.Errorf("result %d is %d", i, v)
		}
	}
}

func TestKilledDaemonLeavesNoProcess(t *testing.T) {
	d := startDaemon(t)
	pool := d.create("p", 2)
	pids := families(t, pool, 2)
	d.cmd.Process.Kill()
	took := eventually(t, 40*time.Second, gone(pids))
	t.Logf("published bound 2s; took %v", took)

	// The next daemon takes the stale socket over.
	again := exec.Command(filepath.Join(bin, "procpoold"), "--addr", d.addr)
	if err := again.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		again.Process.Signal(syscall.SIGTERM)
		if err := again.Wait(); err != nil {
			t.Errorf("the next daemon: %v", err)
		}
	}()
	eventually(t, patience, func() string {
		c, err := client.Dial(t.Context(), d.addr)
		if err != nil {
			return err.Error()
		}
		c.Close()
		return ""
	})
}

// families starts a child in every worker and returns all their pids.
func families(t *testing.T, pool *client.Pool, workers int) (pids []int) {
	t.Helper()
	seen := make(map[int]bool)
	eventually(t, patience, func() string {
		lists, err := client.Map(t.Context(), pool, family, make([]int, workers), client.ChunkSize(1))
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range lists {
			seen[list[0]] = true
			pids = append(pids, list...)
		}
		if len(seen) < workers {
			return fmt.Sprintf("%d of %d workers have answered", len(seen), workers)
		}
		return ""
	})
	for _, pid := range pids {
		if !alive(pid) {
			t.Fatalf("process %d has not started", pid)
		}
	}
	return pids
}

func TestKilledClientEndsItsPools(t *testing.T) {
	d := startDaemon(t)
	for _, withChild := range []string{"", "child"} {
		cmd := exec.Command(filepath.Join(bin, "e2eworker"), "client", filepath.Join(bin, "e2eworker"), withChild)
		cmd.Env = append(os.Environ(), "PROCPOOL_ADDR="+d.addr)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var pids []int
		var child int
		if err := json.NewDecoder(out).Decode(&struct {
			Workers *[]int
			Child   *int
		}{&pids, &child}); err != nil {
			t.Fatalf("the client did not say which workers it has: %v", err)
		}
		cmd.Process.Kill()
		_ = cmd.Wait() // killed, as it should be
		took := eventually(t, 20*time.Second, gone(pids))
		t.Logf("client with child %q: published bound 1s; took %v", withChild, took)
		if withChild != "" {
			if !alive(child) {
				t.Error("the client's child, which holds its socket, should have lived on")
			}
			syscall.Kill(child, syscall.SIGKILL)
		}
	}
}

func TestSIGTERMDrains(t *testing.T) {
	d := startDaemon(t)
	pool := d.create("p", 1)
	let := runsUntil(t, pool)
	d.cmd.Process.Signal(syscall.SIGTERM)
	drains(t, pool)
	if v, err := let(); v != 1 || err != nil {
		t.Errorf("got %d, %v; want the accepted task to end", v, err)
	}
	<-d.done
	if d.err != nil {
		t.Errorf("procpoold: %v", d.err)
	}
	if _, err := os.Stat(d.addr); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// runsUntil has a task of the pool run until it is let.
func runsUntil(t *testing.T, pool *client.Pool) (let func() (int, error)) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "let")
	r := client.ApplyAsync(t.Context(), pool, until, file)
	eventually(t, patience, func() string {
		info, err := pool.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.Busy == 0 {
			return "the task does not run"
		}
		return ""
	})
	return func() (int, error) {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return r.Get(t.Context())
	}
}

// drains waits until the daemon drains: it says that the pool is closed, or nothing any more.
func drains(t *testing.T, pool *client.Pool) {
	t.Helper()
	eventually(t, patience, func() string {
		if info, err := pool.Info(t.Context()); err == nil && info.State == pb.PoolState_POOL_STATE_OPEN {
			return "the pool is still open"
		}
		return ""
	})
}

func TestForgottenMain(t *testing.T) {
	d := startDaemon(t)
	started := time.Now()
	c := d.dial()
	pool, err := c.CreatePool(t.Context(), "forgetful", client.Program(filepath.Join(bin, "e2eworker"), "forgetful"), client.Workers(2))
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Apply(t.Context(), pool, countChars, "x")
	if !errors.Is(err, client.ErrBootFailure) || !strings.Contains(err.Error(), "call workerproc.Main() first in main") {
		t.Errorf("got %v, want the sentence about workerproc.Main", err)
	}
	took := time.Since(started)
	t.Logf("published bound 2s; took %v", took)
	if took > 40*time.Second {
		t.Errorf("it took %v to say so", took)
	}
}

func TestBadInputIsRefusedAndHarmsNothing(t *testing.T) {
	d := startDaemon(t)
	pool := d.create("p", 1)
	for _, c := range []struct{ name, method, request, code, says string }{
		{"unknown pool", "Map", `{"pool":"q","function":"nap","json":[1]}`, "NotFound", "there is p"},
		{"unknown function", "Map", `{"pool":"p","function":"f","json":[1]}`, "NotFound", "nap"},
		{"no pool", "Map", `{"function":"nap"}`, "InvalidArgument", "which pool"},
		{"long linger", "Map", `{"pool":"p","function":"nap","linger":"2s","json":[1]}`, "InvalidArgument", "linger is 2s; at most 1s are allowed"},
		{"negative chunk size", "Map", `{"pool":"p","function":"nap","chunkSize":-1,"json":[1]}`, "InvalidArgument", "chunk_size is -1"},
		{"items before settings", "Map", `{"items":{"data":"MQ==","sizes":[1]}}`, "InvalidArgument", "first message"},
		{"sizes that do not add up", "Map", `{"pool":"p","function":"nap","items":{"data":"MQ==","sizes":[2]}}`, "InvalidArgument", "add up"},
		{"huge count", "Map", `{"pool":"p","function":"nap","items":{"count":4294967295}}`, "InvalidArgument", "too long"},
		{"settings twice", "Map", `{"pool":"p","function":"nap"}{"pool":"p","json":[1]}`, "InvalidArgument", "first message"},
		{"rounded integer", "Map", `{"pool":"p","function":"nap","json":[0, 90071992547409931]}`, "InvalidArgument", "json[1]"},
		{"json for another encoding", "Map", `{"pool":"p","function":"raw","json":[1]}`, "InvalidArgument", "bytes"},
		{"ids that do not match", "ApplyAsync", `{"pool":"p","function":"nap","ids":[1,2],"json":[1]}`, "InvalidArgument", "2 ids for 1 items"},
		{"bad call id", "Apply", `{"pool":"p","function":"nap","callId":"x","json":1}`, "InvalidArgument", "32 hex digits"},
		{"unknown call", "Cancel", `{"callId":"00000000000000000000000000000000"}`, "NotFound", "no call"},
		{"join of an open pool", "JoinPool", `{"pool":"p"}`, "FailedPrecondition", "close or terminate"},
		{"taken name", "CreatePool", `{"spec":{"name":"p","program":{"path":"/bin/true"}}}`, "AlreadyExists", "already"},
		{"bad name", "CreatePool", `{"spec":{"name":"a b","program":{"path":"/bin/true"}}}`, "InvalidArgument", "a name has"},
		{"missing program", "CreatePool", `{"spec":{"name":"n","program":{"path":"/no/such"}}}`, "FailedPrecondition", "does not exist"},
		{"relative program", "CreatePool", `{"spec":{"name":"n","program":{"path":"true"}}}`, "InvalidArgument", "absolute"},
		{"too many workers", "CreatePool", `{"spec":{"name":"n","workers":100000,"program":{"path":"/bin/true"}}}`, "InvalidArgument", "4096"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d.t = t
			_, stderr, code := d.grpcurl("-d", c.request, d.addr, "procpool.v1.PoolService/"+c.method)
			if code == 0 || !strings.Contains(stderr, "Code: "+c.code) || !strings.Contains(stderr, c.says) {
				t.Errorf("got status %d and %q, want code %s and %q", code, stderr, c.code, c.says)
			}
		})
	}
	d.t = t

	// A value that the function cannot take fails its task, and nothing else.
	stdout, stderr, code := d.grpcurl("-d", `{"pool":"p","function":"nap","json":[0,"x",0]}`, d.addr, "procpool.v1.PoolService/Map")
	if code != 0 || !strings.Contains(stdout, "decode the argument of nap") || strings.Count(stdout, "OUTCOME_TASK_ERROR") != 1 {
		t.Errorf("got %q, %q; want one task error", stdout, stderr)
	}

	// Garbage bytes on either socket.
	for _, path := range []string{d.addr, filepath.Join(filepath.Dir(d.addr), "private", "worker.sock")} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(bytes.Repeat([]byte("garbage\n"), 1000)) // it may hang up in the middle
		_, _ = io.Copy(io.Discard, conn)                           // until it does
		conn.Close()
	}

	// A second daemon, and a path that is too long.
	if out, err := exec.Command(filepath.Join(bin, "procpoold"), "--addr", d.addr).CombinedOutput(); err == nil || !strings.Contains(string(out), "another procpoold serves it already") {
		t.Errorf("a second daemon: %v, %s", err, out)
	}
	// One whose socket would be beside that of the first one, where the private socket is as well.
	beside := filepath.Join(filepath.Dir(d.addr), "b.sock")
	second := exec.Command(filepath.Join(bin, "procpoold"), "--addr", beside)
	if out, _ := second.CombinedOutput(); second.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "give this one an --addr in a directory of its own") {
		t.Errorf("a second daemon in the directory: %v, %s", second.ProcessState, out)
	}
	if _, err := os.Lstat(beside); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second daemon has left its socket: %v", err)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 120), "api.sock")
	if out, err := exec.Command(filepath.Join(bin, "procpoold"), "--addr", long).CombinedOutput(); err == nil || !strings.Contains(string(out), "107") {
		t.Errorf("a long path: %v, %s", err, out)
	}

	if v, err := client.Apply(t.Context(), pool, nap, 1); v != 1 || err != nil {
		t.Errorf("after all that, the pool answers %d, %v", v, err)
	}
}

func TestPoolThatSomebodyElseHasTerminated(t *testing.T) {
	d := startDaemon(t)
	pool := d.create("p", 1)
	if _, err := client.Apply(t.Context(), pool, nap, 1); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"terminate", "join"} {
		if _, stderr, code := d.run("procpool", verb, "p"); code != 0 {
			t.Fatalf("%s: %s", verb, stderr)
		}
	}
	if _, err := client.Apply(t.Context(), pool, nap, 1); !errors.Is(err, client.ErrPoolTerminated) {
		t.Errorf("got %v, want that the pool has been terminated", err)
	}
	if _, err := d.dial().Pool(t.Context(), "p"); !errors.Is(err, client.ErrPoolTerminated) {
		t.Errorf("got %v, want that the pool has been terminated", err)
	}
}

func TestCancelByGrpcurl(t *testing.T) {
	d := startDaemon(t)
	pool := d.create("p", 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := client.MapAsync(ctx, pool, nap, []int{600_000, 600_000})
	var id string
	eventually(t, patience, func() string {
		calls, err := d.dial().Calls(t.Context(), "p")
		if err != nil {
			t.Fatal(err)
		}
		if len(calls) == 0 || calls[0].RunningTasks == 0 {
			return "no task runs"
		}
		id = calls[0].Id
		return ""
	})
	if _, stderr, code := d.grpcurl("-d", fmt.Sprintf(`{"callId":%q}`, id), d.addr, "procpool.v1.PoolService/Cancel"); code != 0 {
		t.Fatalf("cancel: %s", stderr)
	}
	_, err := r.Get(ctx)
	var failed *client.MapError
	if !errors.As(err, &failed) || failed.Failed != 2 || !errors.Is(err, client.ErrCancelled) {
		t.Errorf("got %v, want two cancelled tasks", err)
	}
}

func TestHealthReflectionAndChannelz(t *testing.T) {
	d := startDaemon(t)
	for _, c := range [][]string{
		{d.addr, "list"},
		{d.addr, "describe", "procpool.v1.PoolService"},
		{d.addr, "grpc.health.v1.Health/Check"},
		{d.addr, "grpc.channelz.v1.Channelz/GetServers"},
	} {
		if out, stderr, code := d.grpcurl(c...); code != 0 || out == "" {
			t.Errorf("grpcurl %v: %s", c[1:], stderr)
		}
	}
}
