package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/server"
	"github.com/procpool/procpool/workerproc"
)

// Functions of the test's workers, which are the test binary too.
var (
	_ = workerproc.Func("double", func(_ context.Context, n int) (int, error) {
		if n < 0 {
			return 0, errors.New("it is negative")
		}
		return 2 * n, nil
	})
	_ = workerproc.Func("reverse", func(_ context.Context, b []byte) ([]byte, error) {
		slices.Reverse(b)
		return b, nil
	})
	_ = workerproc.Func("length", func(_ context.Context, s string) (map[string]any, error) {
		return map[string]any{"item": s, "length": len(s)}, nil
	})
	_ = workerproc.Func("say", func(_ context.Context, line string) (int, error) {
		fmt.Println(line)
		return os.Getpid(), nil
	})
	_ = workerproc.Func("wait", func(ctx context.Context, _ int) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
)

// newDaemon serves a daemon with a pool "test" and returns the arguments that lead there.
func newDaemon(t *testing.T) (addr []string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pp") // t.TempDir is too long: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := server.New(server.Config{Dir: dir, DrainTimeout: time.Second})
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
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	addr = []string{"--addr", s.Addr()}
	run0(t, append(addr, "create", "test", "-j", "2", "--", self)...)
	return addr
}

func TestMapCallsAFunctionOfAPool(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	for _, c := range []struct {
		name string
		args []string
		want result
	}{
		{"JSON items", []string{"-k", "--func", "double", ":::", "1", " 2 ", "30"}, result{stdout: "2\n4\n60\n"}},
		{
			"items that are not JSON are strings", []string{"-k", "--tag", "--func", "length", ":::", "a b", `"q"`},
			result{stdout: "a b\t{\"item\":\"a b\",\"length\":3}\n\"q\"\t{\"item\":\"q\",\"length\":1}\n"},
		},
		{"bytes", []string{"--func", "reverse", ":::", "1 caf\xe9"}, result{stdout: "\xe9fac 1\n"}},
		{
			"failures", []string{"-k", "--func", "double", ":::", "1", "-1", "x"},
			result{"2\n", "procpool: item 2 (-1): it is negative\nprocpool: item 3 (x): ", 2},
		},
		{
			"as objects", []string{"-k", "--json", "--func", "double", ":::", "4", "-1"},
			result{`{"index":0,"item":"4","outcome":"value","result":8,"attempt":1}` + "\n" +
				`{"index":1,"item":"-1","outcome":"task_error","error":"it is negative","worker":"test-1","attempt":1}` + "\n", "procpool: item 2 (-1): it is negative\n", 1},
		},
		{"time limits", []string{"--timeout", "50ms", "--func", "wait", ":::", "1"}, result{"", "procpool: item 1 (1): timeout", 1}},
		{"unknown functions", []string{"--func", "triple", ":::", "1"}, result{"", "", statusFailure}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := finish(t, procpool(t, slices.Concat(addr, []string{"map", "--pool", "test"}, c.args)...))
			stdout := strings.ReplaceAll(r.stdout, `"test-2"`, `"test-1"`)
			if stdout != c.want.stdout || r.status != c.want.status || !strings.HasPrefix(r.stderr, c.want.stderr) {
				t.Errorf("got  %#v\nwant %#v, or more on stderr", r, c.want)
			}
			if c.name == "unknown functions" && !strings.Contains(r.stderr, "double") {
				t.Errorf("%q does not say which functions there are", r.stderr)
			}
		})
	}
}

func TestMapPassesManyResults(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	const n = 100_000
	cmd := procpool(t, append(addr, "map", "-k", "--pool", "test", "--func", "double", "-a", "items")...)
	var in, want strings.Builder
	for i := range n {
		b, _ := json.Marshal(i)
		in.Write(append(b, '\n'))
		b, _ = json.Marshal(2 * i)
		want.Write(append(b, '\n'))
	}
	if err := os.WriteFile(filepath.Join(cmd.Dir, "items"), []byte(in.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := finish(t, cmd); r.stdout != want.String() || r.status != 0 {
		t.Errorf("got %d lines, status %d, want %d in order\n%s", strings.Count(r.stdout, "\n"), r.status, n, r.stderr)
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	for _, c := range []struct {
		args []string
		want result
	}{
		{[]string{"double", "21"}, result{"42\n", "", 0}},
		{[]string{"reverse", "ab"}, result{"ba\n", "", 0}},
		{[]string{"double", "-1"}, result{"", "procpool: double: it is negative\n", 1}},
		{[]string{"--timeout", "50ms", "wait", "1"}, result{"", "procpool: wait: timeout", 1}},
	} {
		args := slices.Concat(addr, []string{"apply", "--pool", "test", "--"}, c.args)
		if c.args[0] == "--timeout" {
			args = slices.Concat(addr, []string{"apply", "--pool", "test"}, c.args)
		}
		r := finish(t, procpool(t, args...))
		if r.stdout != c.want.stdout || r.status != c.want.status || !strings.HasPrefix(r.stderr, c.want.stderr) {
			t.Errorf("%q: got %#v, want %#v", c.args, r, c.want)
		}
	}
}

func TestListsAndCancel(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	apply := procpool(t, append(addr, "apply", "--pool", "test", "wait", "1")...)
	var applied result
	done := make(chan struct{})
	go func() {
		defer close(done)
		applied = finish(t, apply)
	}()
	var calls []struct{ ID, Pool, Function, Label string }
	eventually(t, func() string {
		out := run0(t, append(addr, "calls", "test", "-o", "json")...)
		if err := json.Unmarshal([]byte(out), &calls); err != nil || len(calls) != 1 || !strings.Contains(out, `"runningTasks":"1"`) {
			return "calls: " + out
		}
		return ""
	})
	if calls[0].Function != "wait" || calls[0].Label != "procpool apply" {
		t.Errorf("got call %+v, want wait, labelled procpool apply", calls[0])
	}
	for _, c := range []struct{ list, want string }{
		{"calls", calls[0].ID},
		{"workers", "busy"},
		{"pools", "procpool.command,double,reverse,length,say,wait"},
	} {
		out := run0(t, append(addr, c.list)...)
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if want := map[string]int{"calls": 2, "workers": 3, "pools": 2}[c.list]; len(lines) != want || !strings.Contains(out, c.want) {
			t.Errorf("%s: got %d lines without %s, want %d with it\n%s", c.list, len(lines), c.want, want, out)
		}
	}
	run0(t, append(addr, "cancel", calls[0].ID)...)
	<-done
	if applied.status != 1 || !strings.Contains(applied.stderr, "cancelled") {
		t.Errorf("the cancelled apply: got %+v, want status 1 and the word", applied)
	}
}

func TestPoolsEnd(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	at := func(args ...string) []string { return append(slices.Clone(addr), args...) }
	if r := finish(t, procpool(t, at("join", "test")...)); r.status != statusFailure || !strings.Contains(r.stderr, "open") {
		t.Errorf("join of an open pool: got %+v, want a refusal", r)
	}
	run0(t, at("close", "test")...)
	run0(t, at("join", "test")...)
	for _, verb := range []string{"close", "join", "terminate"} {
		run0(t, at(verb, "test")...) // what has ended has ended
	}
	if out := run0(t, at("pools", "-o", "json")...); out != "[]\n" {
		t.Errorf("got pools %s, want none", out)
	}
	if r := finish(t, procpool(t, at("close", "nobody")...)); r.status != statusFailure || !strings.Contains(r.stderr, "nobody") {
		t.Errorf("close of an unknown pool: got %+v, want a refusal", r)
	}
}

func TestAddrIsWhereADaemonListens(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	if got := run0(t, append(addr, "addr")...); got != addr[1]+"\n" {
		t.Errorf("got %q, want %s", got, addr[1])
	}
	cmd := procpool(t, "addr")
	runtime := filepath.Join(cmd.Dir, "run")
	cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+runtime, "PROCPOOL_ADDR=")
	if got, want := finish(t, cmd).stdout, runtime+"/procpool/api.sock\n"; got != want {
		t.Errorf("got %q where no daemon runs, want the first place, %s", got, want)
	}
}

func TestInterruptedApplyEndsItsTask(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	apply := procpool(t, append(addr, "apply", "--pool", "test", "wait", "1")...)
	if err := apply.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if out := run0(t, append(addr, "workers")...); !strings.Contains(out, "busy") {
			return out
		}
		return ""
	})
	if err := apply.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := apply.Wait(); apply.ProcessState.ExitCode() != 130 {
		t.Errorf("got %v, want status 130", err)
	}
	eventually(t, func() string {
		if out := run0(t, append(addr, "workers")...); strings.Contains(out, "busy") {
			return out
		}
		return ""
	})
}
