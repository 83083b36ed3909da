package workerproc

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/workerproc/internal/guard"
)

// Workers that do not watch their lifeline. Each has a child in its group, and says which.
var deaf = map[string]string{
	"idle":    `trap "" TERM; sleep 1000 & echo $!; wait`,
	"busy":    `trap "" TERM; sleep 1000 & echo $!; while :; do :; done`,
	"stopped": `trap "" TERM; sleep 1000 & echo $!; kill -STOP $$`,
}

const roleDaemon = "a daemon whose workers do not watch their lifeline"

func init() {
	if os.Getenv(roleVar) == roleDaemon {
		beDaemon()
	}
}

// beDaemon starts deaf workers and a guardian, tells the pids on stdout, and waits to be killed.
func beDaemon() {
	g := NewGuardian(nil, func(err error) { fmt.Println("misfortune", err) })
	for _, script := range deaf {
		_, err := Start(Spec{
			Program: &pb.Program{Path: "/bin/sh", Args: []string{"-c", script}}, Bootstrap: &pb.Bootstrap{}, Guardian: g,
			Output: func(l Line) { fmt.Printf("worker %d\nworker %s\n", l.Pid, l.Text) },
		})
		if err != nil {
			fmt.Println("misfortune", err)
		}
	}
	told := 0
	for range time.Tick(time.Millisecond) {
		if pid, _ := g.State(); pid != told {
			told = pid
			fmt.Println("guardian", pid)
		}
	}
}

// doomed is a daemon that will be killed.
type doomed struct {
	cmd      *exec.Cmd
	lines    *bufio.Scanner
	workers  []int // and their children
	guardian int
}

func startDoomed(t *testing.T) *doomed {
	t.Helper()
	d := &doomed{cmd: exec.Command(os.Args[0])}
	d.cmd.Env = append(os.Environ(), roleVar+"="+roleDaemon)
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.lines = bufio.NewScanner(out)
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.cmd.Process.Kill()
		d.cmd.Wait()
	})
	for len(d.workers) < 2*len(deaf) || d.guardian == 0 {
		d.read(t)
	}
	return d
}

// read takes one line of what it says.
func (d *doomed) read(t *testing.T) (misfortune string) {
	t.Helper()
	if !d.lines.Scan() {
		t.Fatalf("the daemon has said all it had to: %v", d.lines.Err())
	}
	word, rest, _ := strings.Cut(d.lines.Text(), " ")
	var pid int
	switch word {
	case "misfortune":
		return rest
	case "worker":
		fmt.Sscan(rest, &pid)
		d.workers = append(d.workers, pid)
	case "guardian":
		fmt.Sscan(rest, &d.guardian)
	}
	return ""
}

// kill kills the daemon and sees everything go.
func (d *doomed) kill(t *testing.T) {
	t.Helper()
	begun := time.Now()
	d.cmd.Process.Kill()
	for _, pid := range append(d.workers, d.guardian) {
		for ; living(pid); <-time.After(2 * time.Millisecond) {
			if time.Since(begun) > 40*time.Second {
				t.Fatalf("process %d is still there", pid)
			}
		}
	}
	t.Logf("published bound 2s; took %v", time.Since(begun))
}

// living tells whether a process has not ended. A zombie has.
func living(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z")
}

func TestAKilledDaemonLeavesNoDeafWorkerAndNoChildOfOne(t *testing.T) {
	t.Parallel()
	startDoomed(t).kill(t)
}

func TestAGuardianThatIsKilledIsReplaced(t *testing.T) {
	t.Parallel()
	d := startDoomed(t)
	first := d.guardian
	syscall.Kill(first, syscall.SIGKILL)
	why := d.read(t)
	for why == "" {
		why = d.read(t) // that there is none, which it may have seen before it was told why
	}
	if !strings.Contains(why, fmt.Sprintf("process %d has ended: signal: killed", first)) {
		t.Errorf("it says %q, want that the guardian was killed", why)
	}
	for d.guardian == first || d.guardian == 0 {
		d.read(t)
	}
	d.kill(t)
}

func TestAGuardianIgnoresTheSignalsOfTerminalsAndServiceManagers(t *testing.T) {
	t.Parallel()
	d := startDoomed(t)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
		syscall.Kill(d.guardian, sig)
	}
	if session, _, _ := syscall.Syscall(syscall.SYS_GETSID, uintptr(d.guardian), 0, 0); int(session) != d.guardian {
		t.Errorf("it is in session %d, want one of its own", session)
	}
	for _, fd := range []string{"0", "1", "2"} {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", d.guardian, fd)); to != os.DevNull {
			t.Errorf("it holds %s open as %s (%v)", to, fd, err)
		}
	}
	d.kill(t) // by the same guardian
}

func TestAGuardianEndsWithItsOwner(t *testing.T) {
	// Not parallel: it counts descriptors.
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	round := func() (guardian int) {
		g := NewGuardian(nil, func(err error) { t.Error(err) })
		p, err := Start(Spec{Program: &pb.Program{Path: "/bin/sleep", Args: []string{"1000"}}, Bootstrap: &pb.Bootstrap{}, Guardian: g})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the guardian stands", func() bool { guardian, err = g.State(); return err == nil })
		p.Kill()
		p.Wait()
		g.Close()
		return guardian
	}
	round() // what the first one needs, and then stays: epoll, for example
	before := count()
	for range 3 {
		pid := round()
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("guardian %d has not been reaped: %v", pid, err)
		}
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func TestAProgramThatEndsSoonHasNoGuardian(t *testing.T) {
	t.Setenv(guard.Mark, "x") // one that is started after all fails, and that is reported
	begun := time.Now()
	g := NewGuardian(nil, func(err error) {
		if took := time.Since(begun); took < guardDelay {
			t.Errorf("after %v: %v", took, err)
		}
	})
	p, err := Start(Spec{Program: &pb.Program{Path: "/bin/sleep", Args: []string{"1000"}}, Bootstrap: &pb.Bootstrap{}, Guardian: g})
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	p.Wait()
	g.Close()
}

func TestTheMarkOfAGuardianSetByHand(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, files := range [][]*os.File{nil, {os.Stdin}, {r}, {w}} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = []string{guard.Mark + "=" + guard.MarkValue}
		cmd.ExtraFiles = files
		var exit *exec.ExitError
		if out, err := cmd.CombinedOutput(); !errors.As(err, &exit) || exit.ExitCode() != 1 || len(out) > 0 {
			t.Errorf("with %d files: got %v and %q, want exit status 1 and silence", len(files), err, out)
		}
	}
}

func TestAWorkerDoesNotInheritTheMarkOfAGuardian(t *testing.T) {
	t.Setenv(guard.Mark, "something else")
	p, out := shell(t, `echo "${`+guard.Mark+`-none}"`)
	p.Wait()
	if got := out.text(); got != "none\n" {
		t.Errorf("the worker has the mark %q", got)
	}
	if _, _, err := new(Guardian).start(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a process with the mark starts a guardian: %v", err)
	}
}
