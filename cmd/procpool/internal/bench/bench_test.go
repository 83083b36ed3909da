package bench

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSelectMeasures(t *testing.T) {
	t.Parallel()
	names := func(list []measure) string {
		var names []string
		for _, m := range list {
			names = append(names, m.name)
		}
		return strings.Join(names, " ")
	}
	for _, c := range []struct{ words, peers, want string }{
		{"map-1", "", "map-1"},
		{"map", "", "map-auto map-10 map-1"},
		{"apply", "", "apply"},
		{"start-warm imap start", "", "imap start-cold start-worker start-warm"},
		{"", "xargs", "command-rate command-one"},
		{"crash", "xargs", "crash"},
		{"all", "xargs", names(measures)},
	} {
		got, err := selectMeasures(strings.Fields(c.words), comparisons[c.peers])
		if err != nil || names(got) != c.want {
			t.Errorf("%q, compared with %q: got %s, %v, want %s", c.words, c.peers, names(got), err, c.want)
		}
	}
	if all, err := selectMeasures(nil, nil); err != nil || len(all) != len(measures) {
		t.Errorf("no word: got %d measures, %v, want all %d", len(all), err, len(measures))
	}
	for _, word := range []string{"ma", "map-", "nothing"} {
		if got, err := selectMeasures([]string{"imap", word}, nil); err == nil {
			t.Errorf("%q: got %s, want an error", word, names(got))
		}
	}
}

func TestMeasuresFitTogether(t *testing.T) {
	t.Parallel()
	known := slices.Concat(comparisons["python"], comparisons["xargs"], comparisons["floor"])
	seen := map[string]bool{}
	for _, m := range measures {
		if seen[m.name] || m.what == "" || len(m.figures) == 0 {
			t.Errorf("%q is there twice, or does not say what it is", m.name)
		}
		seen[m.name] = true
		if !m.command && rounds[m.work.Do] == nil {
			t.Errorf("%s: nobody does %q", m.name, m.work.Do)
		}
		for _, p := range m.peers {
			if !slices.Contains(known, p) {
				t.Errorf("%s: no --compare brings %q", m.name, p)
			}
			if slices.Contains(comparisons["floor"], p) {
				continue // TestFloor runs them
			}
			if m.command == slices.Contains(comparisons["python"], p) {
				t.Errorf("%s: %s cannot do it", m.name, p)
			}
			if do := "def do_" + strings.ReplaceAll(m.work.Do, "-", "_") + "("; !m.command && !strings.Contains(string(script), do) {
				t.Errorf("%s: bench.py has no %q", m.name, do)
			}
		}
	}
}

func TestFiguresAreReadable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		unit unit
		v    float64
		want string
	}{
		{perSecond, 8_912_345, "8.91 M/s"},
		{perSecond, 255, "255 /s"},
		{inSeconds, 0.0000927, "92.7 µs"},
		{inSeconds, 555e-9, "555 ns"},
		{inSeconds, 0.0103, "10.3 ms"},
		{inSeconds, 1.5, "1.50 s"},
		{inBytes, 18.4 * (1 << 20), "18.4 MiB"},
		{bytesPerSecond, 381e6, "381 MB/s"},
		{asShare, 0.497, "49.7 %"},
		{inItems, 4075, "4075"},
		{inItems, 0, "0"},
	} {
		if got := c.unit.format(c.v); got != c.want {
			t.Errorf("%v %s: got %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

func TestSpreadAndPercentiles(t *testing.T) {
	t.Parallel()
	if s := newSpread([]float64{3, 1, 2}); s.Median != 2 || s.Min != 1 || s.Max != 3 || s.Values[0] != 3 {
		t.Errorf("got %+v, want median 2, 1 to 3, and the values as they came", s)
	}
	if s := newSpread([]float64{4, 1}); s.Median != 2.5 {
		t.Errorf("got median %v of an even number, want 2.5", s.Median)
	}
	if s := newSpread(nil); s != nil || s.format(digits) != "–" {
		t.Errorf("got %+v of nothing, want nothing", s)
	}
	list := make([]time.Duration, 200)
	for i := range list {
		list[i] = time.Duration(i + 1)
	}
	for p, want := range map[float64]time.Duration{0: 1, 50: 100, 99: 198, 100: 200} {
		if got := percentile(list, p); got != want {
			t.Errorf("percentile %v of 1 to 200 is %d, want %d", p, got, want)
		}
	}
}

// Ratios are of rounds that followed each other, say how many times better ours is, and leave out what a side has not.
func TestReportCompares(t *testing.T) {
	t.Parallel()
	m := measure{name: "x", what: "X", figures: []figure{{"", perSecond}, {"p50", inSeconds}}}
	ours := &sideRuns{side: "procpool", answers: []*answer{{Values: values(10, 2), Checked: 5}, {Values: values(40, 2), Checked: 5}}}
	theirs := &sideRuns{side: "other", answers: []*answer{{Values: values(5, 4), Checked: 3, Note: "n"}, {Values: []*float64{nil, nil}}}}
	failed := &sideRuns{side: "failed", answers: make([]*answer, 2)}
	r := newMeasureReport(m, []*sideRuns{ours, theirs, failed})
	rate, p50 := r.Figures[0], r.Figures[1]
	if rate.Better != "more" || p50.Better != "less" {
		t.Errorf("got %s and %s, want more /s and less time", rate.Better, p50.Better)
	}
	if got := rate.Peers[0].Ratio; got.Median != 2 || len(got.Values) != 1 {
		t.Errorf("got %+v, want one ratio: twice as many", got)
	}
	if got := p50.Peers[0].Ratio; got.Median != 2 {
		t.Errorf("got %+v, want twice as fast", got)
	}
	if rate.Peers[1].Theirs != nil || rate.Peers[1].Ratio != nil {
		t.Errorf("got %+v of a side that failed, want nothing", rate.Peers[1])
	}
	if r.Checked["procpool"] != 10 || r.Checked["other"] != 3 {
		t.Errorf("got %v checked, want 10 and 3", r.Checked)
	}
	all := report{Mode: "embedded", Workers: 2, Runs: 2, Measures: []*measureReport{r}}
	var text, markdown strings.Builder
	if err := errors.Join(all.writeText(&text), all.writeMarkdown(&markdown)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"X: p50", "25.0 /s (10.0 /s – 40.0 /s)", "5.00 /s", "2.00×", ratioMeaning, "other: n"} {
		if !strings.Contains(text.String(), want) || !strings.Contains(markdown.String(), want) {
			t.Errorf("no %q in\n%s\nor in\n%s", want, &text, &markdown)
		}
	}
	pipes := -1
	for line := range strings.Lines(markdown.String()) {
		if n := strings.Count(line, "|"); strings.HasPrefix(line, "|") {
			if pipes >= 0 && n != pipes {
				t.Errorf("a row has %d bars, others %d: %s", n, pipes, line)
			}
			pipes = n
		}
	}
}
