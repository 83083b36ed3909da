// Package screen is the terminal, or whatever else stdout and stderr are: results go to one, what is said about them to the other, and a progress bar
// stands below it.
package screen

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Screen is where everything is written: results to stdout, what is said about them to stderr, and a progress bar below it, if there is one.
type Screen struct {
	Stdout, Stderr io.Writer
	Width          int  // columns of the terminal that stderr is; 0 if it is none
	WantsBar       bool // the terminal shows nothing else but what is said

	apart bool // stdout is no terminal, so that the bar is not in its way

	mu     sync.Mutex
	bar    string // what the terminal's last line shows now
	inLine bool   // output has left the cursor behind something else on that line
}

// New is the screen of this process.
func New() *Screen {
	s := &Screen{Stdout: os.Stdout, Stderr: os.Stderr, Width: TerminalWidth(os.Stderr), apart: TerminalWidth(os.Stdout) == 0}
	s.WantsBar = s.Width > 0 && s.apart
	return s
}

// TerminalWidth is the number of columns of a terminal, 80 if it does not say, and 0 for anything else.
func TerminalWidth(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if size.Col == 0 {
		return 80
	}
	return int(size.Col)
}

// Out is stdout as a writer that leaves the bar alone. Each Write is a block that nothing mixes with.
func (s *Screen) Out() io.Writer { return writer{s, s.Stdout} }

// Err is stderr in the same way.
func (s *Screen) Err() io.Writer { return writer{s, s.Stderr} }

type writer struct {
	s *Screen
	w io.Writer
}

func (w writer) Write(p []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.w == w.s.Stdout && w.s.apart {
		return w.w.Write(p)
	}
	bar := w.s.bar
	w.s.draw("")
	n, err := w.w.Write(p)
	w.s.inLine = n > 0 && p[n-1] != '\n'
	if !w.s.inLine { // else it comes with the next Show
		w.s.draw(bar)
	}
	return n, err
}

// Say writes a line about the work to stderr.
func (s *Screen) Say(format string, args ...any) {
	fmt.Fprintf(s.Err(), "procpool: "+format+"\n", args...)
}

// Show makes line the bar; an empty one takes it away.
func (s *Screen) Show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draw(line)
}

func (s *Screen) draw(line string) {
	if line == s.bar {
		return
	}
	if s.inLine { // which is not to be wiped out
		fmt.Fprint(s.Stderr, "\n")
		s.inLine = false
	}
	fmt.Fprint(s.Stderr, "\r\x1b[K"+line)
	s.bar = line
}

// Shorten keeps s to n runes, on one line.
func Shorten(s string, n int) string {
	r := []rune(s)
	for i, c := range r {
		if c < ' ' || c == 0x7f {
			r[i] = '?'
		}
	}
	if len(r) > n && n > 0 {
		r = append(r[:n-1], '…')
	}
	return string(r)
}
