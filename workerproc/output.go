package workerproc

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxLine is the longest line that is passed on whole, in bytes.
const maxLine = 64 << 10

// lines reads what a worker writes and remembers the end of it.
type lines struct {
	pid  int
	sink func(Line)

	mu    sync.Mutex
	last  []said // ring of the last lines
	first int
	crash []said    // the first lines of the last crash; nil: none has been seen
	when  time.Time // it was read
	since int       // lines since it began
	pages []page    // that have begun, the last ones
}

// page is a part of what a worker writes; see Process.Turn.
type page struct {
	number int
	from   [2]int64 // where it begins in stdout and stderr
}

// maxPages is how many pages back a line may be read.
const maxPages = 64

// said is a line, cut, and where it begins.
type said struct {
	text   string
	stream int
	at     int64
}

const (
	remembered = 20     // last lines that are kept
	crashLines = 40     // of the beginning of a crash: a Go crash prints its reason first and all its goroutines after it
	crashEnds  = 10_000 // lines after which the worker has survived what looked like a crash
)

func newLines(sink func(Line)) *lines { return &lines{sink: sink, pages: make([]page, 1, 2)} }

// lineReaders have room for a line.
var lineReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, maxLine+1) }}

// read reads a stream until its end. It never stops before, however long a line is.
func (l *lines) read(r io.Reader, stream int) {
	var first [128]byte // most workers never write anything, so room for a line is not made before they do
	n, err := r.Read(first[:])
	if n == 0 && err != nil {
		return
	}
	b := lineReaders.Get().(*bufio.Reader)
	b.Reset(io.MultiReader(bytes.NewReader(first[:n]), r))
	defer func() {
		b.Reset(nil)
		lineReaders.Put(b)
	}()
	at := int64(0)
	for {
		text, err := b.ReadSlice('\n')
		n := len(text)
		line := Line{Pid: l.pid, Stream: stream}
		switch {
		case err == nil:
			line.Text = append([]byte(nil), text[:len(text)-1]...)
		case errors.Is(err, bufio.ErrBufferFull):
			line.Text, line.Truncated = append([]byte(nil), text[:maxLine]...), true
			var more int
			more, err = skipLine(b)
			n += more
		case len(text) > 0:
			line.Text, line.Partial = append([]byte(nil), text...), true
		}
		if err == nil || line.Text != nil {
			l.add(line, at)
		}
		at += int64(n)
		if err != nil {
			return
		}
	}
}

func skipLine(b *bufio.Reader) (n int, err error) {
	for {
		text, err := b.ReadSlice('\n')
		n += len(text)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return n, err
		}
	}
}

// turn begins a page. from is where it does in stdout and stderr.
func (l *lines) turn(number int, from [2]int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pages) == maxPages {
		l.pages = append(l.pages[:0], l.pages[1:]...)
	}
	l.pages = append(l.pages, page{number, from})
}

// pageOf is the page on which a line begins; noPage for one that is too long ago.
func (l *lines) pageOf(s said) int {
	for _, p := range slices.Backward(l.pages) {
		if s.at >= p.from[s.stream-1] {
			return p.number
		}
	}
	return noPage
}

// add takes a line that begins at a place of its stream.
func (l *lines) add(line Line, at int64) {
	l.mu.Lock()
	text := said{validUTF8(string(line.Text[:min(len(line.Text), 1000)])), line.Stream, at}
	line.Page = l.pageOf(text)
	switch l.since++; {
	case crashStart().MatchString(text.text):
		l.crash, l.since = append(make([]said, 0, crashLines), text), 0
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
var crashStart = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(panic:|fatal error:|SIG[A-Z]+:|unexpected fault address|Traceback )|this process was started as a procpool worker`)
})

// report is the crash report of a worker whose task began at a time: up to 40 lines from the last one since then that begins a crash, else the last
// 20, but none of an earlier page. What was read before was written before, and survived.
func (l *lines) report(began time.Time) (report []string, number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number = l.pages[len(l.pages)-1].number
	lines := append(slices.Clone(l.last[l.first:]), l.last[:l.first]...)
	if l.crash != nil && !l.when.Before(began) && l.pageOf(l.crash[0]) == number {
		lines = l.crash
	}
	for _, s := range lines {
		if l.pageOf(s) == number {
			report = append(report, s.text)
		}
	}
	return report, number
}

// outPipe is one of the two streams of a worker, and how much of it has been read.
type outPipe struct {
	pipe *os.File

	mu   sync.Mutex
	read int64
}

// Read reads from the pipe as the pipe itself does. Between what it takes and what it counts nobody can look.
func (o *outPipe) Read(b []byte) (n int, err error) {
	raw, err := o.pipe.SyscallConn()
	if err != nil {
		return 0, err
	}
	waited := raw.Read(func(fd uintptr) bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		for {
			n, err = unix.Read(int(fd), b)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		o.read += int64(max(0, n))
		return !errors.Is(err, unix.EAGAIN)
	})
	switch {
	case waited != nil:
		return 0, waited
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	default:
		return n, nil
	}
}

// written is how much the worker has written.
func (o *outPipe) written() int64 {
	_, written := o.progress()
	return written
}

// progress is how much has been read of what the worker has written, and how much that is.
func (o *outPipe) progress() (read, written int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	if raw, err := o.pipe.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // else it is closed, and nothing is left in it
			n, _ = unix.IoctlGetInt(int(fd), fionread)
		})
	}
	return o.read, o.read + int64(n)
}
