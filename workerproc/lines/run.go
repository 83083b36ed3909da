package lines

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/procpool/procpool/workerproc"
)

const (
	// windowTime is how much work may be under way in the pipe, windowItems how many items, and windowBytes how many bytes of them: no new ones are
	// put behind so much.
	windowTime  = time.Millisecond
	windowItems = 128
	windowBytes = 32 << 10
	// settling is how long a second line may take to come behind the first answer of a program, which is looked for once.
	settling = 10 * time.Millisecond
	// adviceAfter is how long the first answer may take to come before one is told why that might be.
	adviceAfter = 5 * time.Second
)

// Advice is the beginning of the line that the adapter writes when a program does not answer; Program is between its two halves.
const Advice = "procpool: no answer yet from "

const adviceRest = ": it must end each answer with a newline and flush it (python3 -u or print(..., flush=True), stdbuf -oL, perl $|=1, awk fflush())"

var errTwoLines = errors.New("the program wrote more than one line for an item")

// Run feeds the items of a chunk to the program, and takes the answers.
func (p *program) Run(f *workerproc.Feed) error {
	p.answers.limit = f.ResultLimit()
	p.last = time.Now()
	if p.gone() || p.broken || p.unusable() {
		return nil // nothing has been taken: it runs elsewhere
	}
	for {
		p.feed(f)
		if f.Waiting() == 0 {
			return nil
		}
		err := p.exchange(f.Limit())
		if err == nil {
			err = p.take(f)
		}
		if err != nil {
			p.kill()
			return err
		}
		if p.closed && f.Waiting() > 0 {
			p.end(f)
			return nil
		}
	}
}

// unusable tells whether the program has left its part between two items.
func (p *program) unusable() bool {
	p.write()
	p.read()
	switch rest := p.answers.rest(); {
	case p.gone():
		return true
	case len(rest) > 0:
		p.breaks("wrote what nobody had asked for: %s", sample(rest))
	case p.closed:
		if !p.goneWithin(endGrace) {
			p.breaks("has closed its stdout and runs on")
		}
	case p.deaf:
		p.breaks("has closed its stdin and runs on")
	case len(p.sending) > 0:
		p.breaks("has answered an item without reading it to its end")
	default:
		return false
	}
	return true
}

// feed puts as many items into the pipe as should be in it. It is filled up when half of it has been answered: a program need not be woken for each.
func (p *program) feed(f *workerproc.Feed) {
	room := 0
	if waiting := f.Waiting(); waiting <= p.window/2 && !p.deaf && !p.closed {
		room = p.window - waiting
	}
	if f.Waiting() == 0 && len(p.sending) > 0 {
		room = 0 // it has answered what it has not read; see unusable
	}
	if p.written > 0 {
		p.sending = append(p.sending[:0], p.sending[p.written:]...)
		p.written = 0
	}
	for n := min(f.Claim(room), room); n > 0 && len(p.sending) < windowBytes; n-- {
		item := sent{from: p.sent + uint64(len(p.sending))}
		p.sending, item.refused = p.codec.appendLine(p.sending, f.Take())
		p.underWay.push(item)
	}
	if p.fed.IsZero() {
		p.fed = time.Now()
	}
	p.write()
}

// write writes what the pipe takes.
func (p *program) write() {
	for p.written < len(p.sending) && !p.deaf {
		n, err := unix.Write(p.in, p.sending[p.written:])
		switch {
		case n > 0:
			p.written += n
			p.sent += uint64(n)
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return
		default:
			p.deaf = true
		}
	}
	p.sending, p.written = p.sending[:0], 0
}

// exchange waits until there is something to read, and writes meanwhile. It returns an error when the limit has passed.
func (p *program) exchange(limit time.Time) error {
	if !p.underWay.oldest().waits() {
		return nil
	}
	fds := []unix.PollFd{{Fd: int32(p.out), Events: unix.POLLIN}, {Fd: int32(p.wake), Events: unix.POLLIN}, {Fd: -1, Events: unix.POLLOUT}}
	for {
		fds[2].Fd = -1
		if p.written < len(p.sending) {
			fds[2].Fd = int32(p.in)
		}
		timeout := -1
		now := time.Now()
		if !limit.IsZero() {
			if !now.Before(limit) {
				return errLate
			}
			timeout = millis(limit.Sub(now))
		}
		if p.answered == 0 && !p.advised {
			if left := p.fed.Add(adviceAfter).Sub(now); left <= 0 {
				p.advised = true
				p.say("%s", Advice[len("procpool: "):]+p.spec.Command[0]+adviceRest)
			} else if timeout < 0 || millis(left) < timeout {
				timeout = millis(left)
			}
		}
		if _, err := unix.Poll(fds, timeout); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the program: %w", err)
		}
		if fds[2].Revents != 0 {
			p.write()
		}
		if fds[0].Revents != 0 || fds[1].Revents != 0 {
			p.read()
			return nil
		}
	}
}

// errLate stands for the timeout of the task in hand, which the session knows.
var errLate = errors.New("the task ran into its timeout")

// read reads what there is, and notes the end of it: that of the stream, or that there is no more although the process has ended. A process that it has left
// in the background may hold the stream open for ever.
func (p *program) read() {
	gone := p.gone()
	for !p.closed {
		room := p.answers.room()
		n, err := unix.Read(p.out, room)
		switch {
		case n > 0:
			p.answers.filled(n)
			if n < len(room) && !gone {
				return
			}
			if p.answers.partial() < 1<<20 {
				continue
			}
			return // it is looked through first
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			p.closed = gone
			return
		default:
			p.closed = true
		}
	}
}

// take gives the answers that have come to the items that wait for them.
func (p *program) take(f *workerproc.Feed) error {
	n := 0
	for f.Waiting() > 0 {
		if err := p.underWay.oldest().refused; err != nil {
			p.underWay.pop()
			f.Fail(err)
			continue
		}
		line, size, ok := p.answers.next()
		if !ok {
			break
		}
		if p.answered == 0 && f.Waiting() == 1 {
			line = bytes.Clone(line)
			p.settle()
		}
		if rest := p.answers.rest(); f.Waiting() == 1 && len(rest) > 0 {
			return fmt.Errorf("%w; after the answer came %s", errTwoLines, sample(rest))
		}
		p.underWay.pop()
		n++
		p.answered++
		if size > len(line) || size > p.answers.limit {
			f.Fail(fmt.Errorf("the answer has %d bytes; at most %d are allowed", size, p.answers.limit))
			continue
		}
		result, err := p.codec.appendResult(f.Room(), line)
		if err != nil {
			f.Fail(err)
			continue
		}
		f.Result(result)
	}
	p.adapt(n)
	return nil
}

// adapt sets the window by how long the last answers took. It grows step by step.
func (p *program) adapt(n int) {
	if n == 0 {
		return
	}
	now := time.Now()
	each := max(now.Sub(p.last)/time.Duration(n), 1)
	p.last = now
	p.window = int(min(max(windowTime/each, 1), time.Duration(2*p.window), windowItems))
}

// settle waits for a moment whether more comes behind the first answer.
func (p *program) settle() {
	fds := []unix.PollFd{{Fd: int32(p.out), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, millis(settling)); err == nil && n > 0 {
		p.read()
	}
	p.last = time.Now() // this has not been its doing
}

// end is the end of the program, or of its stdout, while items wait for answers that will not come. The oldest one is to blame, unless the program has not
// read a byte of it. It returns in that case only.
func (p *program) end(f *workerproc.Feed) {
	if !p.goneWithin(endGrace) {
		p.say("%s has closed its stdout with %d items unanswered, and runs on", p.spec.Command[0], f.Waiting())
		os.Exit(failure)
	}
	if n := p.answers.partial(); n > 0 {
		p.say("%s ended in the middle of an answer, after %d bytes of it", p.spec.Command[0], n)
	}
	if unread, err := unix.IoctlGetInt(p.in, fionread); err == nil && p.underWay.oldest().from >= p.sent-uint64(unread) && p.answers.partial() == 0 {
		f.Abandon()
		return
	}
	p.die()
	os.Exit(0)
}
