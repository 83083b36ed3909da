package main_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
)

// configured is a daemon with a configuration that the test may change.
type configured struct {
	*daemon
	dir string
}

// write writes a file of the configuration; without text it removes it.
func (c *configured) write(name, text string) {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if text == "" {
		if err := os.Remove(path); err != nil {
			c.t.Fatal(err)
		}
		return
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

func (c *configured) reload() { c.cmd.Process.Signal(syscall.SIGHUP) }

// pools waits until the pools are these, as "NAME WORKERS GENERATION STATE" each.
func (c *configured) pools(cl *client.Client, want ...string) {
	c.t.Helper()
	eventually(c.t, patience, func() string {
		list, err := cl.Pools(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		var got []string
		for _, p := range list {
			if p.Starting > 0 {
				return fmt.Sprintf("%s has workers that start", p.Name)
			}
			got = append(got, fmt.Sprintf("%s %d %d %s", p.Name, p.Workers, p.Generation, strings.ToLower(strings.TrimPrefix(p.State.String(), "POOL_STATE_"))))
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			return fmt.Sprintf("the pools are %q, want %q", got, want)
		}
		return ""
	})
}

// stopped ends the daemon and returns its log.
func (c *configured) stopped() string {
	c.cmd.Process.Signal(syscall.SIGTERM)
	<-c.done
	return c.log.String()
}

func startConfigured(t *testing.T, files map[string]string) *configured {
	t.Helper()
	c := &configured{daemon: &daemon{t: t}, dir: t.TempDir()}
	for name, text := range files {
		c.write(name, text)
	}
	c.daemon = startDaemon(t, "--config", filepath.Join(c.dir, "procpoold.toml"))
	return c
}

// ofE2E is the file of a pool of e2eworkers.
func ofE2E(args, more string) string {
	return fmt.Sprintf("command = [%q%s]\n%s", filepath.Join(bin, "e2eworker"), args, more)
}

func TestReloadMakesChangesAndDrainsPools(t *testing.T) {
	d := startConfigured(t, map[string]string{
		"procpoold.toml": "drain_timeout = \"10s\"\n", "conf.d/a.toml": ofE2E("", "workers = 1\n"), "conf.d/b.toml": ofE2E("", "workers = 1\n"),
	})
	c := d.dial()
	d.pools(c, "a 1 1 open", "b 1 1 open")
	b, err := c.Pool(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	napping := client.ApplyAsync(t.Context(), b, nap, 600_000)
	eventually(t, patience, func() string {
		if info, err := c.Pools(t.Context()); err != nil || info[1].Busy != 1 {
			return fmt.Sprintf("b does not work yet: %v %v", info, err)
		}
		return ""
	})

	d.write("conf.d/a.toml", ofE2E("", "workers = 2\n"))
	d.write("conf.d/b.toml", "")
	d.write("conf.d/c.toml", ofE2E("", "workers = 1\n"))
	d.write("procpoold.toml", "drain_timeout = \"11s\"\n")
	d.reload()
	d.pools(c, "a 2 1 open", "b 1 1 closed", "c 1 1 open") // b has its call still

	d.write("conf.d/a.toml", ofE2E(`, "anew"`, "workers = 2\n[worker]\nmax_age = \"1h\"\n"))
	d.reload()
	d.pools(c, "a 2 2 open", "b 1 1 closed", "c 1 1 open")

	d.write("conf.d/a.toml", ofE2E(`, "forgetful"`, "workers = 2\n"))
	d.reload()
	d.write("conf.d/c.toml", "workers = 1\n")
	d.reload()
	calls, err := c.Calls(t.Context(), "b")
	if err != nil || len(calls) != 1 {
		t.Fatal(calls, err)
	}
	if err := c.Cancel(t.Context(), calls[0].Id); err != nil {
		t.Fatal(err)
	}
	if _, err := napping.Get(t.Context()); err == nil {
		t.Error("the call that was cancelled has a result")
	}
	d.pools(c, "a 2 2 open", "c 1 1 open") // b has been released, and what is wrong has changed nothing

	log := d.stopped()
	for _, want := range []string{
		"the daemon must be restarted for some of its new configuration: keys=drain_timeout",
		"no longer in the configuration: draining: pool=b",
		"pool a: [worker] max_age cannot be changed while the pool runs; close it (procpool close a)",
		"the configuration is wrong, so nothing has changed: problem=", "c.toml: there is no command",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
}

func TestReloadMakesAPoolAgainThatHasEnded(t *testing.T) {
	d := startConfigured(t, map[string]string{"procpoold.toml": "log_level = \"debug\"\n", "conf.d/a.toml": ofE2E("", "workers = 1\n")})
	c := d.dial()
	d.pools(c, "a 1 1 open")
	for _, verb := range []string{"close", "join"} {
		if _, stderr, code := d.run("procpool", verb, "a"); code != 0 {
			t.Fatal(stderr)
		}
	}
	d.pools(c)
	d.write("conf.d/a.toml", ofE2E("", "workers = 1\n[worker]\nspares = 1\n"))
	d.reload()
	d.pools(c, "a 1 1 open")
}

func TestReloadNoticesThatALineProgramHasBeenReplaced(t *testing.T) {
	program := filepath.Join(t.TempDir(), "answer")
	install := func(answer string) {
		t.Helper()
		script := "#!/bin/sh\nwhile read -r line; do echo \"" + answer + " $line\"; done\n"
		if err := errors.Join(os.WriteFile(program+".new", []byte(script), 0o755), os.Rename(program+".new", program)); err != nil {
			t.Fatal(err)
		}
	}
	install("old")
	d := startConfigured(t, map[string]string{"procpoold.toml": "log_level = \"debug\"\n", "conf.d/a.toml": fmt.Sprintf("command = [%q]\nlines = true\nworkers = 1\n", program)})
	c := d.dial()
	d.pools(c, "a 1 1 open")
	install("new")
	d.reload()
	d.pools(c, "a 1 2 open")
	if out, stderr, code := d.run("procpool", "apply", "--pool", "a", "line", "x"); out != "\"new x\"\n" || code != 0 {
		t.Errorf("got %q, %d, %s", out, code, stderr)
	}
}

func TestADefaultOfAPoolIsForCallsThatDoNotSay(t *testing.T) {
	d := startConfigured(t, map[string]string{
		"procpoold.toml": "log_level = \"debug\"\n",
		"conf.d/a.toml":  ofE2E("", "workers = 1\n[task]\ntimeout = \"100ms\"\nmax_attempts = 2\n"),
	})
	pool, err := d.dial().Pool(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	for attempts, opts := range map[int][]client.CallOption{2: nil, 1: {client.MaxAttempts(1)}} {
		_, err := client.Apply(t.Context(), pool, die, 3, opts...)
		var task *client.TaskError
		if !errors.As(err, &task) || !errors.Is(err, client.ErrWorkerLost) || task.Attempts != attempts {
			t.Errorf("got %v, want a lost worker after %d attempts", err, attempts)
		}
	}
	if _, err := client.Apply(t.Context(), pool, nap, 600_000); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("a call that does not say: %v, want the pool's timeout", err)
	}
	if _, err := client.Apply(t.Context(), pool, nap, 300, client.TaskTimeout(time.Minute)); err != nil {
		t.Errorf("a call with a timeout of its own: %v", err)
	}
}

func TestAWrongConfigurationDoesNotStart(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "procpoold.toml")
	if err := os.WriteFile(file, []byte("log_levle = \"info\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {"--check-config"}, {"--print-config"}} {
		cmd := exec.Command(filepath.Join(bin, "procpoold"), append([]string{"--config", file, "--addr", filepath.Join(dir, "api.sock"), "--drain-timeout", "x"}, args...)...)
		out, err := cmd.CombinedOutput()
		want := "procpoold: --drain-timeout: drain_timeout is \"x\", which is no duration; write \"500ms\", \"30s\", \"10m\" or \"24h\"\n" +
			"procpoold: " + file + ":1:1: there is no key log_levle; did you mean log_level?\n"
		if err == nil || cmd.ProcessState.ExitCode() != 2 || string(out) != want {
			t.Errorf("%q: status %d\n%s\nwant 2\n%s", args, cmd.ProcessState.ExitCode(), out, want)
		}
	}
}

// TestAPoolThatCannotBeMadeHereDoesNotStart: that it needs cgroups, and that there are none, only the start finds out.
func TestAPoolThatCannotBeMadeHereDoesNotStart(t *testing.T) {
	d := newDaemon(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"procpoold.toml": "cgroup = \"off\"\n", "conf.d/a.toml": ofE2E("", "workers = 1\n[worker]\nmax_processes = 9\n")} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(d.cmd.Path, "--config", filepath.Join(dir, "procpoold.toml"), "--addr", d.addr).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "procpoold: pool a: max_processes cannot be kept here") {
		t.Errorf("%v\n%s", err, out)
	}
}
