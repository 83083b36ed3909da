package main

import (
	"bufio"
	"io"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
)

func TestNewsForAPerson(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 15, 4, 5, 6e6, time.Local)
	exit := client.WorkerExit{Worker: "p-1", Pid: 7, Reason: "killed by SIGSEGV", CrashReport: []string{"SIGSEGV: segmentation violation", "main.go:7"}, Time: at}
	for _, c := range []struct {
		news       client.News
		want, wide string
	}{
		{client.News{Output: &client.WorkerOutput{Worker: "p-1", Pid: 7, Stream: 2, Line: []byte("a line"), Time: at}}, "p-1 stderr: a line\n", "p-1 7 stderr: a line\n"},
		{client.News{Output: &client.WorkerOutput{Worker: "p-1", Pid: 7, Stream: 1, Line: []byte("long"), Truncated: true, Time: at}}, "p-1 stdout: long … (the line is longer)\n", "p-1 7 stdout: long … (the line is longer)\n"},
		{client.News{Exit: &exit}, "p-1 ended: killed by SIGSEGV\n", "p-1 7 ended: killed by SIGSEGV\n\tSIGSEGV: segmentation violation\n\tmain.go:7\n"},
		{client.News{Dropped: 3}, "procpool: 3 lines were not read in time and are missing here\n", "procpool: 3 lines were not read in time and are missing here\n"},
	} {
		for _, form := range []struct {
			write func(*strings.Builder) error
			want  string
		}{
			{func(b *strings.Builder) error { return writeNews(b, &c.news) }, c.want},
			{func(b *strings.Builder) error { return writeNewsWide(b, &c.news) }, c.wide},
		} {
			var b strings.Builder
			if err := form.write(&b); err != nil {
				t.Fatal(err)
			}
			if got := regexp.MustCompile(`^2026-01-02 15:04:05\.006 `).ReplaceAllString(b.String(), ""); got != form.want {
				t.Errorf("got %q, want %q", got, form.want)
			}
		}
	}
}

func TestLogsFollowsUntilItIsInterrupted(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	say := func(line string) (pid string) {
		return strings.TrimSpace(run0(t, append(addr, "apply", "--pool", "test", "say", line)...))
	}
	logs := procpool(t, append(addr, "logs", "-f", "-n", "1", "-o", "wide", "test")...)
	out, err := logs.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	before := say("before it began")
	if err := logs.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out) // a line that does not come ends with the program, when its time is over
	said := func(pid, line string) {
		t.Helper()
		got, err := lines.ReadString('\n')
		if want := regexp.MustCompile(`^20\d\d-\d\d-\d\d [0-9:.]+ test-\d ` + pid + ` stdout: ` + line + `\n$`); err != nil || !want.MatchString(got) {
			t.Fatalf("got %q (%v), want %v", got, err, want)
		}
	}
	said(before, "before it began")
	said(say("when it had begun"), "when it had begun")
	if err := logs.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("it also wrote %q (%v)", rest, err)
	}
	if err := logs.Wait(); logs.ProcessState.ExitCode() != 130 {
		t.Errorf("got %v, want status 130", err)
	}
}
