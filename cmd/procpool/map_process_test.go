package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mapIn runs map in a directory, with an input.
func mapIn(t *testing.T, dir, in string, args ...string) result {
	t.Helper()
	cmd := procpool(t, append([]string{"map"}, args...)...)
	cmd.Dir = cmp.Or(dir, cmd.Dir)
	cmd.Stdin = strings.NewReader(in)
	return finish(t, cmd)
}

// joblogHeader is the first line of a joblog.
const joblogHeader = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"

// seqs are the numbers in a joblog that has whole lines only.
func seqs(t *testing.T, file string) (all []int) {
	t.Helper()
	log := readFile(t, file)
	if !strings.HasPrefix(log, joblogHeader) || !strings.HasSuffix(log, "\n") {
		t.Errorf("the joblog is %.100q...%q, want its header and whole lines", log, log[max(len(log)-100, 0):])
	}
	for line := range strings.Lines(strings.TrimPrefix(log, joblogHeader)) {
		columns := strings.Split(line, "\t")
		n, err := strconv.Atoi(columns[0])
		if err != nil || len(columns) != 9 {
			t.Fatalf("the joblog has the line %.200q", line)
		}
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

func TestMapResumes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := []string{"--joblog", "log", "-k", "--", "sh", "-c", `echo $1; [ $1 != b ] || [ -e mended ]`, "_", "{}"}
	if r := mapIn(t, dir, "a\nb\n", args...); r.status != 1 || r.stdout != "a\nb\n" {
		t.Fatalf("%+v", r)
	}
	if r := mapIn(t, dir, "a\nb\nc\n", append([]string{"--resume"}, args...)...); r.status != 0 || r.stdout != "c\n" {
		t.Errorf("--resume: got %+v, want c alone", r)
	}
	if err := os.WriteFile(filepath.Join(dir, "mended"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := mapIn(t, dir, "a\nb\nc\nd\n", append([]string{"--resume-failed"}, args...)...); r.status != 0 || r.stdout != "b\nd\n" {
		t.Errorf("--resume-failed: got %+v, want b and d", r)
	}
	if got, want := seqs(t, filepath.Join(dir, "log")), []int{1, 2, 2, 3, 4}; !slices.Equal(got, want) {
		t.Errorf("the joblog has %v, want %v", got, want)
	}
	r := mapIn(t, dir, "a\n", "--joblog", "log", "--resume", "--", "touch", "no")
	if _, err := os.Stat(filepath.Join(dir, "no")); err == nil || r.status != statusFailure || !strings.Contains(r.stderr, "another command") {
		t.Errorf("with another command: got %+v, want a refusal before anything runs", r)
	}
}

func TestDryRunLeavesOutWhatTheJoblogKnows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := []string{"--", "sh", "-c", `[ $1 != b ]`, "_"}
	run := func(in string, flags ...string) result {
		return mapIn(t, dir, in, slices.Concat(flags, []string{"--joblog", "log"}, script)...)
	}
	if r := run("a\nb\n", "--dry-run", "--resume"); strings.Count(r.stdout, "\n") != 2 || r.status != 0 {
		t.Errorf("without a joblog: %+v, want both", r)
	}
	if r := run("a\nb\n"); r.status != 1 {
		t.Fatalf("%+v", r)
	}
	log := readFile(t, filepath.Join(dir, "log"))
	for flag, want := range map[string]string{"--resume": "c", "--resume-failed": "bc"} {
		r := run("a\nb\nc\n", "--dry-run", flag)
		var got strings.Builder
		for line := range strings.Lines(r.stdout) {
			got.WriteString(strings.TrimSpace(line[strings.LastIndex(line, " "):]))
		}
		if got.String() != want || r.status != 0 {
			t.Errorf("%s: %+v, want the commands for %s", flag, r, want)
		}
	}
	if r := mapIn(t, dir, "a\n", "--dry-run", "--joblog", "log", "--resume", "--", "true"); r.status != statusFailure || !strings.Contains(r.stderr, "another command") {
		t.Errorf("with another command: %+v", r)
	}
	if got := readFile(t, filepath.Join(dir, "log")); got != log {
		t.Errorf("the joblog was\n%s\nand is\n%s", log, got)
	}
}

// TestACommandThatEndsWellInAnswerToItsTimeoutHasTimedOut: what it was to do it has not done.
func TestACommandThatEndsWellInAnswerToItsTimeoutHasTimedOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := mapIn(t, dir, "a\n", "--timeout", "1", "--joblog", "log", "--", "sh", "-c", `trap "exit 0" TERM; while :; do sleep 0.1; done`)
	if r.status != 1 || !strings.Contains(r.stderr, "procpool: item 1 (a): timeout") {
		t.Errorf("got %+v, want a timeout", r)
	}
	if log := readFile(t, filepath.Join(dir, "log")); !strings.Contains(log, "\t-1\t15\t") {
		t.Errorf("the joblog is %q", log)
	}
}

func TestMapFindsAProgramInARelativeDirectory(t *testing.T) {
	t.Parallel()
	cmd := procpool(t, "map", "--", "relative", ":::", "a")
	if err := os.Mkdir(filepath.Join(cmd.Dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cmd.Dir, "bin", "relative"), []byte("#!/bin/sh\necho found $1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "PATH=bin:"+os.Getenv("PATH"))
	if r := finish(t, cmd); r.stdout != "found a\n" || r.status != 0 {
		t.Errorf("%+v", r)
	}
	again := procpool(t, "map", "--lines", "--", "relative", ":::", "a")
	again.Dir, again.Env = cmd.Dir, cmd.Env
	script := "#!/bin/sh\nwhile read -r line; do echo answer $line; done\n"
	if err := os.WriteFile(filepath.Join(cmd.Dir, "bin", "relative"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if r := finish(t, again); r.stdout != "answer a\n" || r.status != 0 {
		t.Errorf("--lines: %+v", r)
	}
}

// TestACommandThatEndsBeforeItsTimeoutHasNotTimedOut, though its output is awaited beyond that.
func TestACommandThatEndsBeforeItsTimeoutHasNotTimedOut(t *testing.T) {
	t.Parallel()
	eventually(t, func() string { // on a busy machine it may not end so soon
		r := mapIn(t, "", "a\n", "--timeout", "0.5", "--", "sh", "-c", `sleep 1000 & echo $1`, "_")
		if r.status == 1 && strings.Contains(r.stderr, "timeout: killed by") {
			return r.stderr
		}
		if r.status != 0 || r.stdout != "a\n" || r.stderr != "" {
			t.Fatalf("%+v", r)
		}
		return ""
	})
}

// TestOutputEndsSoonAfterItsCommand: a command leaves something in the background that writes for ever.
func TestOutputEndsSoonAfterItsCommand(t *testing.T) {
	t.Parallel()
	for _, background := range []string{"while :; do echo y; done", "while :; do echo y; sleep 0.2; done"} {
		r := mapIn(t, "", "a\nb\n", "-j", "1", "--", "sh", "-c", "echo $1 began; ("+background+") &", "_")
		if r.status != 0 || !strings.HasPrefix(r.stdout, "a began\n") || strings.Count(r.stdout, "b began\n") != 1 {
			t.Errorf("%s: status %d, %.60q...%d bytes, %q", background, r.status, r.stdout, len(r.stdout), r.stderr)
		}
	}
}

func TestMapResumesATable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := []string{"-k", "--joblog", "log", "--resume", "--results", "out.csv", "--", "echo"}
	for _, in := range []string{"a\nb\n", "a\nb\nc\n"} {
		if r := mapIn(t, dir, in, args...); r.status != 0 || r.stderr != "" {
			t.Fatalf("%+v", r)
		}
	}
	rows, err := csv.NewReader(strings.NewReader(readFile(t, filepath.Join(dir, "out.csv")))).ReadAll()
	if err != nil || len(rows) != 4 || rows[0][0] != "Seq" || rows[1][9] != "a" || rows[3][9] != "c" {
		t.Errorf("got %q, %v; want a header, and rows of a, b and c", rows, err)
	}
}

func TestMapResumesAfterKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const items = 40
	var input strings.Builder
	for i := range items {
		fmt.Fprintln(&input, i+1)
	}
	// Each run kills everything with the procpool above it at some item, again and again. What is in the joblog has run to its end.
	script := `echo $1 >>ran; if [ $(($1 % 7)) = 0 ] && ! [ -e killed$1 ]; then : >killed$1; kill -9 $(cat pid); fi; echo $1 >>ended`
	args := []string{"map", "-j", "3", "--joblog", "log", "--resume", "--", "sh", "-c", script, "_", "{}"}
	kills := 0
	for {
		cmd := procpool(t, args...)
		cmd.Dir = dir
		in, inEnd, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdin, cmd.Stderr = in, &bytes.Buffer{}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in.Close()
		if err := os.WriteFile(filepath.Join(dir, "pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(inEnd, input.String()) // it may be dead
		inEnd.Close()
		err = cmd.Wait()
		if cmd.ProcessState.ExitCode() == 0 {
			break
		}
		if kills++; cmd.ProcessState.ExitCode() != -1 || kills > items {
			t.Fatalf("run %d: %v\n%s", kills, err, cmd.Stderr)
		}
	}
	got := seqs(t, filepath.Join(dir, "log"))
	for i := range items {
		if !slices.Contains(got, i+1) || slices.Index(got, i+1) != i {
			t.Fatalf("the joblog has %v, want each of %d items once", got, items)
		}
	}
	ended := strings.Fields(readFile(t, filepath.Join(dir, "ended")))
	for i := range items {
		if !slices.Contains(ended, strconv.Itoa(i+1)) {
			t.Errorf("item %d is in the joblog and has not ended", i+1)
		}
	}
	if kills == 0 {
		t.Error("nothing has been killed")
	}
}

func TestMapKeepsTheJoblogForItself(t *testing.T) {
	t.Parallel()
	first := procpool(t, "map", "--joblog", "log", "--", "true")
	in, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if b, err := os.ReadFile(filepath.Join(first.Dir, "log")); string(b) != joblogHeader {
			return fmt.Sprintf("the joblog is %q, %v", b, err)
		}
		return ""
	})
	if r := mapIn(t, first.Dir, "a\n", "--joblog", "log", "--", "true"); r.status != statusFailure || !strings.Contains(r.stderr, "in use") {
		t.Errorf("a second run: got %+v, want a refusal", r)
	}
	in.Close()
	if err := first.Wait(); err != nil {
		t.Error(err)
	}
}

func TestMapHalts(t *testing.T) {
	t.Parallel()
	// Item 2 fails when item 1 runs; item 1 waits for ever, or for item 2 to be in the joblog.
	waitFor := func(what string) string {
		return `case $1 in 1) : >one; while ! ` + what + `; do sleep 0.01; done;; 2) while ! [ -e one ]; do sleep 0.01; done; exit 3;; *) : >more$1;; esac; echo $1`
	}
	for _, c := range []struct {
		name, rule, script string
		stdout             string
		status             int
	}{
		{"now", "now,fail=1", waitFor("false"), "", 1},
		{"soon", "soon,fail=1", waitFor("grep -q ^2 log"), "1\n", 1},
		{"percent", "soon,fail=20%", waitFor("grep -q ^2 log"), "1\n", 1},
		{"success", "now,success=1", `[ $1 = 2 ] || exit 1; echo $1`, "2\n", 0},
		{"done", "soon,done=2", `echo $1`, "1\n2\n", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			jobs := "2"
			if !strings.HasPrefix(c.script, "case") {
				jobs = "1"
			}
			r := mapIn(t, dir, "1\n2\n3\n4\n5\n", "-j", jobs, "--halt", c.rule, "--joblog", "log", "--", "sh", "-c", c.script, "_", "{}")
			if r.stdout != c.stdout || r.status != c.status || !strings.Contains(r.stderr, "halted ("+c.rule+")") {
				t.Errorf("got %+v, want %q, status %d and that it has halted", r, c.stdout, c.status)
			}
			if more, _ := filepath.Glob(filepath.Join(dir, "more*")); len(more) > 0 {
				t.Errorf("%q have run after the halt", more)
			}
			seqs(t, filepath.Join(dir, "log"))
		})
	}
}

// TestMapHaltsThoughInputIsOpen halts while the input neither ends nor brings anything.
func TestMapHaltsThoughInputIsOpen(t *testing.T) {
	t.Parallel()
	cmd := procpool(t, "map", "--halt", "soon,done=1", "--", "echo")
	in, inEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer inEnd.Close()
	defer in.Close()
	cmd.Stdin = in
	if _, err := inEnd.WriteString("a\n"); err != nil {
		t.Fatal(err)
	}
	if r := finish(t, cmd); r.stdout != "a\n" || r.status != 0 {
		t.Errorf("got %+v, want a and status 0", r)
	}
}

func TestMapRetries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := mapIn(t, dir, "a\nb\n", "-k", "-j", "1", "--retries", "3", "--joblog", "log", "--", "sh", "-c", `echo >>tries$1; echo $1; [ $1 = a ] && [ $(wc -l <tries$1) = 2 ]`, "_", "{}")
	if r.stdout != "a\nb\n" || r.status != 1 {
		t.Errorf("got %+v, want the output of the last try of each, and one failure", r)
	}
	if a, b := readFile(t, filepath.Join(dir, "triesa")), readFile(t, filepath.Join(dir, "triesb")); a != "\n\n" || b != "\n\n\n" {
		t.Errorf("tried %d and %d times, want 2 and 3", len(a), len(b))
	}
	if got := seqs(t, filepath.Join(dir, "log")); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("the joblog has %v, want each once", got)
	}
}

func TestMapEndsWhatTakesLongerThanOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// The first item is under way long before the median is known. The others take long enough that a busy machine does not make one of them ten times as long.
	r := mapIn(t, dir, "0\n1\n2\n3\n4\n", "-j", "2", "--timeout", "1000%", "--joblog", "log", "--json", "--", "sh", "-c", `[ $1 != 0 ] || exec sleep 1000; sleep 0.5`, "_", "{}")
	if r.status != 1 || !strings.Contains(r.stdout, `"index":0,"item":"0","outcome":"timeout"`) {
		t.Errorf("got %+v, want a timeout of the first item", r)
	}
	if log := readFile(t, filepath.Join(dir, "log")); !strings.Contains(log, "\t-1\t15\t") || len(seqs(t, filepath.Join(dir, "log"))) != 5 {
		t.Errorf("the joblog is %q", log)
	}
}

func TestMapDelays(t *testing.T) {
	t.Parallel()
	start := time.Now()
	if got := run0(t, "map", "-k", "-j", "4", "--delay", "0.1", "--", "echo", ":::", "1", "2", "3"); got != "1\n2\n3\n" {
		t.Errorf("got %q", got)
	}
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("three began within %v, want two delays of 100 ms", took)
	}
}

func TestMapWaitsForMemory(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("how much memory is available is known on Linux only: it is NOT tested here")
	}
	cmd := procpool(t, "map", "--memfree", "1000000G", "--", "echo", ":::", "a")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if !strings.HasPrefix(line, "procpool: waiting for memory") {
		t.Errorf("got %q, %v; want a word about memory", line, err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 130 {
		t.Errorf("got status %d, want 130", got)
	}
}

func TestMapCutsStdin(t *testing.T) {
	t.Parallel()
	var in strings.Builder
	for i := range 20_000 {
		fmt.Fprintln(&in, i)
	}
	in.WriteString(strings.Repeat("x", 300_000) + "\nno end")
	for _, args := range [][]string{
		{"--pipe", "--block", "10K"}, {"--pipe"}, {"--pipe", "-n", "3000"}, {"--pipe", "--block", "16K", "--recend", ""}, {"--pipe", "-0", "--block", "1K"},
		{"--pipe", "--block", "20K", "--recstart", "1", "--recend", `\n`}, {"--pipe", "--block", "10K", "--retries", "2", "--delay", "0.001"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			r := mapIn(t, "", in.String(), append(args, "-k", "--", "cat")...)
			if r.stdout != in.String() || r.status != 0 || r.stderr != "" {
				t.Errorf("got %d bytes, status %d and %q; want the %d bytes of the input", len(r.stdout), r.status, r.stderr, in.Len())
			}
		})
	}
	if r := mapIn(t, "", "1\n2\n3\n4\n5\n", "--pipe", "-n", "2", "-k", "--", "sh", "-c", "wc -l; echo $1", "_", "{#}"); strings.Join(strings.Fields(r.stdout), " ") != "2 1 2 2 1 3" {
		t.Errorf("by twos: got %+v", r)
	}
	if r := mapIn(t, "", "", "--pipe", "--", "echo"); r.stdout != "" || r.status != 0 {
		t.Errorf("an empty input: got %+v, want nothing", r)
	}
	if r := mapIn(t, "", strings.Repeat("y\n", 1<<20), "--pipe", "--block", "64K", "--", "head", "-n", "1"); r.status != 0 || strings.Count(r.stdout, "y\n") != 32 {
		t.Errorf("commands that read a part: got status %d and %d lines, want 0 and 32", r.status, strings.Count(r.stdout, "\n"))
	}
}

func TestMapGivesSeveralItems(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   string
		args []string
		want string
	}{
		{"a b\nc\nd\n", []string{"-n", "2", "printf", "<%s>", "{}", "end"}, "<a b><c><end><d><end>"},
		{"a,b,c", []string{"-d", ",", "-n", "2", "printf", "<%s>"}, "<a><b><c>"},
		{"a\nb\nc\nd\n", []string{"-N", "2", "printf", "<%s>", "{2}-{1}"}, "<b-a><d-c>"},
		{"a\nb\nc\n", []string{"-L2", "--dry-run", "echo"}, "echo a b\necho c\n"},
		{"a\n\nb\n", []string{"-d", `\n`, "printf", "<%s>"}, "<a><><b>"},
	} {
		if r := mapIn(t, "", c.in, append([]string{"-k"}, c.args...)...); r.stdout != c.want || r.status != 0 {
			t.Errorf("%q: got %+v, want %q", c.args, r, c.want)
		}
	}
}

func TestMapWritesResults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := []string{"--", "sh", "-c", `echo out $1; echo err $1 >&2; [ $1 != b ]`, "_", "{}"}
	if r := mapIn(t, dir, "a\nb\n", append([]string{"--results", "out"}, script...)...); r.status != 1 || r.stdout != "" {
		t.Errorf("got %+v, want no output and status 1", r)
	}
	if out, errs := readFile(t, filepath.Join(dir, "out/1/b/stdout")), readFile(t, filepath.Join(dir, "out/1/a/stderr")); out != "out b\n" || errs != "err a\n" {
		t.Errorf("got %q and %q", out, errs)
	}
	if r := mapIn(t, dir, "a\nb\n", append([]string{"-k", "--results", "out.csv"}, script...)...); r.status != 1 || r.stdout != "" {
		t.Errorf("got %+v, want no output and status 1", r)
	}
	rows, err := csv.NewReader(strings.NewReader(readFile(t, filepath.Join(dir, "out.csv")))).ReadAll()
	if err != nil || len(rows) != 3 || rows[2][9] != "b" || rows[2][10] != "out b\n" || rows[2][6] != "1" {
		t.Errorf("got %q, %v", rows, err)
	}
}

// TestMapInterruptedKeepsTheJoblog ends runs by signals and by a reader that goes away.
func TestMapInterruptedKeepsTheJoblog(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		signal os.Signal // nil: close stdout
		status int
	}{
		{"SIGINT", syscall.SIGINT, 130}, {"SIGTERM", syscall.SIGTERM, 143}, {"SIGHUP", syscall.SIGHUP, 129}, {"closed stdout", nil, 128 + int(syscall.SIGPIPE)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// Items 1 to 4 end, then two hang and leave a child each, and the next one waits until it is told to write; others follow, without an
			// end: a child of some other test that is being born may have the reading end for a moment. With a delay, no worker holds an item
			// behind one that hangs.
			cmd := procpool(t, "map", "-j", "3", "--delay", "0.001", "--joblog", "log", "--", "sh", "-c",
				`case $1 in 5|6) sleep 1000 & echo $$ $! >>pids; wait;; 7) while ! [ -e go ]; do sleep 0.01; done; echo $1;; *) echo $1;; esac`, "_", "{}")
			cmd.Stdin = io.MultiReader(strings.NewReader("1\n2\n3\n4\n5\n6\n7\n"), eights{})
			out, outEnd, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			cmd.Stdout = outEnd
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			outEnd.Close()
			pids := pidsIn(t, filepath.Join(cmd.Dir, "pids"), 4)
			log := filepath.Join(cmd.Dir, "log")
			eventually(t, func() string {
				if got := readFile(t, log); strings.Count(got, "\n") != 5 {
					return fmt.Sprintf("the joblog is %q, want four items", got)
				}
				return ""
			})
			if c.signal != nil {
				err = cmd.Process.Signal(c.signal)
			} else {
				out.Close()
				err = os.WriteFile(filepath.Join(cmd.Dir, "go"), nil, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("got status %d, want %d", got, c.status)
			}
			eventually(t, func() string { return gone(pids) })
			got := seqs(t, log)
			if !slices.Equal(got[:4], []int{1, 2, 3, 4}) || slices.Contains(got, 5) || slices.Contains(got, 6) || (c.signal != nil && len(got) > 4) {
				t.Errorf("the joblog has %v, want 1 to 4, and nothing that has not ended", got)
			}
		})
	}
}

// eights is lines of 8, without an end.
type eights struct{}

func (eights) Read(p []byte) (int, error) { return copy(p, "8\n"), nil }
