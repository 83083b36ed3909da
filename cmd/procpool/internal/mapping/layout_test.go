package mapping

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/procpool/procpool/cmd/procpool/internal/screen"
	"github.com/procpool/procpool/cmd/procpool/internal/text"
)

func newTestScreen() (s *screen.Screen, stdout, stderr *bytes.Buffer) {
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	return &screen.Screen{Stdout: stdout, Stderr: stderr}, stdout, stderr
}

// play gives a layout the pieces and ends of a script: "index stream piece", or "index end stdout stderr".
func play(t *testing.T, l layout, script ...[]string) {
	t.Helper()
	jobs := []*job{{Seq: 1, Items: []string{"zero"}}, {Seq: 2, Items: []string{"one"}}}
	for _, s := range script {
		index := int(s[0][0] - '0')
		var err error
		if s[1] == "end" {
			err = l.end(&ended{Index: index, Job: jobs[index], Outcome: "value", Attempt: 1, Result: commandResult{Stdout: text.Bytes(s[2]), Stderr: text.Bytes(s[3])}})
		} else {
			err = l.piece(index, 1, int(s[1][0]-'0'), jobs[index], []byte(s[2]))
		}
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
	}
}

func TestLayouts(t *testing.T) {
	t.Parallel()
	mixed := [][]string{{"0", "1", "a\nb"}, {"1", "1", "x\ny"}, {"0", "2", "oops\n"}, {"1", "end", "y\nz", ""}, {"0", "end", "b\n", "end"}}
	for _, c := range []struct {
		name           string
		layout         func(*screen.Screen) layout
		stdout, stderr string
	}{
		{"blocks", func(s *screen.Screen) layout { return &blocks{screen: s, pending: map[int]*spooled{}} }, "x\nyy\nza\nbb\n", "oops\nend"},
		{
			"blocks with tags", func(s *screen.Screen) layout { return &blocks{screen: s, tag: true, pending: map[int]*spooled{}} },
			"one\tx\none\tyy\none\tzzero\ta\nzero\tbb\n", "zero\toops\nzero\tend",
		},
		{"pieces", func(s *screen.Screen) layout { return &live{screen: s} }, "a\nbx\nyy\nzb\n", "oops\nend"},
		{
			"lines", func(s *screen.Screen) layout { return &live{screen: s, lines: true, pending: map[lineKey]*line{}} },
			"a\nx\nyy\nz\nbb\n", "oops\nend\n",
		},
		{
			"lines with tags", func(s *screen.Screen) layout {
				return &live{screen: s, lines: true, tag: true, pending: map[lineKey]*line{}}
			},
			"zero\ta\none\tx\none\tyy\none\tz\nzero\tbb\n", "zero\toops\nzero\tend\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, stdout, stderr := newTestScreen()
			play(t, c.layout(s), mixed...)
			if stdout.String() != c.stdout || stderr.String() != c.stderr {
				t.Errorf("got %q and %q, want %q and %q", stdout, stderr, c.stdout, c.stderr)
			}
		})
	}
}

func TestOutputOfAnEarlierAttemptIsVoid(t *testing.T) {
	t.Parallel()
	s, stdout, _ := newTestScreen()
	b := &blocks{screen: s, pending: map[int]*spooled{}}
	for attempt, piece := range []string{"first ", "second "} {
		if err := b.piece(0, attempt+1, 1, &job{}, []byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.end(&ended{Attempt: 2, Result: commandResult{Stdout: text.Bytes("end")}}); err != nil {
		t.Fatal(err)
	}
	if got, want := stdout.String(), "second end"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if held := b.budget.Load(); held != 0 || len(b.pending) != 0 {
		t.Errorf("%d bytes and %d items are kept after the end, want none", held, len(b.pending))
	}
}

func TestLineOfAnEarlierAttemptIsVoid(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLine+1)
	for _, c := range []struct {
		name, first, second, end string
		want                     string
	}{
		{"in a piece", "one\nConnecting... ", "ok\n", "", "one\nok\n"},
		{"at the end", "one\nConnecting... ", "", "ok", "one\nok\n"},
		{"though the last one is silent", "Connecting... ", "", "", ""},
		{"but for what has been written", long, "ok\n", "", long + "\nok\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, stdout, _ := newTestScreen()
			l := &live{screen: s, lines: true, pending: map[lineKey]*line{}}
			for i, piece := range []string{c.first, c.second} {
				if piece == "" {
					continue
				}
				if err := l.piece(0, i+1, 1, &job{}, []byte(piece)); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.end(&ended{Job: &job{}, Attempt: 2, Result: commandResult{Stdout: text.Bytes(c.end)}}); err != nil {
				t.Fatal(err)
			}
			if stdout.String() != c.want || len(l.pending) > 0 {
				t.Errorf("got %.100q and %d lines that wait, want %.100q and none", stdout, len(l.pending), c.want)
			}
		})
	}
}

func TestLongOutputIsSpooledToAFile(t *testing.T) {
	t.Parallel()
	s, stdout, _ := newTestScreen()
	b := &blocks{screen: s, pending: map[int]*spooled{}}
	piece := bytes.Repeat([]byte("0123456789abcde\n"), 4096)
	var want bytes.Buffer
	for range 3 * spoolMemory / len(piece) {
		want.Write(piece)
		if err := b.piece(0, 1, 1, &job{Items: []string{"zero"}}, piece); err != nil {
			t.Fatal(err)
		}
	}
	if b.pending[0].streams[0].file == nil || b.budget.Load() != 0 {
		t.Errorf("%d bytes are in memory, want all of them in a file", b.budget.Load())
	}
	want.WriteString("end")
	if err := b.end(&ended{Attempt: 1, Result: commandResult{Stdout: text.Bytes("end")}}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(stdout.Bytes(), want.Bytes()) {
		t.Errorf("got %d bytes, want %d", stdout.Len(), want.Len())
	}
}

func TestAnEndlessLineDoesNotFillMemory(t *testing.T) {
	t.Parallel()
	s, stdout, _ := newTestScreen()
	l := &live{screen: s, lines: true, tag: true, pending: map[lineKey]*line{}}
	piece := strings.Repeat("x", 64<<10)
	for range 4 * (maxLine/len(piece) + 1) { // so that nothing of it is left for the end
		if err := l.piece(0, 1, 1, &job{Items: []string{"zero"}}, []byte(piece)); err != nil {
			t.Fatal(err)
		}
		if n := len(l.pending[lineKey{0, 1}].text); n > maxLine {
			t.Fatalf("%d bytes of the line are held, want at most %d", n, maxLine)
		}
	}
	if n := strings.Count(stdout.String(), "zero\t"); n != 1 {
		t.Errorf("the line has %d tags, want 1", n)
	}
	if err := l.end(&ended{Job: &job{}, Attempt: 1}); err != nil || !strings.HasSuffix(stdout.String(), "x\n") {
		t.Errorf("%v; the line is not ended with its command", err)
	}
}

func TestProgressLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		width, done, total, failed int
		elapsed                    time.Duration
		want                       string
	}{
		{40, 0, 8, 0, time.Millisecond, "[---------------------------------] 0/8"},
		{40, 4, 8, 0, 2 * time.Second, "[#########----------] 4/8, 2/s, 2s left"},
		{60, 8, 8, 3, 2 * time.Second, "[######################################] 8/8, 3 failed, 4/s"},
		{40, 4, -1, 0, 2 * time.Second, "4, 2/s"},
		{10, 1234, 5678, 3, 2 * time.Second, "1234/5678"},
		{1, 1234, 5678, 3, 2 * time.Second, ""},
	} {
		got := progressLine(c.width, c.done, c.total, c.failed, c.elapsed)
		if got != c.want || len(got) >= c.width {
			t.Errorf("%+v: got %q (%d wide), want %q", c, got, len(got), c.want)
		}
	}
}

func TestStallNamesTheOldestItem(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_000_000, 0)
	p := newProgress(3, 2, start)
	for i, item := range []string{"a", "b\n", "c"} {
		p.begin(&job{Seq: i + 1, Items: []string{item}}, start)
	}
	p.end(0, true, start.Add(time.Second))
	if got := p.stalled(start.Add(10 * time.Second)); got != "" {
		t.Errorf("9 s after an end: got %q, want nothing", got)
	}
	if got, want := p.oldest(start.Add(3*time.Second)), "item 2 (b?) runs for 3s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p.runs(1, "4711")
	if got, want := p.stalled(start.Add(13*time.Second)), "waiting for item 2 (b?), pid 4711, for 12s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p.end(1, false, start.Add(14*time.Second))
	if got, want := p.oldest(start.Add(14*time.Second)), "item 3 (c) runs for 13s"; got != want { // it began when the first one ended
		t.Errorf("got %q, want %q", got, want)
	}
	p.end(2, true, start.Add(14*time.Second))
	if got := p.stalled(start.Add(time.Hour)); got != "" {
		t.Errorf("after the last end: got %q, want nothing", got)
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"a.txt": "a.txt", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$x": "'$x'", "{}": "'{}'"} {
		if got := quote(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}
