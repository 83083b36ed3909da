package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestTopWithoutATerminal(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	out := run0(t, append(addr, "top", "-d", "100ms")...)
	if lines := strings.Split(out, "\n"); len(lines) != 6 || !strings.Contains(lines[0], "procpoold") || !strings.Contains(lines[3], "POOL") || !strings.HasPrefix(lines[4], "test ") {
		t.Errorf("got %q, want two lines about the daemon and a table of one pool", out)
	}
	if strings.ContainsRune(out, 0x1b) {
		t.Errorf("there are escapes in %q", out)
	}
	cmd := procpool(t, "--addr", t.TempDir()+"/nobody.sock", "top")
	if r := finish(t, cmd); r.status != statusFailure || !strings.Contains(r.stderr, "no connection to the daemon") {
		t.Errorf("without a daemon: %+v", r)
	}
}

// terminal runs the program in tmux, a real terminal.
type terminal struct {
	t      *testing.T
	socket string
}

func newTerminal(t *testing.T, width, height int, env string, args ...string) *terminal {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("tmux is not there, so the screen is NOT tested in a terminal here; apt-get install tmux brings it")
	}
	cmd := procpool(t, args...)
	quoted := env + " exec"
	for _, a := range cmd.Args {
		quoted += fmt.Sprintf(" '%s'", a)
	}
	term := &terminal{t, cmd.Dir + "/tmux"}
	term.tmux("-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height), asProgram+"=1 "+quoted+" 2>"+cmd.Dir+"/stderr")
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", term.socket, "kill-server").Run() })
	return term
}

func (term *terminal) tmux(args ...string) string {
	term.t.Helper()
	cmd := exec.Command("tmux", append([]string{"-S", term.socket}, args...)...)
	cmd.Env = append(os.Environ(), "SHELL=/bin/sh") // the user's may be nologin
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return string(out)
}

// shows waits until all of it is on the screen.
func (term *terminal) shows(want ...string) {
	term.t.Helper()
	eventually(term.t, func() string {
		screen := term.tmux("capture-pane", "-p")
		for _, w := range want {
			if !strings.Contains(screen, w) {
				return fmt.Sprintf("there is no %q on the screen:\n%s", w, screen)
			}
		}
		return ""
	})
}

func (term *terminal) ends() {
	term.t.Helper()
	eventually(term.t, func() string {
		if s := term.tmux("list-sessions"); !strings.Contains(s, "no server") && !strings.Contains(s, "error connecting") {
			return "it runs on: " + s
		}
		return ""
	})
}

func TestTopInATerminal(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	for _, c := range []struct {
		width int
		env   string
		want  string
	}{{80, "", "OLDEST"}, {200, "NO_COLOR=1", "FUNCTIONS"}, {80, "TERM=dumb", "OLDEST"}} {
		t.Run(fmt.Sprint(c.width, c.env), func(t *testing.T) { // one after the other: each has its call
			apply := procpool(t, append(addr, "apply", "--pool", "test", "wait", "1")...)
			if err := apply.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { apply.Process.Signal(syscall.SIGINT); _ = apply.Wait() }()
			term := newTerminal(t, c.width, 24, c.env, append(addr, "top", "-d", "200ms")...)
			term.shows("1/2 busy", "1 call,", "POOL↑", c.want, "> test", "q quit")
			term.tmux("send-keys", "Enter")
			term.shows("WORKERS of test", "busy", "wait")
			term.tmux("send-keys", "c")
			term.shows("CALLS of test", "wait", "1+")
			term.tmux("resize-window", "-x", "60", "-y", "10")
			term.tmux("send-keys", "Escape")
			term.shows("POOLS", "> test")
			term.tmux("send-keys", "q")
			term.ends()
		})
	}
}

func TestWatchedListInATerminal(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	term := newTerminal(t, 80, 24, "", append(addr, "pools", "--watch")...)
	term.shows("NAME", "test", "open")
	run0(t, append(addr, "create", "another", "--", "/bin/true")...)
	term.shows("test", "another")
	run0(t, append(addr, "terminate", "another")...)
	eventually(t, func() string {
		if s := term.tmux("capture-pane", "-p"); strings.Contains(s, "another") || !strings.Contains(s, "test") {
			return s
		}
		return ""
	})
	term.tmux("send-keys", "C-c")
	term.ends()
}

func TestWatchedListIsLinesOfJSON(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	cmd := procpool(t, append(addr, "pools", "--watch")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(out)
	next := func(want string) {
		t.Helper()
		for {
			var p struct{ Name string }
			if err := dec.Decode(&p); err != nil {
				t.Fatal(err)
			}
			if p.Name == want {
				return
			}
		}
	}
	next("test")
	run0(t, append(addr, "create", "another", "--", "/bin/true")...)
	next("another")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if s := cmd.ProcessState.ExitCode(); s != 130 {
		t.Errorf("status %d, want 130", s)
	}
}
