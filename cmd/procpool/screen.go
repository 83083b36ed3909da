package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// screen is where everything is written: results to stdout, what is said about them to stderr, and a progress bar below it, if there is one.
type screen struct {
	stdout, stderr io.Writer
	width          int  // columns of the terminal that stderr is; 0 if it is none
	wantsBar       bool // the terminal shows nothing else but what is said

	mu  sync.Mutex
	bar string // what the terminal's last line shows now
}

func newScreen() *screen {
	s := &screen{stdout: os.Stdout, stderr: os.Stderr, width: terminalWidth(os.Stderr)}
	s.wantsBar = s.width > 0 && terminalWidth(os.Stdout) == 0
	return s
}

// terminalWidth is the number of columns of a terminal, 80 if it does not say, and 0 for anything else.
func terminalWidth(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if size.Col == 0 {
		return 80
	}
	return int(size.Col)
}

// out is stdout as a writer that leaves the bar alone. Each Write is a block that nothing mixes with.
func (s *screen) out() io.Writer { return screenWriter{s, s.stdout} }

// err is stderr in the same way.
func (s *screen) err() io.Writer { return screenWriter{s, s.stderr} }

type screenWriter struct {
	s *screen
	w io.Writer
}

func (w screenWriter) Write(p []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.s.bar == "" || w.w == w.s.stdout { // with a bar, stdout is no terminal
		return w.w.Write(p)
	}
	bar := w.s.bar
	w.s.draw("")
	n, err := w.w.Write(p)
	w.s.draw(bar)
	return n, err
}

// say writes a line about the work to stderr.
func (s *screen) say(format string, args ...any) {
	fmt.Fprintf(s.err(), "procpool: "+format+"\n", args...)
}

// show makes line the bar; an empty one takes it away.
func (s *screen) show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draw(line)
}

func (s *screen) draw(line string) {
	if line != s.bar {
		fmt.Fprint(s.stderr, "\r\x1b[K"+line)
		s.bar = line
	}
}

// progressLine is the bar for width columns: what is done of how many (-1: not known yet), how many failed, and how long it takes.
func progressLine(width, done, total, failed int, elapsed time.Duration) string {
	counts := fmt.Sprintf(" %d", done)
	if total >= 0 {
		counts = fmt.Sprintf(" %d/%d", done, total)
	}
	if failed > 0 {
		counts += fmt.Sprintf(", %d failed", failed)
	}
	if rate := float64(done) / elapsed.Seconds(); elapsed > time.Second && done > 0 {
		counts += fmt.Sprintf(", %.3g/s", rate)
		if total > done {
			left := time.Duration(float64(total-done) / rate * float64(time.Second))
			counts += fmt.Sprintf(", %v left", left.Round(time.Second))
		}
	}
	if room := min(width-len(counts)-3, 40); total > 0 && room >= 5 {
		full := room * done / total
		return "[" + strings.Repeat("#", full) + strings.Repeat("-", room-full) + "]" + counts
	}
	counts = strings.TrimPrefix(counts, " ")
	return counts[:min(len(counts), max(width-1, 0))]
}

// shorten keeps s to n runes, on one line.
func shorten(s string, n int) string {
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
