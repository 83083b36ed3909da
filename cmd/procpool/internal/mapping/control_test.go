package mapping

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestJobs(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int{
		"": 8, "1": 1, "12": 12, "100%": 8, "50%": 4, "150%": 12, "1%": 1, "+2": 10, "-2": 6, "-8": 1, "-100": 1, "0": manyWorkers,
		"5000": 0, "+5000": 0, "x": 0, "%": 0, "-1%": 0, "0%": 0, "1.5": 0, "99999999999999999999%": 0,
	} {
		got, err := parseJobs(in, 8)
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("-j %q with 8 CPUs: got %d, %v; want %d", in, got, err, want)
		}
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"5": 5 * time.Second, "0.25": 250 * time.Millisecond, "1.5s": 1500 * time.Millisecond, "2m": 2 * time.Minute, "1h30m": 90 * time.Minute,
		"0": 0, "": -1, "5x": -1, "-1": -1, "-1s": -1, "1e300": -1, "NaN": -1,
	} {
		got, err := parseDuration(in)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %v, %v; want %v", in, got, err, want)
		}
	}
	for in, want := range map[string]timeLimit{"3": {fixed: 3 * time.Second}, "200%": {percent: 200}, "100%": {}, "0%": {}, "x%": {}} {
		var got timeLimit
		if err := got.Set(in); (err != nil) != (want == timeLimit{}) || (err == nil && got != want) {
			t.Errorf("limit %q: got %+v, %v; want %+v", in, got, err, want)
		}
	}
}

func TestHaltRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule                string
		done, failed, total int
		want                bool
	}{
		{"never", 9, 9, 9, false},
		{"now,fail=1", 5, 0, 9, false},
		{"now,fail=1", 5, 1, 9, true},
		{"soon,fail=3", 5, 2, 9, false},
		{"soon,success=3", 5, 2, 9, true},
		{"soon,success=3", 5, 3, 9, false},
		{"soon,done=5", 5, 3, -1, true},
		{"soon,fail=10%", 5, 1, 20, false},
		{"soon,fail=10%", 5, 2, 20, true},
		{"soon,fail=1%", 5, 1, 20, true},
		{"soon,fail=1%", 5, 0, 20, false},
		{"soon,fail=1%", 5, 5, -1, false},
	} {
		var h haltRule
		if err := h.Set(c.rule); err != nil {
			t.Fatal(err)
		}
		if got := h.met(c.done, c.failed, c.total); got != c.want {
			t.Errorf("%s with %d done, %d failed of %d: got %v, want %v", c.rule, c.done, c.failed, c.total, got, c.want)
		}
	}
	for _, bad := range []string{"", "now", "later,fail=1", "now,fail", "now,fail=0", "now,fail=-1", "now,late=1", "soon,fail=0%", "soon,fail=101%", "2"} {
		var h haltRule
		if err := h.Set(bad); !errors.Is(err, errHalt) || h != (haltRule{}) {
			t.Errorf("%q: got %+v, %v; want %v", bad, h, err, errHalt)
		}
	}
}

// enter runs n entries through a gate and returns when each came through, in seconds from now.
func enter(t *testing.T, g *gate, n int) <-chan float64 {
	t.Helper()
	start, entries := time.Now(), make(chan float64, n)
	go func() {
		defer close(entries)
		for range n {
			ok, err := g.enter(t.Context())
			if !ok || err != nil {
				return
			}
			entries <- time.Since(start).Seconds()
		}
	}()
	return entries
}

func collect(entries <-chan float64) (all []float64) {
	for e := range entries {
		all = append(all, e)
	}
	return all
}

func TestGateCountsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2)
		entries := enter(t, g, 5)
		for range 3 {
			time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock: each second one of them ends
			g.ended()
		}
		if got, want := collect(entries), []float64{0, 0, 1, 2, 3}; !slices.Equal(got, want) {
			t.Errorf("got entries at %v s, want %v", got, want)
		}
	})
}

func TestGateWaitsForWhatIsNotWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2)
		g.window = 3
		entries := enter(t, g, 4)
		for range 3 {
			g.ended()
			synctest.Wait()
		}
		if len(entries) != 3 {
			t.Errorf("%d entered while nothing has been written, want 3", len(entries))
		}
		g.wrote()
		if got := collect(entries); len(got) != 4 {
			t.Errorf("%d entered, want 4", len(got))
		}
	})
}

func TestGateKeepsTheDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(10)
		g.delay = 1500 * time.Millisecond
		if got, want := collect(enter(t, g, 3)), []float64{0, 1.5, 3}; !slices.Equal(got, want) {
			t.Errorf("got entries at %v s, want %v", got, want)
		}
	})
}

func TestGateWaitsForMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(10)
		start, told := time.Now(), 0
		g.memory = 100
		g.available = func() (int64, error) {
			if time.Since(start) < time.Second {
				return 99, nil
			}
			return 100, nil
		}
		g.waiting = func(int64) { told++ }
		if got, want := collect(enter(t, g, 2)), []float64{1, 1}; !slices.Equal(got, want) || told != 1 {
			t.Errorf("got entries at %v s and %d words about it, want %v and 1", got, told, want)
		}
	})
}

func TestGateLetsNobodyInWhenItIsShut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		entries := enter(t, g, 2)
		synctest.Wait()
		g.shut()
		if g.drained() {
			t.Error("drained while one is under way")
		}
		g.ended()
		if got := collect(entries); len(got) != 1 || !g.drained() {
			t.Errorf("%d entered, drained: %v; want 1 and true", len(got), g.drained())
		}
	})
}

func TestMedianLimit(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "limit"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := &medianLimit{percent: 200, file: f}
	for i, seconds := range []int{30, 10, 20} {
		if info, err := f.Stat(); err != nil || info.Size() != 0 {
			t.Errorf("after %d ends: %d bytes, %v; want nothing", i, info.Size(), err)
		}
		if err := m.add(time.Duration(seconds) * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := m.limit(), 40*time.Second; got != want {
		t.Errorf("200%% of the median of 10, 20 and 30 s: got %v, want %v", got, want)
	}
	late := make(chan struct{})
	stop, err := watchLimit(f.Name(), time.Now().Add(-41*time.Second), func() { close(late) })
	if err != nil {
		t.Fatal(err)
	}
	<-late
	stop()

	var all []time.Duration
	for range 3 * medianOf { // and those that are too old are forgotten
		d := time.Duration(rand.IntN(50)) * time.Second
		all = append(all, d)
		if err := m.add(d); err != nil {
			t.Fatal(err)
		}
	}
	last := slices.Sorted(slices.Values(all[len(all)-medianOf:]))
	if got, want := m.limit(), max(2*last[medianOf/2], time.Millisecond); got != want || !slices.Equal(m.sorted, last) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestHints(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ command, want string }{
		{"wc -l", ""},
		{"no-such-program -l", "no program"},
		{"./no-such-program", "no such file"},
		{"A=b wc -l", "env A=b wc -l"},
		{"cd {}", "part of the shell"},
		{"{} -l", ""},
	} {
		err := checkProgram(strings.Fields(c.command))
		if (err != nil) != (c.want != "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.command, err, c.want)
		}
	}
	for command, want := range map[string]string{
		"wc -l {}": "", "cat {} | wc": `"|"`, "make {} && echo": `"&&"`, "wc {} > out": `">"`, "rm $(ls)": `"$(ls)"`, "grep | {}": "", "find {} -exec ls ;": "",
		"echo $HOME": "", "sh -c | {}": "",
	} {
		if got := shellSyntax(strings.Fields(command)); (got != "") != (want != "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", command, got, want)
		}
	}
}
