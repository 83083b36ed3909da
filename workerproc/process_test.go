package workerproc

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/protobuf/proto"
)

var (
	// flood starts a process that ignores SIGTERM and holds the named pipe, and then writes to stdout for ever.
	_ = Func("flood", func(_ context.Context, pipe string) (int, error) {
		c := exec.Command("/bin/sh", "-c", `trap "" TERM; exec 9>"$0"; echo begun >&9; sleep 60; sleep 60`, pipe)
		if err := c.Start(); err != nil {
			return 0, err
		}
		for {
			fmt.Println("a line")
		}
	})
	_ = Func("environment", func(_ context.Context, name string) (string, error) {
		value, ok := os.LookupEnv(name)
		if !ok {
			return "(none)", nil
		}
		return value, nil
	})
	_ = Func("mode of a new file", func(_ context.Context, path string) (string, error) {
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			return "", err
		}
		info, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		return info.Mode().String(), nil
	})
)

// output collects the lines of a process.
type output struct {
	mu    sync.Mutex
	lines []Line
}

func (o *output) add(l Line) {
	o.mu.Lock()
	o.lines = append(o.lines, l)
	o.mu.Unlock()
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	for _, l := range o.lines {
		fmt.Fprintf(&b, "%s\n", l.Text)
	}
	return b.String()
}

// start starts a program that needs no daemon.
func start(t *testing.T, path string, args ...string) (*Process, *output) {
	t.Helper()
	out := &output{}
	p, err := Start(Spec{Program: &pb.Program{Path: path, Args: args}, Bootstrap: &pb.Bootstrap{Socket: "/nonexistent"}, Output: out.add})
	if err != nil {
		t.Fatal(err)
	}
	return p, out
}

func shell(t *testing.T, script string) (*Process, *output) {
	t.Helper()
	return start(t, "/bin/sh", "-c", script)
}

// role starts the test binary as something else than a worker that serves.
func role(t *testing.T, name string) (*Process, *output) {
	t.Helper()
	out := &output{}
	p, err := Start(Spec{Program: &pb.Program{Path: os.Args[0], Env: append(os.Environ(), roleVar+"="+name)}, Bootstrap: &pb.Bootstrap{}, Output: out.add})
	if err != nil {
		t.Fatal(err)
	}
	return p, out
}

// child is a worker process that is ready.
type child struct {
	*guest
	*Process
	*output
}

func (h *host) start(env ...string) *child {
	h.t.Helper()
	return h.startProgram(&pb.Program{Path: os.Args[0], Env: append(os.Environ(), env...)})
}

func (h *host) startProgram(prog *pb.Program) *child {
	h.t.Helper()
	c := &child{output: &output{}}
	var err error
	if c.Process, err = Start(Spec{Program: prog, Bootstrap: &pb.Bootstrap{Socket: h.path, Worker: "p-1", Token: []byte("t")}, Output: c.output.add}); err != nil {
		h.t.Fatal(err)
	}
	select {
	case c.guest = <-h.guests:
	case <-time.After(patience):
		c.Kill()
		h.t.Fatalf("the worker does not attach; it ended by %v and said\n%s", c.Wait(), c.text())
	}
	if m := c.next(); m == nil || m.Head.GetReady() == nil {
		h.t.Fatalf("got %+v, want ready", m)
	}
	return c
}

func TestExitsAreTold(t *testing.T) {
	for script, want := range map[string]string{
		"exit 0":         "exit status 0",
		"exit 3":         "exit status 3",
		"kill -TERM $$":  "killed by SIGTERM",
		"kill -USR1 $$":  "killed by SIGUSR1",
		"kill -KILL $$":  "killed by SIGKILL",
		"kill -TERM 0":   "killed by SIGTERM",
		"exec 1>&- 2>&-": "exit status 0",
	} {
		p, _ := shell(t, script)
		if exit := p.Wait(); exit.String() != want || exit.Pid != p.Pid() {
			t.Errorf("%s: %v of %d, want %s of %d", script, exit, exit.Pid, want, p.Pid())
		}
	}
}

func TestSignalsAfterTheEndGoNowhere(t *testing.T) {
	p, _ := shell(t, "exit 0")
	p.Terminate() // not reaped yet: harmless
	p.Wait()
	p.Terminate()
	p.Kill()
	if !p.reaped {
		t.Error("a process that has been waited for is not reaped")
	}
}

func TestCrashReportOfAPanic(t *testing.T) {
	p, _ := role(t, rolePanic)
	exit := p.Wait()
	if exit.Code != 2 || len(exit.CrashReport) == 0 || exit.CrashReport[0] != "panic: so long" {
		t.Errorf("%v with the report %q, want exit status 2 and a report that begins with the panic", exit, exit.CrashReport)
	}
}

func TestLastWordsOfAProgramThatDoesNotCrash(t *testing.T) {
	p, _ := shell(t, "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); done; exit 1")
	exit := p.Wait()
	if n := len(exit.CrashReport); n != 20 || exit.CrashReport[0] != "line 10" || exit.CrashReport[19] != "line 29" {
		t.Errorf("got %q, want the last 20 lines", exit.CrashReport)
	}
}

func TestForgottenMainIsToldAndEnded(t *testing.T) {
	for _, name := range []string{roleForgottenProgram, roleForgottenTests} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			p, out := role(t, name)
			exit := p.Wait()
			if exit.Code != ExitConfig || !strings.Contains(out.text(), ErrForgotten.Error()) {
				t.Errorf("%v with %q, want exit status 78 and what to do", exit, out.text())
			}
			t.Logf("after %v", time.Since(began))
		})
	}
}

func TestSlowInitialisationOfPackagesIsNotForgetting(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w := h.start(roleVar + "=" + roleSlowStart)
	w.dispatch(w.chunk(1, "add1", "1"))
	w.results(outcome{1, 0, "2", 0})
	w.Kill()
	w.Wait()
}

// A mark in the environment is not enough to be a worker.
func TestAMarkWithoutAFrame(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, *exec.Cmd){
		"no descriptor 3": func(*testing.T, *exec.Cmd) {},
		"another frame": func(t *testing.T, c *exec.Cmd) {
			t.Helper()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close() })
			w.WriteString("++++++++++++++++")
			w.Close()
			c.ExtraFiles = []*os.File{r}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), mark+"="+markValue)
			prepare(t, c)
			out, _ := c.CombinedOutput()
			if c.ProcessState.ExitCode() != ExitConfig || !bytes.Contains(out, []byte(errNotOurs.Error())) {
				t.Errorf("%v with %q, want exit status 78 and %q", c.ProcessState, out, errNotOurs)
			}
		})
	}
}

func TestProgramsThatDoNotStartAreDiagnosed(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	rebuilt := file("rebuilt", "#!/bin/sh\n", 0o700)
	for name, tt := range map[string]struct {
		prog *pb.Program
		want string
	}{
		"missing":             {&pb.Program{Path: dir + "/none"}, "does not exist"},
		"not executable":      {&pb.Program{Path: file("plain", "#!/bin/sh\n", 0o600)}, "chmod +x"},
		"missing interpreter": {&pb.Program{Path: file("script", "#!/no/such/python -u\n", 0o700)}, "/no/such/python -u"},
		"not a program":       {&pb.Program{Path: file("text", "hello\n", 0o700)}, "is not an executable of this machine"},
		"a directory":         {&pb.Program{Path: dir}, "is a directory"},
		"missing directory":   {&pb.Program{Path: "/bin/sh", Dir: dir + "/none"}, "the working directory"},
		"rebuilt":             {&pb.Program{Path: rebuilt, Inode: 1, Device: 1}, "has been rebuilt"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Start(Spec{Program: tt.prog, Bootstrap: &pb.Bootstrap{}})
			if err == nil {
				t.Fatalf("it runs: %v", p.Wait())
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %q, want it to say %q", err, tt.want)
			}
		})
	}
}

func TestLongLinesAreCut(t *testing.T) {
	p, out := shell(t, `head -c 65536 /dev/zero | tr '\0' a; echo; head -c 1000000 /dev/zero | tr '\0' b; echo; echo short; printf partial; echo err >&2`)
	p.Wait()
	type line struct {
		n                  int
		truncated, partial bool
	}
	var got []line
	for _, l := range out.lines {
		if l.Pid != p.Pid() {
			t.Errorf("a line of process %d, want %d", l.Pid, p.Pid())
		}
		if l.Stream == 1 {
			got = append(got, line{len(l.Text), l.Truncated, l.Partial})
		} else if string(l.Text) != "err" {
			t.Errorf("stderr has %q, want err", l.Text)
		}
	}
	if want := []line{{maxLine, false, false}, {maxLine, true, false}, {5, false, false}, {7, false, true}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAFloodOfOutputDoesNotBlock(t *testing.T) {
	p, err := Start(Spec{Program: &pb.Program{Path: "/bin/sh", Args: []string{"-c", "head -c 50000000 /dev/zero; yes | head -c 5000000 >&2; exit 4"}}, Bootstrap: &pb.Bootstrap{}})
	if err != nil {
		t.Fatal(err)
	}
	if exit := p.Wait(); exit.Code != 4 {
		t.Errorf("%v, want exit status 4", exit)
	}
}

func TestAProcessOutsideTheGroupThatHoldsStdoutIsNotWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		role string
		most time.Duration
	}{
		"it is silent": {roleEscape, drainTime / 2},
		"it goes on":   {roleEscapeLoudly, 3 * drainTime},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			best := time.Duration(math.MaxInt64)
			for i := 0; i < 5 && best > c.most; i++ { // a busy machine may be what has taken its time
				p, out := role(t, c.role)
				if err := awaitExit(p.proc); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				exit := p.Wait()
				best = min(best, time.Since(began))
				if exit.Code != 0 || !strings.Contains(out.text(), lastWords) {
					t.Errorf("%v with the output %.100q, want exit status 0 and all of it", exit, out.text())
				}
			}
			if best > c.most {
				t.Errorf("it took %v at least, want at most %v", best, c.most)
			}
		})
	}
}

// fifo is a named pipe, and a function that waits for the first line and then for the end of everybody who holds it.
func fifo(t *testing.T) (path string, begun, gone func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	var r *bufio.Reader
	begun = func() {
		t.Helper()
		eventually(t, "the process has begun", func() bool { // before, there is nobody at the other end
			r = bufio.NewReader(f)
			_, err := r.ReadString('\n')
			return err == nil
		})
	}
	gone = func() {
		t.Helper()
		f.SetReadDeadline(time.Now().Add(patience))
		if b, err := r.ReadByte(); err == nil || os.IsTimeout(err) {
			t.Errorf("read %q, %v, want that everybody who holds the pipe is gone", b, err)
		}
	}
	return path, begun, gone
}

func TestTheGroupEndsWithItsLeader(t *testing.T) {
	path, begun, gone := fifo(t)
	p, _ := shell(t, fmt.Sprintf(`(trap "" TERM; exec 9>%s; echo begun >&9; sleep 60; sleep 60) & sleep 60`, path))
	begun()
	p.Terminate()
	if exit := p.Wait(); exit.Signal != "SIGTERM" {
		t.Errorf("%v, want killed by SIGTERM", exit)
	}
	gone()
}

// When the daemon dies, the pipes of stdout and stderr break and the lifeline ends. The worker must live long enough to kill its group.
func TestTheEndOfTheLifelineEndsTheGroup(t *testing.T) {
	for _, broken := range []bool{false, true} {
		t.Run(fmt.Sprintf("stdout is broken: %v", broken), func(t *testing.T) {
			path, begun, gone := fifo(t)
			w := newHost(t).start()
			w.dispatch(w.chunk(1, "flood", strconv.Quote(path)))
			begun()
			if broken {
				for _, f := range w.pipes {
					f.Close()
				}
				w.drained.Wait()
				<-time.After(50 * time.Millisecond) // for it to die of that, which it must not
				if p, ok := w.Progress(); !ok || !p.Running || ended(w.Process) {
					t.Errorf("the worker has ended, %+v", p)
				}
			}
			w.lifeline.Close()
			gone() // before Wait, which would kill them as well
			if exit := w.Wait(); exit.Signal != "SIGKILL" {
				t.Errorf("%v, want killed by SIGKILL", exit)
			}
		})
	}
}

// ended tells whether a process has ended.
func ended(p *Process) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

func TestSIGTERMEndsAWorkerWhenItsTaskHasReturned(t *testing.T) {
	w := newHost(t).start()
	w.dispatch(w.chunk(1, "add1", "1"), w.chunk(2, "until done", "0"))
	w.results(outcome{1, 0, "2", 0})
	eventually(t, "the task runs", func() bool { p, ok := w.Progress(); return ok && p.Running && p.Chunk == 2 })
	w.Terminate()
	w.results(outcome{2, 0, "", cancelled})
	if exit := w.Wait(); exit.String() != "exit status 0" {
		t.Errorf("%v, want exit status 0\n%s", exit, w.text())
	}
}

func TestALostStreamEndsTheGroup(t *testing.T) {
	w := newHost(t).start()
	close(w.leave)
	if exit := w.Wait(); exit.Signal != "SIGKILL" || !strings.Contains(w.text(), errLost.Error()) {
		t.Errorf("%v with %q, want killed by SIGKILL, and why", exit, w.text())
	}
}

// However a worker dies in the middle of a chunk: what it had computed is kept, and exactly one task is to blame.
func TestExactlyTheGuiltyTask(t *testing.T) {
	h := newHost(t)
	for _, size := range []int{1, 10, 1000} {
		t.Run(fmt.Sprintf("chunks of %d", size), func(t *testing.T) {
			for round := range 6 {
				h.t = t
				const tasks = 4000
				w := h.start()
				guilty := tasks/2 + round*7
				reading := make(chan struct{})
				go func() { // ends with the stream
					defer close(reading)
					for m := range w.said {
						w.seen = append(w.seen, outcomes(m.Results)...)
					}
				}()
				id := uint64(0)
				for n := 0; n < tasks; n += size {
					id++
					c := w.chunk(id, "die at -1")
					for i := n; i < min(tasks, n+size); i++ {
						arg := strconv.Itoa(i)
						if i == guilty {
							arg = "-1"
						}
						c.Items.Append([]byte(arg))
					}
					w.dispatch(c)
				}
				exit := w.Wait()
				<-reading
				if exit.Signal != "SIGKILL" || exit.Record == nil {
					t.Fatalf("%v with the record %v, want killed by SIGKILL, and a record\n%s", exit, exit.Record, w.text())
				}
				rec := exit.Record
				if got := (int(rec.Chunk)-1)*size + rec.Offset; !rec.Running || got != guilty {
					t.Errorf("to blame is task %d (%+v), want %d", got, rec.Progress, guilty)
				}
				at := func(o outcome) int { return (int(o.chunk)-1)*size + o.offset }
				done := 0
				for _, o := range append(w.seen, outcomes(rec.Results)...) {
					switch n := at(o); {
					case n > done:
						t.Fatalf("the outcome of task %d is lost; %d came by the stream, %d from the record", done, len(w.seen), len(rec.Results))
					case o.value != strconv.Itoa(n) || o.failure != 0:
						t.Fatalf("the outcome of task %d is %+v", n, o)
					case n == done: // else the record repeats what the stream has brought
						done++
					}
				}
				if done != guilty {
					t.Errorf("%d tasks have their outcome, want %d", done, guilty)
				}
			}
		})
	}
}

// Wherever a worker is when it is killed: its record and its stream together have every outcome up to the task that it ran, and no other.
func TestKilledAtAnyMoment(t *testing.T) {
	h := newHost(t)
	for round := range 10 {
		w := h.start()
		reading := make(chan struct{})
		go func() { // ends with the stream
			defer close(reading)
			for m := range w.said {
				w.seen = append(w.seen, outcomes(m.Results)...)
			}
		}()
		const size = 2000
		for id := range uint64(40) { // what waits in its socket is of no use any more
			id++
			c := w.chunk(id, "die at -1")
			for i := range size {
				c.Items.Append([]byte(strconv.Itoa((int(id)-1)*size + i)))
			}
			w.dispatch(c)
			if id == 30+uint64(round) {
				w.Kill()
			}
		}
		exit := w.Wait()
		<-reading
		rec := exit.Record
		if rec == nil {
			t.Fatalf("%v without a record\n%s", exit, w.text())
		}
		at := func(chunk uint64, offset int) int { return (int(chunk)-1)*size + offset }
		done := 0
		for _, o := range append(w.seen, outcomes(rec.Results)...) {
			switch n := at(o.chunk, o.offset); {
			case n > done:
				t.Fatalf("the outcome of task %d is lost; %d came by the stream, %d from the record", done, len(w.seen), len(rec.Results))
			case o.value != strconv.Itoa(n) || o.failure != 0:
				t.Fatalf("the outcome of task %d is %+v", n, o)
			case n == done: // else the record repeats what the stream has brought
				done++
			}
		}
		if running := at(rec.Chunk, rec.Offset); rec.Running && running != done && running != done-1 {
			t.Errorf("it ran task %d, and %d have their outcome", running, done)
		}
		t.Logf("killed after %d tasks, %d of them from the stream", done, len(w.seen))
	}
}

func TestEnvironmentOfAWorker(t *testing.T) {
	h := newHost(t)
	w := h.startProgram(&pb.Program{
		Path: os.Args[0], Dir: t.TempDir(), Umask: proto.Uint32(0o027),
		Env: append(os.Environ(), "GREETING=hello", mark+"=9", umaskVar+"=777"),
	})
	w.dispatch(w.chunk(1, "environment", strconv.Quote(mark), strconv.Quote(umaskVar), `"GREETING"`), w.chunk(2, "mode of a new file", `"new"`))
	w.results(outcome{1, 0, `"(none)"`, 0}, outcome{1, 1, `"(none)"`, 0}, outcome{1, 2, `"hello"`, 0}, outcome{2, 0, `"-rw-r-----"`, 0})
	w.Kill()
	if exit := w.Wait(); exit.Signal != "SIGKILL" {
		t.Errorf("%v, want killed by SIGKILL", exit)
	}
	cleared := environment(&pb.Program{ClearEnv: true})
	if want := []string{mark + "=" + markValue}; !slices.Equal(cleared, want) {
		t.Errorf("a cleared environment is %q, want %q", cleared, want)
	}
}

func TestNothingIsLeftOfAProcess(t *testing.T) {
	files := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skipf("descriptors cannot be counted here, so that none is left open is NOT tested; mount /proc: %v", err)
		}
		return len(list)
	}
	run := func() {
		p, _ := shell(t, "echo hello; exit 1")
		p.Wait()
		if _, err := Start(Spec{Program: &pb.Program{Path: "/none"}, Bootstrap: &pb.Bootstrap{}}); err == nil {
			t.Error("a missing program runs")
		}
	}
	run()
	fds, goroutines := files(), runtime.NumGoroutine()
	for range 20 {
		run()
	}
	runtime.GC() // closes what nobody has closed, which must be nothing; a pidfd is closed by Wait
	if got := files(); got > fds {
		t.Errorf("%d open files, want %d as before", got, fds)
	}
	eventually(t, fmt.Sprintf("%d goroutines as before", goroutines), func() bool { return runtime.NumGoroutine() <= goroutines })
}
