package mapping

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/procpool/procpool/cmd/procpool/internal/screen"
	"github.com/procpool/procpool/cmd/procpool/internal/text"
)

// ended is how an item ended, as it is shown.
type ended struct {
	Index   int // in the order in which commands began
	Job     *job
	Outcome string // "value", "task_error", "timeout", "cancelled", "worker_lost" or "rejected"
	Err     error
	Result  commandResult
	Attempt int
	Start   time.Time // of the last attempt
}

// layout is a way to write what commands write. piece comes on one goroutine, end on another; the pieces of an item come before its end.
type layout interface {
	// piece is output of a command that runs. It may keep data.
	piece(index, attempt, stream int, j *job, data []byte) error
	// end is the end of an item, with the rest of its output.
	end(e *ended) error
}

// blocks writes the output of a command as one block when it has ended.
type blocks struct {
	screen *screen.Screen
	tag    bool

	budget  atomic.Int64
	mu      sync.Mutex
	pending map[int]*spooled
}

// spooled is the output of a command so far.
type spooled struct {
	attempt int
	streams [2]spool
}

func (b *blocks) piece(index, attempt, stream int, _ *job, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pending[index]
	if p != nil && p.attempt != attempt { // what an earlier attempt wrote is void
		p.close()
		p = nil
	}
	if p == nil {
		p = &spooled{attempt: attempt, streams: [2]spool{{budget: &b.budget}, {budget: &b.budget}}}
		b.pending[index] = p
	}
	_, err := p.streams[stream-1].Write(data)
	return err
}

// take is the output that has been spooled for an item; nil for none.
func (b *blocks) take(index, attempt int) *spooled {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pending[index]
	delete(b.pending, index)
	if p != nil && p.attempt != attempt {
		p.close()
		return nil
	}
	return p
}

func (p *spooled) close() {
	for i := range p.streams {
		p.streams[i].Close()
	}
}

func (b *blocks) end(e *ended) error {
	p := b.take(e.Index, e.Attempt)
	if p != nil {
		defer p.close()
	}
	for i, tail := range []text.Bytes{e.Result.Stdout, e.Result.Stderr} {
		w := b.screen.Out()
		if i == 1 {
			w = b.screen.Err()
		}
		if b.tag {
			w = &tagger{w: w, tag: tagOf(e.Job), atStart: true}
		}
		if p != nil {
			if _, err := p.streams[i].WriteTo(w); err != nil {
				return err
			}
		}
		if len(tail) > 0 {
			if _, err := w.Write(tail); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxLine is where a line that has not ended is written all the same.
const maxLine = 1 << 20

// live writes output as it comes: by line, or by whatever piece the command wrote.
type live struct {
	screen *screen.Screen
	tag    bool
	lines  bool

	mu      sync.Mutex
	pending map[lineKey]*line
}

type lineKey struct{ index, stream int }

// line is one that has not ended. Its tag is written with it.
type line struct {
	attempt int
	text    []byte
	begun   bool // an earlier part of it has been written
}

func (l *live) piece(index, attempt, stream int, j *job, data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.lines {
		_, err := l.to(stream).Write(data)
		return err
	}
	key := lineKey{index, stream}
	ln := l.pending[key]
	if ln != nil && ln.attempt != attempt {
		ln.text = nil // what an earlier attempt wrote is void, as far as it has not been written
		if err := l.endLine(stream, j, ln); err != nil {
			return err
		}
		ln = nil
	}
	if ln == nil {
		ln = &line{attempt: attempt}
		l.pending[key] = ln
	}
	ln.text = append(ln.text, data...)
	whole := bytes.LastIndexByte(ln.text, '\n') + 1
	if whole == 0 && len(ln.text) > maxLine {
		whole = len(ln.text)
	}
	if whole == 0 {
		return nil
	}
	err := l.write(stream, j, ln, ln.text[:whole])
	ln.begun = ln.text[whole-1] != '\n'
	ln.text = append(ln.text[:0], ln.text[whole:]...)
	return err
}

func (l *live) end(e *ended) error {
	for i, tail := range []text.Bytes{e.Result.Stdout, e.Result.Stderr} {
		if len(tail) > 0 {
			if err := l.piece(e.Index, e.Attempt, i+1, e.Job, tail); err != nil {
				return err
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for stream := 1; stream <= 2; stream++ {
		key := lineKey{e.Index, stream}
		ln := l.pending[key]
		delete(l.pending, key)
		if ln == nil {
			continue
		}
		if ln.attempt != e.Attempt {
			ln.text = nil
		}
		if err := l.endLine(stream, e.Job, ln); err != nil {
			return err
		}
	}
	return nil
}

// endLine ends a line that the command did not end: what others write must not continue it.
func (l *live) endLine(stream int, j *job, ln *line) error {
	if len(ln.text) == 0 && !ln.begun {
		return nil
	}
	return l.write(stream, j, ln, append(ln.text, '\n'))
}

func (l *live) to(stream int) io.Writer {
	if stream == 2 {
		return l.screen.Err()
	}
	return l.screen.Out()
}

func (l *live) write(stream int, j *job, ln *line, b []byte) error {
	w := l.to(stream)
	if l.tag {
		w = &tagger{w: w, tag: tagOf(j), atStart: !ln.begun}
	}
	_, err := w.Write(b)
	return err
}

// tagger puts the tag in front of every line, in one Write for each of its own.
type tagger struct {
	w       io.Writer
	tag     []byte
	atStart bool
}

func tagOf(j *job) []byte { return append([]byte(j.name()), '\t') }

func (t *tagger) Write(p []byte) (int, error) {
	var out []byte
	for line := range bytes.Lines(p) {
		if t.atStart {
			out = append(out, t.tag...)
		}
		out = append(out, line...)
		t.atStart = line[len(line)-1] == '\n'
	}
	if _, err := t.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// objects writes one JSON object per item. The whole output of the item is in memory meanwhile.
type objects struct{ blocks }

// object is what it writes for a command.
type object struct {
	Index    int        `json:"index"`
	Item     text.Bytes `json:"item"`
	Outcome  string     `json:"outcome"`
	ExitCode int        `json:"exit_code"`
	Signal   string     `json:"signal"`
	Stdout   text.Bytes `json:"stdout"`
	Stderr   text.Bytes `json:"stderr"`
	Seconds  float64    `json:"seconds"`
	Worker   string     `json:"worker"`
	Attempt  int        `json:"attempt"`
	Error    string     `json:"error,omitempty"`
}

func (o *objects) end(e *ended) error {
	r := &e.Result
	obj := object{
		Index: e.Job.Seq - 1, Item: text.Bytes(e.Job.name()), Outcome: e.Outcome, ExitCode: r.ExitCode, Signal: r.Signal, Seconds: r.Seconds,
		Worker: r.Worker, Attempt: e.Attempt, Stdout: r.Stdout, Stderr: r.Stderr,
	}
	if e.Err != nil {
		obj.Error = reasonOf(e.Err)
	}
	if p := o.take(e.Index, e.Attempt); p != nil {
		defer p.close()
		for i, dst := range []*text.Bytes{&obj.Stdout, &obj.Stderr} {
			var whole bytes.Buffer
			if _, err := p.streams[i].WriteTo(&whole); err != nil {
				return err
			}
			whole.Write(*dst)
			*dst = whole.Bytes()
		}
	}
	return text.WriteJSONLine(o.screen.Out(), obj)
}
