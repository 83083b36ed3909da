package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/procpool/procpool/workerproc"
	"github.com/procpool/procpool/workerproc/lines"
)

// asProgram makes the test binary a program whose only commands are those of bench, also in its workers.
const asProgram = "PROCPOOL_TEST_AS_BENCH"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		lines.Main()
		workerproc.Main()
		os.Exit(program())
	}
	os.Setenv(asProgram, "1") // for what is started from here on
	os.Exit(m.Run())
}

func program() int {
	root := &cobra.Command{SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(Commands(func() Host {
		return Host{Say: func(problem string) { fmt.Fprintln(os.Stderr, problem) }, Show: func(string) {}}
	})...)
	switch err := root.Execute(); {
	case err == nil:
		return 0
	case errors.Is(err, ErrIncomplete):
		return 1
	default:
		fmt.Fprintln(os.Stderr, err)
		return 255
	}
}

// patience is how long anything here may take at most; nothing waits for it to pass.
const patience = 2 * time.Minute

// run is how bench ended.
type run struct {
	stdout, stderr string
	status         int
}

func runBench(t *testing.T, args ...string) run {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, append([]string{"bench"}, args...)...)
	cmd.Dir = t.TempDir()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v\n%s", args, err, &stderr)
	}
	return run{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// shortDir is a directory for sockets. t.TempDir is too long: a socket's path has at most 107 bytes.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// The relays move what is measured, and count it.
func TestFloor(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, streams := range []bool{true, false} {
		t.Run(fmt.Sprintf("streams=%t", streams), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			relay, err := startProcess(ctx, self, floorCommand, "--dir", shortDir(t), fmt.Sprintf("--streams=%t", streams))
			if err != nil {
				t.Fatal(err)
			}
			defer relay.close()
			for _, w := range []work{
				{Do: "map", Items: 5000},
				{Do: "map", Items: 100, Chunk: 1},
				{Do: "argument", Items: 20, Bytes: 64 << 10},
				{Do: "result", Items: 20, Bytes: 64 << 10},
				{Do: "apply", Items: 1},
			} {
				w.Workers = 2
				a, err := relay.round(ctx, w)
				if err != nil {
					t.Fatalf("%+v: %v", w, err)
				}
				if a.Checked != w.Items || len(a.Values) == 0 || *a.Values[0] <= 0 || math.IsInf(*a.Values[0], 0) {
					t.Errorf("%+v: got %+v, want a value, and %d that were checked", w, a, w.Items)
				}
			}
			if a, err := relay.round(ctx, work{Do: "crash", Workers: 2}); err == nil {
				t.Errorf("got %+v of what has no floor, want an error", a)
			}
		})
	}
}

func TestComparesWithTheFloor(t *testing.T) {
	t.Parallel()
	got := runBench(t, "apply", "--compare", "floor", "--runs", "1", "--time", "0s", "--json")
	if got.status != 0 {
		t.Fatalf("status %d\n%s", got.status, got.stderr)
	}
	for _, peer := range []string{peerStreams, peerSockets} {
		const want = 2 // figures
		if n := strings.Count(got.stdout, `"peer": "`+peer+`"`); n != want {
			t.Errorf("%s is there %d times, want %d:\n%s", peer, n, want, got.stdout)
		}
	}
}

// benchJSON is a tiny bench as a script sees it. Its measures are such as take no time even on a machine that has none.
func benchJSON(t *testing.T, status int, args ...string) (r report, stderr string) {
	t.Helper()
	got := runBench(t, append([]string{"--json", "--runs", "2", "--time", "1ms", "apply", "start-warm"}, args...)...)
	if got.status != status {
		t.Fatalf("%q: status %d, want %d\n%s", args, got.status, status, got.stderr)
	}
	if err := json.Unmarshal([]byte(got.stdout), &r); err != nil {
		t.Fatalf("%v in\n%s", err, got.stdout)
	}
	var names []string
	for _, m := range r.Measures {
		names = append(names, m.Name)
		if least := 2; m.Checked["procpool"] < least {
			t.Errorf("%s: %d results were checked, want at least %d", m.Name, m.Checked["procpool"], least)
		}
		for _, f := range m.Figures {
			if f.Ours == nil || len(f.Ours.Values) != 2 || f.Ours.Median <= 0 || math.IsInf(f.Ours.Median, 0) || f.Ours.Min > f.Ours.Median || f.Ours.Median > f.Ours.Max {
				t.Errorf("%s %s: got %+v, want two values", m.Name, f.Name, f.Ours)
			}
		}
	}
	if want := []string{"apply", "start-warm"}; !slices.Equal(names, want) {
		t.Errorf("got measures %v, want %v", names, want)
	}
	return r, got.stderr
}

func TestMeasures(t *testing.T) {
	t.Parallel()
	r, stderr := benchJSON(t, 0)
	if r.Mode != "embedded" || r.Workers != 2 || r.Runs != 2 || r.Machine.CPUs < 1 || len(r.Problems) > 0 || stderr != "" {
		t.Errorf("got %+v\n%s", r, stderr)
	}
}

func TestCompares(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not there, so the comparison with it is NOT tested here; apt-get install python3 brings it")
	}
	r, _ := benchJSON(t, 0, "--compare", "python")
	for _, m := range r.Measures {
		for _, f := range m.Figures {
			for _, p := range f.Peers {
				if p.Theirs == nil || len(p.Theirs.Values) != 2 || p.Ratio == nil || len(p.Ratio.Values) != 2 || p.Ratio.Min <= 0 {
					t.Errorf("%s %s: got %+v of %s, want two values and ratios", m.Name, f.Name, p, p.Peer)
				}
				if m.Checked[p.Peer] < 2 {
					t.Errorf("%s: %d results of %s were checked", m.Name, m.Checked[p.Peer], p.Peer)
				}
			}
			if want := map[string]int{"apply": 2, "start-warm": 1}[m.Name]; len(f.Peers) != want {
				t.Errorf("%s: got %d peers, want %d", m.Name, len(f.Peers), want)
			}
		}
	}
}

func TestSaysWhoIsMissing(t *testing.T) {
	t.Parallel()
	r, stderr := benchJSON(t, 1, "--compare", "python", "--python", "no-such-python")
	if len(r.Problems) != 2 || strings.Count(stderr, "no-such-python") != 2 { // mp.Pool and ProcessPoolExecutor
		t.Errorf("got problems %q and\n%s\nwant two, each said once", r.Problems, stderr)
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"nothing", "--runs 0", "--compare perl", "-j 0", "--json --markdown", "--time -1s"} {
		if got := runBench(t, strings.Fields(args)...); got.status != 255 || got.stdout != "" {
			t.Errorf("bench %s: got %+v, want a refusal", args, got)
		}
	}
}
