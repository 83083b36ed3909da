package workerproc

import (
	"bufio"
	"errors"
	"io"
	"regexp"
	"slices"
	"sync"
	"time"
)

// maxLine is the longest line that is passed on whole, in bytes.
const maxLine = 64 << 10

// lines reads what a worker writes and remembers the end of it.
type lines struct {
	pid  int
	sink func(Line)

	mu    sync.Mutex
	last  []string // ring of the last lines
	first int
	crash []string  // the first lines of the last crash; nil: none has been seen
	when  time.Time // it was read
	since int       // lines since it began
}

const (
	remembered = 20     // last lines that are kept
	crashLines = 40     // of the beginning of a crash: a Go crash prints its reason first and all its goroutines after it
	crashEnds  = 10_000 // lines after which the worker has survived what looked like a crash
)

func newLines(sink func(Line)) *lines { return &lines{sink: sink} }

// read reads a stream until its end. It never stops before, however long a line is.
func (l *lines) read(r io.Reader, stream int) {
	b := bufio.NewReaderSize(r, maxLine+1)
	for {
		text, err := b.ReadSlice('\n')
		line := Line{Pid: l.pid, Stream: stream}
		switch {
		case err == nil:
			line.Text = append([]byte(nil), text[:len(text)-1]...)
		case errors.Is(err, bufio.ErrBufferFull):
			line.Text, line.Truncated = append([]byte(nil), text[:maxLine]...), true
			err = skipLine(b)
		case len(text) > 0:
			line.Text, line.Partial = append([]byte(nil), text...), true
		}
		if err == nil || line.Text != nil {
			l.add(line)
		}
		if err != nil {
			return
		}
	}
}

func skipLine(b *bufio.Reader) error {
	for {
		if _, err := b.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

func (l *lines) add(line Line) {
	l.mu.Lock()
	text := validUTF8(string(line.Text[:min(len(line.Text), 1000)]))
	switch l.since++; {
	case crashStart.MatchString(text):
		l.crash, l.since = append(make([]string, 0, crashLines), text), 0
		l.when = time.Now()
	case l.since > crashEnds:
		l.crash = nil
	case l.crash != nil && len(l.crash) < crashLines:
		l.crash = append(l.crash, text)
	}
	if len(l.last) < remembered {
		l.last = append(l.last, text)
	} else {
		l.last[l.first] = text
		l.first = (l.first + 1) % remembered
	}
	l.mu.Unlock()
	if l.sink != nil {
		l.sink(line)
	}
}

// crashStart finds the line with which a crash begins; or the sentence about a forgotten Main, wherever the program has put it.
var crashStart = regexp.MustCompile(`^(panic:|fatal error:|SIG[A-Z]+:|unexpected fault address|Traceback )|this process was started as a procpool worker`)

// report is the crash report of a worker whose task began at a time: up to 40 lines from the last one since then that begins a crash, else the last
// 20. What was read before was written before, and survived.
func (l *lines) report(began time.Time) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.crash != nil && !l.when.Before(began) {
		return slices.Clone(l.crash)
	}
	return append(slices.Clone(l.last[l.first:]), l.last[:l.first]...)
}
