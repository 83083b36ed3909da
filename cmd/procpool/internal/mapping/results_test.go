package mapping

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/cmd/procpool/internal/exit"
	"github.com/procpool/procpool/cmd/procpool/internal/text"
)

func TestResultPaths(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300)
	for want, items := range map[string][]string{
		"1/a":                            {"a"},
		"1/a/2/b c":                      {"a", "b c"},
		`1/a\_b\tc\\d`:                   {"a/b\tc\\d"},
		`1/..\#7`:                        {".."},
		`1/.\#7`:                         {"."},
		`1/\#7`:                          {""},
		"1/" + long[:200] + `\#7`:        {long},
		"7":                              nil,
		`1/\_etc\_passwd/2/..\_..\_root`: {"/etc/passwd", "../../root"},
	} {
		if got := resultPath(&job{Seq: 7, Items: items}); got != want {
			t.Errorf("%q: got %s, want %s", items, got, want)
		}
	}
}

func TestResultDir(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "out")
	r, err := newResultDir(root)
	if err != nil {
		t.Fatal(err)
	}
	j := testJobs("a/b", "quiet")
	for i, c := range []struct {
		attempt, stream int
		data            string
	}{{1, 1, "void"}, {2, 1, "one\n"}, {2, 2, "oops\n"}, {2, 1, "two\n"}} {
		if err := r.piece(0, c.attempt, c.stream, j[0], []byte(c.data)); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	for _, e := range []*ended{{Index: 0, Job: j[0], Attempt: 2, Result: commandResult{Stdout: text.Bytes("three")}}, {Index: 1, Job: j[1], Attempt: 1}} {
		if err := r.end(e); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{
		`1/a\_b/stdout`: "one\ntwo\nthree", `1/a\_b/stderr`: "oops\n", `1/a\_b/seq`: "1", "1/quiet/stdout": "", "1/quiet/stderr": "", "1/quiet/seq": "2",
	} {
		if got := readFile(t, filepath.Join(root, file)); got != want {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
}

func TestResultTable(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "out.csv")
	table, err := newResultTable(file, false, 2, func(e *ended) string { return echo(e.Job) })
	if err != nil {
		t.Fatal(err)
	}
	j := slices.Collect(jobs(slices.Values([]string{`q"x,`, "b", "c"}), 2))
	if err := table.piece(0, 1, 1, j[0], []byte("first\n")); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("\"\n", spoolMemory)
	for i, e := range []*ended{
		{Job: j[0], Attempt: 1, Outcome: "value", Result: commandResult{Stdout: text.Bytes(`sec"ond`), Stderr: text.Bytes("e")}},
		{Job: j[1], Attempt: 1, Outcome: "task_error", Result: commandResult{ExitCode: 3, Stdout: text.Bytes(big)}},
	} {
		e.Index = i
		if err := table.end(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.flush(); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(readFile(t, file))).ReadAll()
	if err != nil || len(rows) != 3 {
		t.Fatalf("got %d rows, %v; want 3", len(rows), err)
	}
	if got, want := strings.Join(rows[0], " "), "Seq Host Starttime JobRuntime Send Receive Exitval Signal Command V1 V2 Stdout Stderr"; got != want {
		t.Errorf("got columns %s, want %s", got, want)
	}
	for i, want := range [][]string{
		{"1", ":", "13", "0", "0", `q"x,`, "b", "first\nsec\"ond", "e"},
		{"2", ":", fmt.Sprint(2 * spoolMemory), "3", "0", "c", "", big, ""},
	} {
		r := rows[i+1]
		if got := []string{r[0], r[1], r[5], r[6], r[7], r[9], r[10], r[11], r[12]}; !slices.Equal(got, want) {
			t.Errorf("row %d: got %.200q, want %.200q", i+1, got, want)
		}
	}
}

func TestResultTableIsResumed(t *testing.T) {
	t.Parallel()
	const head = "Seq,Host,Starttime,JobRuntime,Send,Receive,Exitval,Signal,Command,V1,Stdout,Stderr\n"
	const first = "1,:,0.000,0.000,0,4,0,0,echo a,a,\"\"\"\n\"\"\",\n"
	const second = "2,:,0.000,0.000,0,2,0,0,echo b,b,\"b\n\",\n"
	for _, c := range []struct{ name, old, want, bad string }{
		{"an empty file", "", head + second, ""},
		{"a torn header", head[:10], head + second, ""},
		{"rows", head + first, head + first + second, ""},
		{"a torn row", head + first + first[:len(first)-1], head + first + second, ""},
		{"a row torn in its output", head + first + first[:strings.LastIndex(first, "\n\"")+1], head + first + second, ""},
		{"other columns", strings.Replace(head, "V1", "V1,V2", 1) + "1,", "", "other columns"},
		{"another file", "important\n", "", "other columns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "out.csv")
			if err := os.WriteFile(file, []byte(c.old), 0o600); err != nil {
				t.Fatal(err)
			}
			table, err := newResultTable(file, true, 1, func(e *ended) string { return echo(e.Job) })
			if c.bad != "" {
				if err == nil || !strings.Contains(err.Error(), c.bad) || readFile(t, file) != c.old {
					t.Errorf("got %v, want an error with %q; the file is %q now", err, c.bad, readFile(t, file))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			e := &ended{Job: testJobs("a", "b")[1], Attempt: 1, Outcome: "value", Start: time.UnixMilli(0), Result: commandResult{Stdout: text.Bytes("b\n")}}
			if err := errors.Join(table.end(e), table.flush()); err != nil {
				t.Fatal(err)
			}
			if got := readFile(t, file); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
		})
	}
}

func TestResultsThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newResultDir(filepath.Join(file, "dir")); err == nil {
		t.Error("a directory below a file: no error")
	}
	if _, err := newResultTable(filepath.Join(file, "x.csv"), false, 1, nil); err == nil {
		t.Error("a table below a file: no error")
	}
}

// recorder is a layout that notes what it gets.
type recorder struct{ got []string }

func (r *recorder) piece(index, _, stream int, _ *job, data []byte) error {
	r.got = append(r.got, fmt.Sprintf("%d.%d %s", index, stream, data))
	return nil
}

func (r *recorder) end(e *ended) error {
	r.got = append(r.got, fmt.Sprintf("end %d %s", e.Index, e.Result.Stdout))
	return nil
}

func TestOrder(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	o := newOrdered(r)
	for _, index := range []int{1, 3, 0, 4} {
		if err := o.end(&ended{Index: index, Job: &job{}, Result: commandResult{Stdout: text.Bytes(fmt.Sprint("out", index))}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.flush(); err != nil { // 2 never ended
		t.Fatal(err)
	}
	want := []string{"1.1 out1", "3.1 out3", "end 0 out0", "end 1 ", "4.1 out4", "end 3 ", "end 4 "}
	if !slices.Equal(r.got, want) {
		t.Errorf("got %q, want %q", r.got, want)
	}
}

type brokenLayout struct{}

var errBroken = errors.New("broken")

func (brokenLayout) piece(int, int, int, *job, []byte) error { return errBroken }

func (brokenLayout) end(*ended) error { return errBroken }

func TestWhatIsNotWrittenIsNotLogged(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	if err := (outputs{brokenLayout{}, r}).end(&ended{Job: &job{}}); !errors.Is(err, errBroken) || len(r.got) > 0 {
		t.Errorf("got %v and %q, want %v and nothing in the log", err, r.got, errBroken)
	}
}

func TestWhoseOutputIsLostIsNotLogged(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	r := &recorder{}
	m := &mapping{progress: newProgress(-1, 1, time.Now()), cancel: cancel}
	w := commandWriter{mapping: m, layout: r}
	it := &pendingItem{job: &job{}}
	if err := w.write(it, client.Outcome[commandResult]{}); err != nil || len(r.got) != 1 {
		t.Fatalf("before: got %v and %q, want the end in the log", err, r.got)
	}
	m.pieces(brokenLayout{})(1, 1, 1, []byte("lost"))
	if err := w.write(it, client.Outcome[commandResult]{Index: 1}); !errors.Is(err, errBroken) || len(r.got) != 1 {
		t.Errorf("got %v and %q, want %v and nothing more in the log", err, r.got, errBroken)
	}
	if err := context.Cause(ctx); !errors.Is(err, errBroken) {
		t.Errorf("the run ends because of %v, want %v", err, errBroken)
	}
}

func TestHaltHidesNoError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule      string
		err, want error
	}{
		{"now,success=1", nil, nil},
		{"now,success=1", errBroken, errBroken},
		{"soon,success=1", errBroken, errBroken},
		{"now,fail=1", nil, exit.StatusError(1)},
		{"now,fail=1", errBroken, errBroken},
	} {
		s, _, _ := newTestScreen()
		m := &mapping{screen: s, options: &mapOptions{}, progress: newProgress(-1, 1, time.Now()), halted: true}
		if err := m.options.halt.Set(c.rule); err != nil {
			t.Fatal(err)
		}
		m.progress.end(0, false, time.Now())
		ctx, cancel := context.WithCancelCause(t.Context())
		if m.options.halt.now {
			cancel(haltedError{m.options.halt})
		}
		if err := m.conclude(ctx, c.err); !errors.Is(err, c.want) {
			t.Errorf("%s, then %v: got %v, want %v", c.rule, c.err, err, c.want)
		}
		cancel(nil)
	}
}
