package screen

import (
	"bytes"
	"io"
	"testing"
)

func TestBarStandsBelowWhatIsSaid(t *testing.T) {
	t.Parallel()
	stderr := &bytes.Buffer{}
	s := &Screen{Stdout: io.Discard, Stderr: stderr}
	s.Show("half")
	s.Say("a word")
	s.Show("")
	if got, want := stderr.String(), "\r\x1b[Khalf\r\x1b[Kprocpool: a word\n\r\x1b[Khalf\r\x1b[K"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
