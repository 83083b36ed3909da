package workerproc

import (
	"fmt"
	"strings"
	"testing"
)

func TestACrashBeforeTheTaskIsNotItsCrash(t *testing.T) {
	l := newLines(nil)
	var early strings.Builder
	early.WriteString("panic: recovered by somebody\n")
	for i := range 30 {
		fmt.Fprintf(&early, "line %d\n", i)
	}
	l.read(strings.NewReader(early.String()), 2)
	if got := l.report()[0]; got != "panic: recovered by somebody" {
		t.Errorf("the report begins with %q", got)
	}
	l.begin()
	if got := l.report(); len(got) != remembered || got[0] != "line 10" {
		t.Errorf("after new work: got %q, want the last %d lines", got, remembered)
	}
	l.read(strings.NewReader("panic: so long\nend\n"), 2)
	if got := strings.Join(l.report(), "|"); got != "panic: so long|end" {
		t.Errorf("got %q, want the crash", got)
	}
}
