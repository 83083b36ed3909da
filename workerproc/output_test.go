package workerproc

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestACrashBeforeTheTaskIsNotItsCrash(t *testing.T) {
	l := newLines(nil)
	var early strings.Builder
	early.WriteString("panic: recovered by somebody\n")
	for i := range 30 {
		fmt.Fprintf(&early, "line %d\n", i)
	}
	l.read(strings.NewReader(early.String()), 2)
	if got, _ := l.report(time.Time{}); got[0] != "panic: recovered by somebody" {
		t.Errorf("the report begins with %q", got)
	}
	began := time.Now()
	if got, _ := l.report(began); len(got) != remembered || got[0] != "line 10" {
		t.Errorf("for a task that began later: got %q, want the last %d lines", got, remembered)
	}
	l.read(strings.NewReader("panic: so long\nend\n"), 2)
	if got, _ := l.report(began); strings.Join(got, "|") != "panic: so long|end" {
		t.Errorf("got %q, want the crash", got)
	}
}

func TestAPageBeginsWithWhatIsWrittenAfterIt(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []Line
	l := newLines(func(line Line) { got = append(got, line) })
	out := &outPipe{pipe: r}
	p := &Process{lines: l, outputs: []*outPipe{out, out}}
	write := func(text string) {
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	// All of it lies in the pipe before the first byte is read: it is not the time of reading that counts.
	write("panic: first\n")
	p.Turn(1)
	write("second\nbegun ")
	p.Turn(2)
	write("there, ended here\nthird\n")
	w.Close()
	l.read(out, 1)
	var pages []string
	for _, line := range got {
		pages = append(pages, fmt.Sprintf("%d %s", line.Page, line.Text))
	}
	if got, want := strings.Join(pages, "|"), "0 panic: first|1 second|1 begun there, ended here|2 third"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if report, page := l.report(time.Time{}); strings.Join(report, "|") != "third" || page != 2 {
		t.Errorf("the report of page %d is %q, want that of page 2 and no line of another", page, report)
	}
}
