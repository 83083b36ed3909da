package mapping

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/procpool/procpool/cmd/procpool/internal/text"
)

// testJobs are jobs with an item each.
func testJobs(items ...string) []*job { return slices.Collect(jobs(slices.Values(items), 1)) }

func echo(j *job) string { return "echo " + quote(j.name()) }

// openTestLog opens a joblog that is closed when the test ends.
func openTestLog(t *testing.T, file string, goOn bool) (*joblog, *resumed) {
	t.Helper()
	l, old, err := openJoblog(file, goOn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.close() })
	l.command = func(e *ended) string { return echo(e.Job) }
	return l, old
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestJoblogColumns(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "log")
	l, _ := openTestLog(t, file, false)
	start := time.UnixMilli(1_700_000_000_123)
	for i, e := range []ended{
		{Outcome: "value", Result: commandResult{Seconds: 0.5, Stdout: text.Bytes("abc")}},
		{Outcome: "task_error", Result: commandResult{Seconds: 12.3456, ExitCode: 3}},
		{Outcome: "task_error", Result: commandResult{ExitCode: 137, Signal: "SIGKILL"}},
		{Outcome: "timeout", Result: commandResult{ExitCode: 143, Signal: "SIGTERM"}},
		{Outcome: "worker_lost"},
	} {
		e.Index, e.Job, e.Attempt, e.Start = i, testJobs("a", "b", "c", "d", "e")[i], 2, start
		if i == 0 {
			for attempt, piece := range []string{"what failed is void", "12345"} {
				if err := l.piece(0, attempt+1, 1, e.Job, []byte(piece)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := l.end(&e); err != nil {
			t.Fatal(err)
		}
	}
	want := joblogHeader +
		"1\t:\t1700000000.123\t     0.500\t0\t8\t0\t0\techo a\n" +
		"2\t:\t1700000000.123\t    12.346\t0\t0\t3\t0\techo b\n" +
		"3\t:\t1700000000.123\t     0.000\t0\t0\t0\t9\techo c\n" +
		"4\t:\t1700000000.123\t     0.000\t0\t0\t-1\t15\techo d\n" +
		"5\t:\t1700000000.123\t     0.000\t0\t0\t-1\t0\techo e\n"
	if got := readFile(t, file); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func logLine(seq, exit, command string) string {
	return seq + "\t:\t1700000000.123\t     0.500\t0\t0\t" + exit + "\t0\t" + command + "\n"
}

func TestResume(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, log, size string
		again           bool
		want            string // the items that remain
		bad             string
	}{
		{name: "an empty file", want: "a b c d"},
		{name: "a torn header", log: "Seq\tHo", want: "a b c d"},
		{name: "the rest", log: joblogHeader + logLine("1", "0", "echo a") + logLine("3", "1", "echo c"), want: "b d"},
		{name: "the rest and the failed", again: true, log: joblogHeader + logLine("1", "0", "echo a") + logLine("3", "1", "echo c"), want: "b c d"},
		{name: "the last line of an item counts", again: true, log: joblogHeader + logLine("3", "1", "echo c") + logLine("3", "0", "echo c"), want: "a b d"},
		{name: "a torn line did not happen", log: joblogHeader + logLine("1", "0", "echo a") + logLine("2", "0", "echo b")[:20], want: "b c d"},
		{name: "a torn line that lacks its end only", log: joblogHeader + strings.TrimSuffix(logLine("1", "0", "echo a"), "\n"), want: "a b c d"},
		{name: "another command", log: joblogHeader + logLine("3", "0", "cat c"), bad: "another command"},
		{name: "other items", log: joblogHeader + logLine("1", "0", "echo a") + logLine("2", "0", "echo x"), bad: "line 3"},
		{name: "another file", log: "root:x:0:0\n", bad: "no joblog"},
		{name: "a broken line", log: joblogHeader + "1\t:\n", bad: "line 2"},
		{name: "a broken number", log: joblogHeader + logLine("x", "0", "echo a"), bad: "line 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(file, []byte(c.log), 0o600); err != nil {
				t.Fatal(err)
			}
			l, old, err := openJoblog(file, true)
			var got []string
			if err == nil {
				defer l.close()
				for j := range old.filter(slices.Values(testJobs("a", "b", "c", "d")), c.again, echo, func() {}, func(e error) { err = e }) {
					got = append(got, j.name())
				}
			}
			if c.bad != "" {
				if err == nil || !regexp.MustCompile(c.bad).MatchString(err.Error()) {
					t.Errorf("got %v, want an error with %q", err, c.bad)
				}
				if c.bad == "another command" && len(got) > 0 {
					t.Errorf("%q would have run before that was seen", got)
				}
				if after := readFile(t, file); after != c.log {
					t.Errorf("the file is %q now", after)
				}
				return
			}
			if strings.Join(got, " ") != c.want || err != nil {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
			if after := readFile(t, file); !strings.HasPrefix(after, joblogHeader) || !strings.HasSuffix(after, "\n") {
				t.Errorf("the file is %q now, want whole lines", after)
			}
		})
	}
}

func TestJoblogBeginsAnew(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "log")
	for content, want := range map[string]string{
		joblogHeader + "1\t2\n": joblogHeader, // whatever is in it
		"":                      joblogHeader,
		"important\n":           "important\n",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		l, old, err := openJoblog(file, false)
		if got := readFile(t, file); got != want || old != nil {
			t.Errorf("%q became %q (%v), want %q", content, got, err, want)
		}
		if err == nil {
			l.close()
		}
	}
}

func TestJoblogOnAFullDisk(t *testing.T) {
	t.Parallel()
	_, _, err := openJoblog("/dev/full", false)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v, want %v", err, unix.ENOSPC)
	}
}

func TestQuoteOnOneLine(t *testing.T) {
	t.Parallel()
	for want, argv := range map[string][]string{
		`echo 'a b'`:             {"echo", "a b"},
		`echo $'a\nb\t\x01\'\\'`: {"echo", "a\nb\t\x01'\\"},
		`echo ''`:                {"echo", ""},
	} {
		if got := oneLineCommand(argv); got != want {
			t.Errorf("%q: got %s, want %s", argv, got, want)
		}
	}
}
