package lines

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// endGrace is how long a program may take to end when its stdin has ended, when it has closed its stdout, and after SIGTERM.
	endGrace = time.Second
	// failure is the exit status of a worker whose program does not keep to the protocol.
	failure = 1
)

// program is a line program and what has to be known of it. It is a workerproc.Pipe: the session's runner owns all but what says otherwise.
type program struct {
	spec  Spec
	codec codec

	cmd    *exec.Cmd
	in     int           // descriptor of its stdin; -1: it has been closed
	out    int           // of its stdout
	wake   int           // readable when the process has ended
	exited chan struct{} // closed then; the state is in cmd
	leave  func()        // ends the worker after what has been begun
	ours   atomic.Bool   // its end is our wish

	answers  answers
	sending  []byte // lines for the pipe…
	written  int    // …and how much of them is in it
	sent     uint64 // bytes in the pipe, since the beginning
	underWay ring   // items that have been taken and have no outcome
	window   int    // how many of them there may be
	last     time.Time
	answered uint64    // by this process
	fed      time.Time // when the first item was sent
	advised  bool
	closed   bool // it has closed its stdout, or has ended and left nothing in it
	deaf     bool // it has closed its stdin
	broken   bool // it does not keep to the protocol
}

// sent is an item on its way.
type sent struct {
	from    uint64 // where its line begins, in bytes since the beginning
	refused error  // it has no line, and why
}

// waits tells whether an answer will come.
func (s *sent) waits() bool { return s.refused == nil }

// ring is items in the order in which they were sent: as many as there may be under way, and no more.
type ring struct {
	items         [windowItems]sent
	first, behind uint
}

func (r *ring) push(s sent) {
	r.items[r.behind%windowItems] = s
	r.behind++
}

func (r *ring) oldest() *sent { return &r.items[r.first%windowItems] }

func (r *ring) pop() { r.first++ }

func newProgram(s Spec) *program {
	return &program{spec: s, codec: newCodec(s), exited: make(chan struct{}), window: 1}
}

// Start starts the program.
func (p *program) Start(_ context.Context, leave func()) error {
	p.leave = leave
	p.answers.end = p.codec.end
	p.cmd = exec.Command(p.spec.Command[0], p.spec.Command[1:]...)
	p.cmd.Stderr = os.Stderr
	stdin, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer stdin.Close()
	out, stdout, err := os.Pipe()
	if err != nil {
		return err
	}
	defer stdout.Close()
	wake, ended, err := os.Pipe()
	if err != nil {
		return err
	}
	for _, end := range []struct {
		file *os.File
		fd   *int
	}{{in, &p.in}, {out, &p.out}, {wake, &p.wake}} {
		if *end.fd, err = polled(end.file); err != nil {
			return err
		}
	}
	p.cmd.Stdin, p.cmd.Stdout = stdin, stdout
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() { // ends with the program, at the latest when the daemon kills the group
		_ = p.cmd.Wait()
		close(p.exited)
		ended.Close()
		p.leave()
	}()
	return nil
}

// polled is our end of a pipe as a descriptor that does not block and that the runtime's poller does not know: it is polled here.
func polled(f *os.File) (int, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a pipe: %w", err)
	}
	return fd, unix.SetNonblock(fd, true)
}

// gone tells whether the process has ended.
func (p *program) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// goneWithin waits for that.
func (p *program) goneWithin(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.exited:
		return true
	case <-timer.C:
		return false
	}
}

// say writes a line to the worker's stderr.
func (p *program) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "procpool: "+format+"\n", args...)
}

// breaks says what the program does that it must not, and has the worker end. Nobody is to blame, as far as one can know.
func (p *program) breaks(format string, args ...any) {
	p.say("%s "+format, append([]any{p.spec.Command[0]}, args...)...)
	p.broken = true
	p.leave()
}

// kill ends the program; what it has left behind goes with the worker.
func (p *program) kill() {
	p.ours.Store(true)
	p.cmd.Process.Signal(syscall.SIGTERM)
	if !p.goneWithin(endGrace) {
		p.cmd.Process.Kill()
		<-p.exited
	}
}

// Close lets the program end, by the end of its stdin. One that has ended by itself takes the worker with it.
func (p *program) Close() {
	switch {
	case p.broken:
		os.Exit(failure)
	case p.ours.Load():
		return
	case p.gone():
		p.die()
	}
	p.ours.Store(true)
	p.closeStdin()
	surplus := p.drain(endGrace)
	if surplus > 0 {
		p.say("%s wrote %d bytes when its input had ended; they are nobody's answer", p.spec.Command[0], surplus)
	}
	if !p.gone() {
		p.kill()
	}
	if state := p.cmd.ProcessState; !state.Success() {
		p.say("%s ended with %v when its input had ended", p.spec.Command[0], state)
	}
}

func (p *program) closeStdin() {
	if p.in >= 0 {
		unix.Close(p.in)
		p.in = -1
	}
}

// drain throws away what the program writes, until it has ended or for so long, and says how much that was.
func (p *program) drain(d time.Duration) (n int) {
	deadline := time.Now().Add(d)
	trash := make([]byte, 64<<10)
	fds := []unix.PollFd{{Fd: int32(p.out), Events: unix.POLLIN}, {Fd: int32(p.wake), Events: unix.POLLIN}}
	for !p.gone() {
		left := time.Until(deadline)
		if left <= 0 {
			break
		}
		if _, err := unix.Poll(fds, millis(left)); err != nil && !errors.Is(err, unix.EINTR) {
			break
		}
		got, err := unix.Read(p.out, trash)
		n += max(got, 0)
		if got == 0 && err == nil {
			fds[0].Fd = -1 // the end
		}
		if fds[1].Revents != 0 {
			p.goneWithin(endGrace) // it is just being noted
		}
	}
	return n
}

// die ends the worker as its program has ended.
func (p *program) die() {
	<-p.exited
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled():
		dieOf(status.Signal())
	case ok && status.ExitStatus() > 0:
		os.Exit(status.ExitStatus())
	}
}

// millis is a timeout for poll: never shorter, and never endless.
func millis(d time.Duration) int {
	return int(min(max(d+time.Millisecond-1, 0)/time.Millisecond, 1<<30))
}
