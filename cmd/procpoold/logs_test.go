package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
)

var printLines = client.Func[int, int]("print")

// follower keeps the news of a daemon until they end.
type follower struct {
	news chan client.News
	err  error // when news is closed
}

func (d *daemon) follow(pool string) *follower {
	d.t.Helper()
	f := &follower{news: make(chan client.News, 100_000)} // more than a test makes
	c := d.dial()
	go func() { // ends with the daemon
		defer close(f.news)
		for n, err := range c.FollowLogs(d.t.Context(), pool, -1) {
			if f.err = err; err == nil {
				f.news <- n
			}
		}
	}()
	return f
}

// until reads news until want is content with one of them.
func (f *follower) until(t *testing.T, what string, want func(n client.News) bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case n, ok := <-f.news:
			if !ok {
				t.Fatalf("the news ended (%v) before %s", f.err, what)
			}
			if want(n) {
				return
			}
		case <-deadline:
			t.Fatalf("no %s", what)
		}
	}
}

// ends waits for the end of the news, which is no error.
func (f *follower) ends(t *testing.T, with string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case _, ok := <-f.news:
			if ok {
				continue
			}
			if f.err != nil {
				t.Errorf("the news did not end with %s, but with %v", with, f.err)
			}
			return
		case <-deadline:
			t.Fatalf("the news did not end with %s", with)
		}
	}
}

func apply[R any](t *testing.T, pool *client.Pool, fn client.Function[int, R], arg int) R {
	t.Helper()
	v, err := client.Apply(t.Context(), pool, fn, arg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLogsOfAPoolThatNobodyHasOpened(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	everything := d.follow("")
	pool := d.create("logging", 1)
	one := d.follow("logging")

	apply(t, pool, printLines, 3)
	for _, f := range []*follower{everything, one} {
		lines := 0
		f.until(t, "third line", func(n client.News) bool {
			if n.Output == nil || string(n.Output.Line) != fmt.Sprint("line ", lines) || n.Output.Worker != "logging-1" || n.Output.Stream != 1 {
				t.Errorf("got %+v %+v, want line %d of logging-1 on stdout", n, n.Output, lines)
			}
			lines++
			return lines == 3
		})
	}
	for args, want := range map[string]string{
		"logging":           "line 0|line 1|line 2|",
		"":                  "line 0|line 1|line 2|",
		"-n 1 logging":      "line 2|",
		"-n 0 logging":      "",
		"-n 2 -o json":      `"worker":"logging-1","pid":PID,"stream":"stdout","line":"line 1"}|"worker":"logging-1","pid":PID,"stream":"stdout","line":"line 2"}|`,
		"-o xml logging":    "255",
		"no-such-pool":      "255",
		"-n -1 logging":     "255",
		"logging one-too-m": "255",
	} {
		stdout, stderr, code := d.run("procpool", append([]string{"logs"}, strings.Fields(args)...)...)
		got := ""
		for line := range strings.Lines(stdout) {
			if strings.HasPrefix(line, "{") {
				var pid struct{ Pid int }
				if err := json.Unmarshal([]byte(line), &pid); err != nil {
					t.Errorf("%v in %s", err, line)
				}
				_, line, _ = strings.Cut(line, "Z\",")
				line = strings.Replace(line, fmt.Sprint(pid.Pid), "PID", 1)
			} else {
				_, line, _ = strings.Cut(line, "logging-1 stdout: ")
			}
			got += strings.Replace(line, "\n", "|", 1)
		}
		if code != 0 {
			got = fmt.Sprint(code)
		}
		if got != want {
			t.Errorf("logs %s: got %q (%s), want %q", args, got, stderr, want)
		}
	}

	// A flood neither blocks nor kills the worker, and all of it is accounted for.
	const flood = 20_000
	eventually(t, patience, func() string { // on a machine so busy that it takes 16 s for them, none are too many
		apply(t, pool, printLines, flood)
		lines, dropped := 0, 0
		one.until(t, "account of dropped lines", func(n client.News) bool {
			if n.Output != nil && n.Output.Stream == 2 {
				if _, err := fmt.Sscanf(string(n.Output.Line), "procpool: %d lines dropped", &n.Dropped); err != nil {
					t.Errorf("%q: %v", n.Output.Line, err)
				}
			} else if n.Output != nil {
				lines++
			}
			dropped += n.Dropped
			return lines+dropped == flood
		})
		if lines < 1000 || dropped == 0 {
			return fmt.Sprintf("%d lines came through and %d were dropped, want a burst and the rest", lines, dropped)
		}
		return ""
	})

	// A worker's end is told, with its reason.
	if _, err := client.Apply(t.Context(), pool, die, 3); err == nil {
		t.Error("the worker did not die")
	}
	for _, f := range []*follower{everything, one} {
		f.until(t, "end of the worker", func(n client.News) bool {
			return n.Exit != nil && n.Exit.Signal == "SIGKILL" && n.Exit.Worker == "logging-1" && !n.Exit.Time.IsZero()
		})
	}
	if stdout, _, _ := d.run("procpool", "logs", "logging"); !strings.Contains(stdout, "logging-1 ended: killed by SIGKILL") {
		t.Errorf("logs do not say why the worker ended:\n…%s", stdout[max(0, len(stdout)-500):])
	}

	stdout, stderr, code := d.grpcurl("-d", `{"pool":"logging","tail":2}`, d.addr, "procpool.v1.PoolService/Logs")
	if code != 0 || !strings.Contains(stdout, `"worker": "logging-1"`) {
		t.Errorf("grpcurl: status %d, %s\n%s", code, stderr, stdout)
	}

	if err := pool.Terminate(); err != nil {
		t.Fatal(err)
	}
	one.ends(t, "its pool")
	d.create("another", 1)
	d.cmd.Process.Signal(syscall.SIGTERM)
	everything.ends(t, "the daemon")
}

// The opener of a pool gets its lines himself; others can read them as well.
func TestLogsOfAnOpenedPool(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	own := make(chan string, 10) // more than is written
	pool, err := d.dial().OpenPool(t.Context(), client.Program(e2eworker()), client.Workers(1), client.Name("mine"),
		client.Output(func(o client.WorkerOutput) { own <- string(o.Line) }))
	if err != nil {
		t.Fatal(err)
	}
	apply(t, pool, printLines, 1)
	select {
	case line := <-own:
		if line != "line 0" {
			t.Errorf("the opener got %q", line)
		}
	case <-time.After(patience):
		t.Error("the opener got nothing")
	}
	read := 0
	for n, err := range d.dial().Logs(t.Context(), "mine", -1) {
		if read++; err != nil || n.Output == nil || string(n.Output.Line) != "line 0" {
			t.Errorf("somebody else got %+v, %v", n.Output, err)
		}
	}
	if read != 1 {
		t.Errorf("somebody else got %d lines", read)
	}
}

// Nobody has opened the pool, so what its workers write is in the log of the daemon, with whose it is.
func TestTheLogSaysWhoWroteALine(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	pool := d.create("logging", 1)
	pid, err := client.Apply(t.Context(), pool, client.Func[string, int]("say"), "one line")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Apply(t.Context(), pool, client.Func[string, int]("die"), "last words"); !errors.Is(err, client.ErrWorkerLost) {
		t.Fatalf("got %v, want %v", err, client.ErrWorkerLost)
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.done // its log is whole
	for stream, line := range map[string]string{"stdout": "one line", "stderr": "last words"} {
		want := fmt.Sprintf("procpoold.pool: output: pool=logging worker=logging-1 pid=%d stream=%s line=%q\n", pid, stream, line)
		if !strings.Contains(d.log.String(), want) {
			t.Errorf("the log of the daemon has no line with %q", want)
		}
	}
}

func e2eworker() string { return bin + "/e2eworker" }
