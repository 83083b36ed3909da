package lines_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/workerproc"
	"github.com/procpool/procpool/workerproc/lines"
)

func TestMain(m *testing.M) {
	lines.Main()
	workerproc.Main()
	os.Exit(m.Run())
}

// patience is how long anything here may take at most; nothing waits for it to pass.
const patience = 2 * time.Minute

var (
	asStrings = client.Func[string, string](lines.Function)
	asBytes   = client.Func[[]byte, []byte](lines.Function)
)

// needs skips a test whose program is not there.
func needs(t *testing.T, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("NOT TESTED: line workers in %s, which is not installed (apt-get install %s)", program, pkg)
	}
}

// perl is a line program: body is run for each line, which is in $_ without its end, and answer(...) answers.
func perl(body string) []string {
	return []string{"perl", "-e", `use strict; $| = 1; sub answer { print @_, "\n" } while (<STDIN>) { chomp; ` + body + ` }`}
}

// open opens a pool of line workers, and says afterwards what they wrote to stderr.
func open(t *testing.T, spec lines.Spec, opts ...client.PoolOption) (context.Context, *client.Pool) {
	t.Helper()
	needs(t, spec.Command[0], spec.Command[0])
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	pool, err := local.OpenPool(ctx, append([]client.PoolOption{
		client.Workers(2), client.Program(self, spec.Args()...), client.Dir(t.TempDir()), client.CancelGrace(time.Second), client.KillDelay(time.Second),
		client.Output(func(o client.WorkerOutput) { t.Logf("%s: %s", o.Worker, o.Line) }),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pool.Terminate(); err != nil {
			t.Errorf("terminate: %v", err)
		}
	})
	return ctx, pool
}

// outcomes are the results of a Map, with the failures at their places.
func outcomes(t *testing.T, results []string, err error) []string {
	t.Helper()
	var failed *client.MapError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if failed == nil {
		return results
	}
	for _, e := range failed.Errors {
		results[e.Index] = strings.ToLower(strings.TrimPrefix(e.Outcome.String(), "OUTCOME_")) + ": " + e.Error()
	}
	return results
}

// match compares outcomes with what they must be, or, where that ends with "…", begin with and have in them.
func match(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d outcomes, want %d: %q", len(got), len(want), got)
	}
	for i := range got {
		begin, in, partly := strings.Cut(want[i], "…")
		if partly && strings.HasPrefix(got[i], begin) && strings.Contains(got[i], in) {
			continue
		}
		if got[i] != want[i] {
			t.Errorf("item %d: got %q, want %q", i, got[i], want[i])
		}
	}
}

func numbers(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint(i)
	}
	return list
}

// exactly checks that every item but some was answered by itself with an "=" before it, and returns the failures of these.
func exactly(t *testing.T, results []string, err error, lost ...int) []*client.TaskError {
	t.Helper()
	var failed *client.MapError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	var errs []*client.TaskError
	var at []int
	if failed != nil {
		errs = failed.Errors
	}
	for _, e := range errs {
		at = append(at, e.Index)
	}
	if !slices.Equal(at, lost) {
		t.Errorf("items %v have failed, want %v: %v", at, lost, err)
	}
	for i, r := range results {
		if want := fmt.Sprint("=", i); !slices.Contains(at, i) && r != want {
			t.Fatalf("item %d: got %q, want %q", i, r, want)
		}
	}
	return errs
}
