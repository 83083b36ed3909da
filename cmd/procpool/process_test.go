package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/cmd/procpool/internal/exit"
	"github.com/procpool/procpool/cmd/procpool/internal/text"
)

// asProgram makes the test binary the program itself: with it in the environment, TestMain runs main, also in its workers.
const asProgram = "PROCPOOL_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} { // ignored in tests that run in the background (nohup, &), and so in what they start
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	os.Exit(m.Run())
}

// patience is how long anything here may take at most; nothing waits for it to pass.
const patience = 2 * time.Minute

// procpool is the program with arguments, and its own directory as the current one.
func procpool(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Dir = t.TempDir()
	return cmd
}

// result is how a run of the program ended.
type result struct {
	stdout, stderr string
	status         int
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = cmp.Or(cmd.Stdout, io.Writer(&stdout)), &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v\n%s", cmd.Args[1:], err, &stderr)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func run0(t *testing.T, args ...string) string {
	t.Helper()
	r := finish(t, procpool(t, args...))
	if r.status != 0 || r.stderr != "" {
		t.Fatalf("%q: status %d, want 0\n%s", args, r.status, r.stderr)
	}
	return r.stdout
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sortedLines(s string) []string {
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	slices.Sort(lines)
	return lines
}

// eventually waits until f says "", and reports what it says if it never does.
func eventually(t *testing.T, f func() string) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for {
		last := f()
		if last == "" {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("after %v: %s", patience, last)
		}
	}
}

// gone says which of the processes still run.
func gone(pids []int) string {
	for _, pid := range pids {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !bytes.Contains(stat, []byte(") Z ")) {
			return fmt.Sprintf("process %d is still there: %s", pid, stat)
		}
	}
	return ""
}

// pidsIn waits until a file holds n process ids.
func pidsIn(t *testing.T, file string, n int) (pids []int) {
	t.Helper()
	eventually(t, func() string {
		b, err := os.ReadFile(file)
		if words := strings.Fields(string(b)); err == nil && len(words) == n && bytes.HasSuffix(b, []byte("\n")) {
			for _, w := range words {
				pid, err := strconv.Atoi(w)
				if err != nil {
					t.Fatal(err)
				}
				pids = append(pids, pid)
			}
			return ""
		}
		return fmt.Sprintf("%s holds %q (%v), want %d process ids", file, b, err, n)
	})
	return pids
}

func TestMapCountsFiles(t *testing.T) {
	t.Parallel()
	cmd := procpool(t, "map", "-j", "2", "--", "wc", "-c", "{}", ":::", "a", "b c")
	for name, content := range map[string]string{"a": "12345", "b c": "123"} {
		if err := os.WriteFile(filepath.Join(cmd.Dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := finish(t, cmd)
	if got, want := sortedLines(r.stdout), []string{"3 b c", "5 a"}; !slices.Equal(got, want) || r.status != 0 || r.stderr != "" {
		t.Errorf("got %q, %+v; want %q and nothing else", got, r, want)
	}
}

func TestMapReadsItems(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, in string
		args     []string
		want     []string
	}{
		{"from stdin", "a b\n\nc", nil, []string{"<a b>", "<c>"}},
		{"from stdin by name", "x", []string{"-a", "-"}, []string{"<x>"}},
		{"with NUL", "two\nlines\x00 b", []string{"-0"}, []string{"< b>", "<two", "lines>"}},
		{"that are not UTF-8", "caf\xe9", nil, []string{"<caf\xe9>"}},
		{"of which there are none", "\n", nil, []string{""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cmd := procpool(t, append(append([]string{"map"}, c.args...), "printf", `<%s>\n`)...)
			cmd.Stdin = strings.NewReader(c.in)
			r := finish(t, cmd)
			if got := sortedLines(r.stdout); r.status != 0 || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %+v; want %q", got, r, c.want)
			}
		})
	}
}

func TestMapKeepsOrder(t *testing.T) {
	t.Parallel()
	// The first item ends last: it waits for the file that the last one makes.
	got := run0(t, "map", "-k", "-j", "2", "--", "sh", "-c", `if [ $1 = 0 ]; then while ! [ -e made ]; do sleep 0.01; done; fi; [ $1 = 5 ] && : >made; echo $1`, "_", "{}",
		":::", "0", "1", "2", "3", "4", "5")
	if want := "0\n1\n2\n3\n4\n5\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMapSaysWhatFailed(t *testing.T) {
	t.Parallel()
	r := finish(t, procpool(t, "map", "-k", "--", "sh", "-c", `echo out $1; echo err $1 >&2; if [ $1 = 9 ]; then kill -9 $$; fi; exit $1`, "_", "{}", ":::", "0", "3", "9"))
	wantErr := "err 0\nerr 3\nerr 9\nprocpool: item 2 (3): exit status 3\nprocpool: item 3 (9): killed by SIGKILL\nprocpool: 2 of 3 failed\n"
	if want := (result{"out 0\nout 3\nout 9\n", wantErr, 2}); r != want {
		t.Errorf("got  %#v\nwant %#v", r, want)
	}
}

func TestMapCountsManyFailures(t *testing.T) {
	t.Parallel()
	cmd := procpool(t, "map", "false")
	cmd.Stdin = strings.NewReader(strings.Repeat("x\n", 150))
	r := finish(t, cmd)
	lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
	if r.status != exit.ManyFailed || len(lines) != 10+1 || lines[len(lines)-1] != "procpool: 150 of 150 failed" {
		t.Errorf("got status %d and %q, want status %d and %d lines", r.status, lines, exit.ManyFailed, 10+1)
	}
}

func TestMapRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string // in the message
	}{
		{[]string{"map"}, "no command"},
		{[]string{"map", ":::", "a"}, "no command"},
		{[]string{"map", "--", "wc -m {} | head", ":::", "a"}, "does not use a shell"},
		{[]string{"map", "--", "no-such-program", ":::", "a"}, "no-such-program"},
		{[]string{"map", "-a", "no-such-file", "--", "true"}, "no-such-file"},
		{[]string{"map", "--halt", "soon,fail=10%", "-a", ".", "--", "true"}, "is a directory"},
		{[]string{"map", "--halt", "soon,fail=10%", "-a", ".", "--dry-run", "--", "true"}, "is a directory"},
		{[]string{"map", "-a", "x", "--", "true", ":::", "a"}, "not from both"},
		{[]string{"map", "-k", "-u", "--", "true", ":::", "a"}, "exclude each other"},
		{[]string{"map", "--json", "--tag", "--", "true", ":::", "a"}, "--tag"},
		{[]string{"map", "-j", "5000", "--", "true", ":::", "a"}, "-j 5000"},
		{[]string{"map", "-j", "two", "--", "true", ":::", "a"}, "-j two"},
		{[]string{"map", "--timeout", "5x", "--", "true", ":::", "a"}, "timeout"},
		{[]string{"map", "-d", "", "--", "true"}, "say -0"},
		{[]string{"map", "--pipe", "-0", "--recend", ";", "--", "cat"}, "exclude each other"},
		{[]string{"map", "--", "wc", "::::", "list"}, "-a FILE"},
		{[]string{"map", "--func", "f", ":::", "a"}, "--pool"},
		{[]string{"map", "--pool", "p", "--func", "f", "a"}, `items follow ":::"`},
		{[]string{"map", "--addr", "none.sock", "--pool", "p", "--func", "f", ":::", "a"}, "is procpoold running?"},
		{[]string{"wc", "{}"}, "procpool map -- wc {}"},
		{[]string{"create", "p", "./worker"}, `write "--"`},
		{[]string{"close"}, "which pool?"},
		{[]string{"apply", "--pool", "p", "f"}, "which function to which item?"},
		{[]string{"cancel", "0", "x", "--addr", "none.sock"}, "procpoold"},
		{[]string{"pools", "-o", "xml"}, "table, wide or json"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Parallel()
			r := finish(t, procpool(t, c.args...))
			if r.status != statusFailure || r.stdout != "" || !strings.Contains(r.stderr, c.want) || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("got %+v; want status %d and one line with %q", r, statusFailure, c.want)
			}
		})
	}
}

func TestMapWithoutItemsIsDone(t *testing.T) {
	t.Parallel()
	r := finish(t, procpool(t, "map", "--", "false", ":::"))
	if r.status != 0 || r.stdout != "" || !strings.Contains(r.stderr, "no items") {
		t.Errorf("got %+v, want status 0 and a word on stderr", r)
	}
}

func TestMapGivesCommandsNothingToRead(t *testing.T) {
	t.Parallel()
	if got := run0(t, "map", "--", "sh", "-c", "cat; readlink /proc/self/fd/0", ":::", "a"); got != "/dev/null\n" {
		t.Errorf("got %q, want /dev/null", got)
	}
}

// object is what --json says of an item.
type object struct {
	Index    int        `json:"index"`
	Item     text.Bytes `json:"item"`
	Outcome  string     `json:"outcome"`
	ExitCode int        `json:"exit_code"`
	Signal   string     `json:"signal"`
	Stdout   text.Bytes `json:"stdout"`
	Stderr   text.Bytes `json:"stderr"`
	Seconds  float64    `json:"seconds"`
	Worker   string     `json:"worker"`
	Attempt  int        `json:"attempt"`
	Error    string     `json:"error,omitempty"`
}

func TestMapWritesJSON(t *testing.T) {
	t.Parallel()
	r := finish(t, procpool(t, "map", "-k", "--json", "--", "sh", "-c", `printf 'o<%s' "$1"; printf '\351' >&2; [ $1 = a ]`, "_", "{}", ":::", "a", "b", "no such"))
	var got []object
	for line := range strings.Lines(r.stdout) {
		var o object
		dec := json.NewDecoder(strings.NewReader(line))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&o); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if o.Seconds <= 0 || o.Seconds > patience.Seconds() || o.Worker == "" || string(o.Stderr)[0] != '\xe9' {
			t.Errorf("item %d took %v s in worker %q and wrote %q to stderr", o.Index, o.Seconds, o.Worker, o.Stderr)
		}
		o.Seconds, o.Worker, o.Stderr = 0, "", nil // these differ from run to run
		got = append(got, o)
	}
	want := []object{
		{Index: 0, Item: text.Bytes("a"), Outcome: "value", Stdout: text.Bytes("o<a"), Attempt: 1},
		{Index: 1, Item: text.Bytes("b"), Outcome: "task_error", ExitCode: 1, Stdout: text.Bytes("o<b"), Attempt: 1, Error: "exit status 1"},
		{Index: 2, Item: text.Bytes("no such"), Outcome: "task_error", ExitCode: 2, Stdout: text.Bytes("o<no such"), Attempt: 1, Error: "exit status 2"},
	}
	if !reflect.DeepEqual(got, want) || r.status != 2 {
		t.Errorf("got  %+v with status %d\nwant %+v with status 2", got, r.status, want)
	}
}

func TestMapSaysWhatCouldNotBeRun(t *testing.T) {
	t.Parallel()
	r := finish(t, procpool(t, "map", "-k", "--json", "--", "{}", ":::", "./none", "/etc/passwd", "true"))
	var codes []int
	for line := range strings.Lines(r.stdout) {
		var o object
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		codes = append(codes, o.ExitCode)
	}
	if want := []int{127, 126, 0}; !slices.Equal(codes, want) || r.status != 2 {
		t.Errorf("got exit codes %v and status %d, want %v and 2\n%s", codes, r.status, want, r.stderr)
	}
}

func TestMapGivesSlots(t *testing.T) {
	t.Parallel()
	// Two commands meet: each makes a directory for its slot and waits until there are two.
	got := run0(t, "map", "-j", "2", "--", "sh", "-c", `mkdir -p d$1; while ! [ -d d1 -a -d d2 ]; do sleep 0.01; done; echo $1`, "_", "{%}", ":::", "a", "b")
	if lines := sortedLines(got); !slices.Equal(lines, []string{"1", "2"}) {
		t.Errorf("two commands at a time had the slots %q, want 1 and 2", lines)
	}
}

func TestMapEndsWhatTakesTooLong(t *testing.T) {
	t.Parallel()
	want := map[string]string{"polite": `timeout "started\n"`, "deaf": `timeout "started\n"`, "quick": `value "started\n"`}
	eventually(t, func() string { // on a busy machine it may take longer to kill the deaf one than its pool waits for what it wrote
		cmd := procpool(t, "map", "-j", "3", "--json", "--timeout", "5s", "--",
			"sh", "-c", `echo started; case $1 in quick) exit 0;; deaf) trap "" TERM;; esac; sleep 1000 & echo $$ $! >>pids; wait; sleep 1000`, "_", "{}",
			":::", "polite", "deaf", "quick")
		r := finish(t, cmd)
		outcomes := map[string]string{}
		for line := range strings.Lines(r.stdout) {
			var o object
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				t.Fatal(err)
			}
			outcomes[string(o.Item)] = fmt.Sprintf("%s %q", o.Outcome, o.Stdout)
		}
		pids := pidsIn(t, filepath.Join(cmd.Dir, "pids"), 4)
		eventually(t, func() string { return gone(pids) })
		if fmt.Sprint(outcomes) != fmt.Sprint(want) || r.status != 2 {
			return fmt.Sprintf("got %v and status %d, want %v and 2\n%s", outcomes, r.status, want, r.stderr)
		}
		return ""
	})
}

func TestMapDoesNotWaitForTheBackground(t *testing.T) {
	t.Parallel()
	cmd := procpool(t, "map", "--", "sh", "-c", `sleep 1000 & echo $! >pid; echo done`, ":::", "a")
	if r := finish(t, cmd); r.stdout != "done\n" || r.status != 0 {
		t.Errorf("got %+v, want its output and status 0", r)
	}
	pids := pidsIn(t, filepath.Join(cmd.Dir, "pid"), 1)
	eventually(t, func() string { return gone(pids) })
}

func TestMapPassesBigOutput(t *testing.T) {
	t.Parallel()
	const big, small = 40 << 20, 1 << 20 // more than all spools may hold in memory, and more than travels with a result
	cmd := procpool(t, "map", "-j", "2", "--", "sh", "-c", `echo $1; head -c $1 /dev/zero; echo $1`, "_", "{}", ":::", strconv.Itoa(big), strconv.Itoa(small))
	digest := &zeros{}
	cmd.Stdout = digest
	if r := finish(t, cmd); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	marks := strings.Fields(digest.other.String())
	if len(marks) != 4 || marks[0] != marks[1] || marks[2] != marks[3] || digest.n != big+small {
		t.Errorf("got %d zeros between %q, want %d in two blocks", digest.n, marks, big+small)
	}
}

// zeros counts zeros and keeps everything else.
type zeros struct {
	n     int
	other bytes.Buffer
}

func (z *zeros) Write(p []byte) (int, error) {
	z.n += bytes.Count(p, []byte{0})
	z.other.Write(bytes.ReplaceAll(p, []byte{0}, nil))
	return len(p), nil
}

func TestMapStreamsLines(t *testing.T) {
	t.Parallel()
	cmd := procpool(t, "map", "--line-buffer", "--tag", "--", "sh", "-c", `echo first; while ! [ -e go ]; do sleep 0.01; done; echo second`, ":::", "a")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() || lines.Text() != "a\tfirst" {
		t.Fatalf("got %q, %v; want the first line while the command waits", lines.Text(), lines.Err())
	}
	if err := os.WriteFile(filepath.Join(cmd.Dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || lines.Text() != "a\tsecond" {
		t.Fatalf("got %q, %v; want the second line", lines.Text(), lines.Err())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestMapEndsWhenNobodyReads(t *testing.T) {
	t.Parallel()
	cmd := procpool(t, "map", "--", "echo")
	in, inEnd, err := os.Pipe() // an input that never ends
	if err != nil {
		t.Fatal(err)
	}
	defer inEnd.Close()
	cmd.Stdin = in
	out, outEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = outEnd
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	outEnd.Close()
	in.Close()
	if _, err := inEnd.WriteString("a\n"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "a\n" {
		t.Fatalf("got %q, %v; want the first item", line, err)
	}
	out.Close()
	go func() { // without an end: a child of some other test that is being born may have the reading end of out for a moment
		for err := error(nil); err == nil; {
			_, err = inEnd.WriteString("b\n")
		}
	}()
	err = cmd.Wait()
	if got, want := cmd.ProcessState.ExitCode(), 128+int(syscall.SIGPIPE); got != want || stderr.Len() > 0 {
		t.Errorf("got status %d (%v) and %q, want %d in silence", got, err, &stderr, want)
	}
}

// startEndless runs two commands that have a child each and never end; deaf ones do not heed SIGTERM.
func startEndless(t *testing.T, deaf bool) (cmd *exec.Cmd, pids []int) {
	t.Helper()
	trap := ""
	if deaf {
		trap = `trap "" TERM; `
	}
	cmd = procpool(t, "map", "-j", "2", "--", "sh", "-c", trap+`sleep 1000 & echo $$ $! >>pids; wait; sleep 1000`, ":::", "a", "b", "c")
	cmd.Stderr = &bytes.Buffer{}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, pidsIn(t, filepath.Join(cmd.Dir, "pids"), 4)
}

func TestInterruptLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		signals []os.Signal
		deaf    bool
		status  int
	}{
		{"Ctrl-C", []os.Signal{syscall.SIGINT}, false, 130},
		{"Ctrl-C, and commands that ignore SIGTERM", []os.Signal{syscall.SIGINT}, true, 130},
		{"Ctrl-C twice", []os.Signal{syscall.SIGINT, syscall.SIGINT}, true, 130},
		{"SIGTERM", []os.Signal{syscall.SIGTERM}, false, 143},
		{"SIGKILL", []os.Signal{syscall.SIGKILL}, true, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cmd, pids := startEndless(t, c.deaf)
			for _, s := range c.signals {
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			err := cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("got status %d (%v), want %d\n%s", got, err, c.status, cmd.Stderr)
			}
			eventually(t, func() string { return gone(pids) })
		})
	}
}

func TestDryRunWritesCommands(t *testing.T) {
	t.Parallel()
	got := run0(t, "map", "--dry-run", "--", "no-such-program", "{/.}", "{#}", "{%}", ":::", "d/a b.txt", "c")
	if want := "no-such-program 'a b' 1 '{%}'\nno-such-program c 2 '{%}'\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
