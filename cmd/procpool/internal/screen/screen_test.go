package screen

import (
	"bytes"
	"io"
	"testing"
)

func TestBarStandsBelowWhatIsSaid(t *testing.T) {
	t.Parallel()
	stderr := &bytes.Buffer{}
	s := &Screen{Stdout: io.Discard, Stderr: stderr, apart: true}
	s.Show("half")
	s.Say("a word")
	s.Show("")
	if got, want := stderr.String(), "\r\x1b[Khalf\r\x1b[Kprocpool: a word\n\r\x1b[Khalf\r\x1b[K"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestBarStandsBelowOutput: stdout is the same terminal.
func TestBarStandsBelowOutput(t *testing.T) {
	t.Parallel()
	terminal := &bytes.Buffer{}
	s := &Screen{Stdout: terminal, Stderr: terminal}
	s.Show("half")
	_, _ = io.WriteString(s.Out(), "a line\n")
	_, _ = io.WriteString(s.Out(), "part of one")
	s.Show("more")
	s.Show("")
	_, _ = io.WriteString(s.Out(), "b\n")
	want := "\r\x1b[Khalf\r\x1b[Ka line\n\r\x1b[Khalf\r\x1b[Kpart of one\n\r\x1b[Kmore\r\x1b[Kb\n"
	if got := terminal.String(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
