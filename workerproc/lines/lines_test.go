package lines_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/workerproc/lines"
)

func TestProgramsInManyLanguages(t *testing.T) {
	t.Parallel()
	for name, command := range map[string][]string{
		"python": {"python3", "-c", "import sys\nfor line in sys.stdin: print('=' + line.rstrip('\\n'), flush=True)"},
		"perl":   perl(`answer("=$_")`),
		"awk":    {"awk", `{ print "=" $0; fflush() }`},
		"shell":  {"sh", "-c", `while read -r line; do printf '=%s\n' "$line"; done`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "awk" {
				needs(t, "awk", "mawk")
				if target, err := filepath.EvalSymlinks("/etc/alternatives/awk"); err == nil && filepath.Base(target) == "mawk" {
					command = slices.Insert(slices.Clone(command), 1, "-W", "interactive") // else it reads ahead until its buffer is full
				}
			}
			ctx, pool := open(t, lines.Spec{Command: command})
			results, err := client.Map(ctx, pool, asStrings, numbers(2000))
			exactly(t, results, err)
		})
	}
}

// Texts come through as they are; what cannot is the failure of its item.
func TestStrings(t *testing.T) {
	t.Parallel()
	ctx, pool := open(t, lines.Spec{Command: perl(`answer("<$_>")`)})
	results, err := client.Map(ctx, pool, asStrings, []string{"a", "", "two\nlines", "tab\t\"quoted\" \\ é ☃", "NUL\x00", " "})
	match(t, outcomes(t, results, err), []string{
		"<a>", "<>", "task_error: …use --null", "<tab\t\"quoted\" \\ é ☃>", "<NUL\x00>", "< >",
	})
	n, err := client.Map(ctx, pool, client.Func[any, string](lines.Function), []any{1, true, map[string]int{"a": 1}})
	match(t, outcomes(t, n, err), []string{"<1>", "<true>", `<{"a":1}>`})
}

func TestBytesComeThroughAsTheyAre(t *testing.T) {
	t.Parallel()
	ctx, pool := open(t, lines.Spec{Command: perl(`answer(scalar reverse $_)`), Form: lines.Bytes})
	results, err := client.Map(ctx, pool, asBytes, [][]byte{{0xff, 0xfe, 0}, []byte("ab\r"), nil})
	if err != nil || !bytes.Equal(results[0], []byte{0, 0xfe, 0xff}) || string(results[1]) != "\rba" || len(results[2]) != 0 {
		t.Errorf("got %q, %v", results, err)
	}
}

func TestNullFraming(t *testing.T) {
	t.Parallel()
	program := []string{"perl", "-e", `$| = 1; $/ = "\0"; while (<STDIN>) { chomp; print "<$_>", "\0" }`}
	ctx, pool := open(t, lines.Spec{Command: program, Null: true})
	results, err := client.Map(ctx, pool, asStrings, []string{"two\nlines\n", "", "a\x00b", "c"})
	match(t, outcomes(t, results, err), []string{"<two\nlines\n>", "<>", "task_error: …has a NUL in it", "<c>"})
}

func TestValues(t *testing.T) {
	t.Parallel()
	ctx, pool := open(t, lines.Spec{Command: perl(`answer(/^\[/ ? $_ : /bad/ ? "[1, 2" : /two/ ? "1 2" : $_ + 1)`), Form: lines.Values})
	results, err := client.Map(ctx, pool, client.Func[any, any](lines.Function), []any{41, []string{"a\nb"}, "bad", "two"})
	var failed *client.MapError
	if !errors.As(err, &failed) || len(failed.Errors) != 2 || !strings.Contains(failed.Errors[0].Error(), "not one JSON value") {
		t.Errorf("got %v, want two answers that are not JSON", err)
	}
	if results[0] != 42.0 || results[1].([]any)[0] != "a\nb" {
		t.Errorf("got %v, want 42 and the list", results)
	}
}

// The death of a program in one item is that item's, whatever else was in the pipe.
func TestExactlyTheGuiltyItemIsLost(t *testing.T) {
	t.Parallel()
	for name, death := range map[string]struct{ perl, reason string }{
		"SIGKILL":        {`kill 9, $$`, "killed by SIGKILL"},
		"SIGSEGV":        {`kill 11, $$`, "killed by SIGSEGV"},
		"SIGABRT":        {`kill 6, $$`, "killed by SIGABRT"},
		"exit status 3":  {`print STDERR "I give up\n"; exit 3`, "exit status 3"},
		"exit status 0":  {`exit 0`, "exit status 0"},
		"die":            {`die "it cannot be $_\n"`, "it cannot be 4711"},
		"half an answer": {`print "="; exit 1`, "in the middle of an answer"},
		"closed stdout":  {`close STDOUT; sleep 1000`, "has closed its stdout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, pool := open(t, lines.Spec{Command: perl(`if ($_ eq "4711") { ` + death.perl + ` } answer("=$_")`)})
			results, err := client.Map(ctx, pool, asStrings, numbers(10_000))
			for _, e := range exactly(t, results, err, 4711) {
				if text := e.Error() + strings.Join(crashReport(e), "\n"); !errors.Is(e, client.ErrWorkerLost) || !strings.Contains(text, death.reason) {
					t.Errorf("got %v, %v; want worker lost with %q", e, e.Exit, death.reason)
				}
			}
		})
	}
}

// A program that is killed from outside in mid-run loses one item, or none if it was between two.
func TestKilledFromOutside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, pool := open(t, lines.Spec{Command: []string{"perl", "-e", `$| = 1; open P, ">", "pid$$"; close P; while (<STDIN>) { print "=$_" }`}}, client.Dir(dir))
	killed := 0
	results := make([]string, 10_000)
	lost := 0
	for out, err := range client.IMap(ctx, pool, asStrings, slices.Values(numbers(len(results)))) {
		if err != nil {
			t.Fatal(err)
		}
		if out.Index%2500 == 1000 {
			killed += killPrograms(t, dir)
		}
		if out.Err != nil {
			if !errors.Is(out.Err, client.ErrWorkerLost) {
				t.Errorf("item %d: %v, want worker lost", out.Index, out.Err)
			}
			lost++
		} else if want := "=" + strconv.Itoa(out.Index); out.Value != want {
			t.Fatalf("item %d: got %q, want %q", out.Index, out.Value, want)
		}
	}
	if killed == 0 || lost > killed {
		t.Errorf("%d items are lost of %d programs that were killed, want one each at most", lost, killed)
	}
	t.Logf("%d items lost of %d programs killed", lost, killed)
}

// What was answered before a timeout counts, and what was behind the late item runs elsewhere.
func TestTimeoutIsOfTheOldestItem(t *testing.T) {
	t.Parallel()
	ctx, pool := open(t, lines.Spec{Command: perl(`if ($_ eq "70") { sleep 1000 } answer("=$_")`)})
	results, err := client.Map(ctx, pool, asStrings, numbers(1000), client.TaskTimeout(3*time.Second), client.ChunkSize(200))
	for _, e := range exactly(t, results, err, 70) {
		if !errors.Is(e, client.ErrTimeout) {
			t.Errorf("got %v, want a timeout", e)
		}
	}
}

// A program that does not flush is the timeout's business.
func TestProgramThatDoesNotFlush(t *testing.T) {
	t.Parallel()
	ctx, pool := open(t, lines.Spec{Command: []string{"perl", "-ne", `print "=$_"`}})
	_, err := client.Map(ctx, pool, asStrings, numbers(2), client.TaskTimeout(200*time.Millisecond))
	var failed *client.MapError
	if !errors.As(err, &failed) || len(failed.Errors) != 2 || !errors.Is(failed.Errors[0], client.ErrTimeout) {
		t.Errorf("got %v, want two timeouts", err)
	}
}

func TestAdviceForAProgramThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT TESTED: the advice, which takes 5 s to come (run without -short)")
	}
	said := make(chan string, 100)
	ctx, pool := open(t, lines.Spec{Command: []string{"perl", "-ne", `print "=$_"`}}, client.Output(func(o client.WorkerOutput) { said <- string(o.Line) }))
	client.ApplyAsync(ctx, pool, asStrings, "a")
	if got := <-said; !strings.HasPrefix(got, lines.Advice+"perl") || !strings.Contains(got, "flush") {
		t.Errorf("got %q, want advice", got)
	}
}

func TestMoreThanOneLine(t *testing.T) {
	t.Parallel()
	ctx, pool := open(t, lines.Spec{Command: perl(`answer("=$_\nmore")`)}, client.Workers(1))
	for i := range 2 {
		result, err := client.Apply(ctx, pool, asStrings, strconv.Itoa(i))
		if !errors.Is(err, client.ErrTask) || !strings.Contains(err.Error(), "more than one line") {
			t.Fatalf("item %d: got %q, %v; want a task error", i, result, err)
		}
	}
}

// A line that nobody asked for, between two items, ends the program, and blames no item.
func TestLineBetweenItems(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, pool := open(t, lines.Spec{Command: perl(`answer("=$_"); if ($_ eq "5" && !-e "said") { select undef, undef, undef, 0.01 until -e "go"; answer("by the way"); open S, ">", "said"; close S }`)},
		client.Workers(1), client.Dir(dir))
	for i := range 20 {
		got, err := client.Apply(ctx, pool, asStrings, strconv.Itoa(i))
		if want := "=" + strconv.Itoa(i); err != nil || got != want {
			t.Fatalf("item %d: got %q, %v, want %q", i, got, err, want)
		}
		if i == 5 {
			if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			waitFor(t, filepath.Join(dir, "said"))
		}
	}
}

func TestAnswersThatAreNoText(t *testing.T) {
	t.Parallel()
	ctx, pool := open(t, lines.Spec{Command: perl(`answer($_ eq "b" ? "\xff\x00" : $_)`)})
	results, err := client.Map(ctx, pool, asStrings, []string{"a", "b", "c"}, client.ChunkSize(3))
	match(t, outcomes(t, results, err), []string{"a", "task_error: …not UTF-8", "c"})
}

// An answer over the limit is cut and fails its item. It is not held in memory as a whole.
func TestAnswerOfAHundredMiB(t *testing.T) {
	t.Parallel()
	ctx, pool := open(t, lines.Spec{Command: perl(`if ($_ > 9) { my $mib = "x" x 1048576; print $mib for 1..$_; print "\n" } else { answer($_) }`), Form: lines.Bytes}, client.Workers(1))
	results, err := client.Map(ctx, pool, asBytes, [][]byte{[]byte("1"), []byte("100"), []byte("2"), []byte("31"), []byte("3")})
	var failed *client.MapError
	if !errors.As(err, &failed) || len(failed.Errors) != 1 || failed.Errors[0].Index != 1 || !strings.Contains(err.Error(), "104857600 bytes") {
		t.Fatalf("got %v, want one failure with the size", err)
	}
	if string(results[2]) != "2" || len(results[3]) != 31<<20 || string(results[4]) != "3" {
		t.Errorf("got %d, %d and %d bytes for the others, want 1, 31 MiB, 1", len(results[2]), len(results[3]), len(results[4]))
	}
}

// Items and answers that fill both pipes do not hold each other up.
func TestBothPipesFull(t *testing.T) {
	t.Parallel()
	ctx, pool := open(t, lines.Spec{Command: perl(`answer("=$_" x 3)`)})
	items := slices.Repeat([]string{strings.Repeat("x", 50_000)}, 300)
	results, err := client.Map(ctx, pool, asStrings, items, client.ChunkSize(100))
	for i, r := range results {
		if r != strings.Repeat("="+items[i], 3) {
			t.Fatalf("item %d has another answer of %d bytes", i, len(r))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A program that answers what it has not read is replaced, and the call ends all the same.
func TestProgramThatDoesNotRead(t *testing.T) {
	t.Parallel()
	ctx, pool := open(t, lines.Spec{Command: []string{"perl", "-e", `$| = 1; while (sysread STDIN, my $x, 1) { print "x\n"; sleep 1000 if -e "said"; open S, ">", "said"; close S }`}},
		client.Workers(1))
	_, err := client.Map(ctx, pool, asStrings, slices.Repeat([]string{strings.Repeat("x", 200_000)}, 3), client.TaskTimeout(time.Second))
	if err == nil {
		t.Error("got three answers from a program that has read three bytes")
	}
}

// A process that the program has left in the background holds its stdout open. That delays nothing.
func TestBackgroundHoldsStdout(t *testing.T) {
	t.Parallel()
	ctx, pool := open(t, lines.Spec{Command: []string{"sh", "-c", `sleep 1000 & while read -r line; do [ "$line" = 7 ] && kill -9 $$; echo "=$line"; done`}})
	results, err := client.Map(ctx, pool, asStrings, numbers(50), client.ChunkSize(25))
	exactly(t, results, err, 7)
}

func TestProgramThatCannotStart(t *testing.T) {
	t.Parallel()
	for name, command := range map[string][]string{"no program": {"no-such-program"}, "no script": {"perl", "no-such-script"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needs(t, "perl", "perl")
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			ctx, pool := open(t, lines.Spec{Command: []string{"perl"}}, client.Workers(1), client.Program(self, lines.Spec{Command: command}.Args()...))
			_, err = client.Map(ctx, pool, asStrings, numbers(3))
			if err == nil || !strings.Contains(err.Error(), command[len(command)-1]) {
				t.Errorf("got %v, want an error that names %q", err, command[len(command)-1])
			}
		})
	}
}

// A program sees the end of its input when its pool is closed, and has time to end by itself.
func TestProgramSeesTheEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, pool := open(t, lines.Spec{Command: []string{"perl", "-e", `$| = 1; while (<STDIN>) { print "=$_" } open E, ">", "ended"; print E "properly\n"`}}, client.Dir(dir), client.Workers(1), client.CancelGrace(patience))
	results, err := client.Map(ctx, pool, asStrings, numbers(10))
	exactly(t, results, err)
	if err := errors.Join(pool.Close(), pool.Join(ctx)); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "ended")); string(b) != "properly\n" {
		t.Errorf("got %q, %v; want what it writes when its input has ended", b, err)
	}
}

func crashReport(e *client.TaskError) []string {
	if e.Exit == nil {
		return nil
	}
	return e.Exit.CrashReport
}

// killPrograms kills the line programs that have left their number in dir, and says how many there were.
func killPrograms(t *testing.T, dir string) (n int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "pid*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		os.Remove(file)
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(file), "pid"))
		if err == nil && syscall.Kill(pid, syscall.SIGKILL) == nil {
			n++
		}
	}
	return n
}

// waitFor waits until a file is there.
func waitFor(t *testing.T, file string) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for {
		if _, err := os.Stat(file); err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("%s is not there after %v", file, patience)
		}
	}
}

// A call that is cancelled does not cost its workers their programs, if these answer within the grace.
func TestCancelKeepsAWarmProgram(t *testing.T) {
	t.Parallel()
	ctx, pool := open(t, lines.Spec{Command: perl(`select undef, undef, undef, 0.02 if $_ ne "pid"; answer($$)`)}, client.Workers(1), client.CancelGrace(patience))
	before, err := client.Apply(ctx, pool, asStrings, "pid")
	if err != nil {
		t.Fatal(err)
	}
	calling, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, err := range client.IMapUnordered(calling, pool, asStrings, slices.Values(numbers(10_000))) {
		if err != nil {
			break
		}
		cancel()
	}
	after, err := client.Apply(ctx, pool, asStrings, "pid")
	if err != nil || after != before {
		t.Errorf("got process %s, %v, want %s as before", after, err, before)
	}
}

// What a worker has not begun is taken back from it when another one is idle: one slow item holds up no more than what lies behind it in the pipe.
func TestSlowItemHoldsUpLittle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, pool := open(t, lines.Spec{Command: perl(`if ($_ eq "3000") { select undef, undef, undef, 0.01 until -e "go" } answer("=$_")`)}, client.Dir(dir))
	items, ended := numbers(20_000), 0
	for out, err := range client.IMapUnordered(ctx, pool, asStrings, slices.Values(items)) {
		if err != nil || out.Err != nil {
			t.Fatal(err, out.Err)
		}
		// The slow item, and at most as many behind it as the pipe holds.
		if ended++; ended == len(items)-1-128 {
			if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if ended != len(items) {
		t.Errorf("got %d results, want %d", ended, len(items))
	}
}

// Items of all kinds in a random order, at all chunk sizes: each has its own outcome.
func TestAllKindsMixed(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		weight  int
		item    string // and its number
		outcome error
	}{
		{200, "ok", nil},
		{2, "kill", client.ErrWorkerLost},
		{1, "exit", client.ErrWorkerLost},
		{5, "new\nline", client.ErrTask},
		{5, "binary", client.ErrTask},
		{1, "long", nil},
	}
	program := perl(`kill 9, $$ if /^kill/; exit 0 if /^exit/; answer(/^binary/ ? "\xff" : /^long/ ? "=$_" . "x" x 300_000 : "=$_")`)
	for _, chunk := range []int{0, 1, 7, 500} {
		t.Run(strconv.Itoa(chunk), func(t *testing.T) {
			t.Parallel()
			var bag, chosen []int
			for k := range kinds {
				bag = append(bag, slices.Repeat([]int{k}, kinds[k].weight)...)
			}
			random := rand.New(rand.NewPCG(uint64(chunk), 1))
			items := make([]string, 3000)
			for i := range items {
				k := bag[random.IntN(len(bag))]
				chosen = append(chosen, k)
				items[i] = kinds[k].item + strconv.Itoa(i)
			}
			ctx, pool := open(t, lines.Spec{Command: program})
			seen := 0
			for out, err := range client.IMap(ctx, pool, asStrings, slices.Values(items), client.ChunkSize(chunk)) {
				if err != nil {
					t.Fatal(err)
				}
				seen++
				want := kinds[chosen[out.Index]].outcome
				if !errors.Is(out.Err, want) || want == nil && out.Err == nil && !strings.HasPrefix(out.Value, "="+items[out.Index]) {
					t.Errorf("item %d (%q): got %.40q, %v, want %v", out.Index, items[out.Index], out.Value, out.Err, want)
				}
			}
			if seen != len(items) {
				t.Errorf("got %d outcomes, want %d", seen, len(items))
			}
		})
	}
}
