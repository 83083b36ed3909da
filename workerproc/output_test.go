package workerproc

import (
	"fmt"
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
	if got := l.report(time.Time{})[0]; got != "panic: recovered by somebody" {
		t.Errorf("the report begins with %q", got)
	}
	began := time.Now()
	if got := l.report(began); len(got) != remembered || got[0] != "line 10" {
		t.Errorf("for a task that began later: got %q, want the last %d lines", got, remembered)
	}
	l.read(strings.NewReader("panic: so long\nend\n"), 2)
	if got := strings.Join(l.report(began), "|"); got != "panic: so long|end" {
		t.Errorf("got %q, want the crash", got)
	}
}
