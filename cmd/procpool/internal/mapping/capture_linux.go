package mapping

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// briefly is how long a program is waited for by a thread that does nothing else, without the runtime's knowing that it waits: to hand its other
// work to another thread and to take it back costs a short command half as much again as its start. What the program writes stays in the pipes meanwhile.
const briefly = 3 * time.Millisecond

var processEnv = sync.OnceValue(os.Environ) // nobody changes it

// runCaptured runs a program to its end, and says how it ended. lasts is called if it is not soon over. When ctx ends, the program and what it has started
// get SIGTERM, and after a while it gets SIGKILL.
//
// When the program has exited, what it left behind in the background may still hold the pipes open, and write: the output ends commandGrace
// after the program, with all that the program itself has written.
func runCaptured(ctx context.Context, p program, stdout, stderr *capture, lasts func(pid int)) (r ran, err error) {
	if err := ctx.Err(); err != nil {
		return r, err
	}
	o := pipes{out: -1, errs: -1, pidfd: -1}
	defer o.close()
	ends, err := o.open()
	if err != nil {
		return r, err
	}
	pid, err := syscall.ForkExec(p.path, p.argv, &syscall.ProcAttr{
		Env:   processEnv(),
		Files: []uintptr{p.stdin.Fd(), uintptr(ends[0]), uintptr(ends[1])},
		Sys:   &syscall.SysProcAttr{PidFD: &o.pidfd},
	})
	unix.Close(ends[0])
	unix.Close(ends[1])
	if err != nil {
		return r, &fs.PathError{Op: "fork/exec", Path: p.path, Err: err}
	}
	r.pid = pid
	if o.exits(briefly) {
		o.pump(stdout, stderr)
	} else {
		lasts(pid)
		exited := endWith(ctx, pid)
		o.pump(stdout, stderr)
		r.told = exited()
	}
	for {
		_, err := syscall.Wait4(pid, &r.status, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			return r, err
		}
	}
}

// endWith ends a program when ctx ends. The returned function waits until the program has exited, but leaves its number to it; and says whether it was told
// to end before.
func endWith(ctx context.Context, pid int) (exited func() (told bool)) {
	var ending sync.WaitGroup
	told := false
	over := make(chan struct{})
	ending.Go(func() {
		select {
		case <-over:
			return
		case <-ctx.Done():
		}
		told = !hasExited(pid, unix.WNOHANG)
		terminateGroup(pid)
		select {
		case <-over:
		case <-time.After(commandGrace):
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return func() bool {
		hasExited(pid, 0)
		close(over)
		ending.Wait()
		return told
	}
}

// hasExited waits until a program has exited, or with WNOHANG looks whether it has. Its number stays its own.
func hasExited(pid, options int) bool {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT|options, nil)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && info.Signo != 0 // with WNOHANG it stays 0 while the program runs
		}
	}
}

// pipes are the reading ends of a program's output, and its pidfd, which is readable when it has exited (-1 before Linux 5.4: then only the ends of
// both pipes tell). The runtime's poller does not know them: they are polled here, by one thread.
type pipes struct{ out, errs, pidfd int }

// open makes both pipes and returns the writing ends.
func (p *pipes) open() (ends [2]int, err error) {
	for i, r := range []*int{&p.out, &p.errs} {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			if i > 0 {
				unix.Close(ends[0])
			}
			return ends, fmt.Errorf("make a pipe: %w", err)
		}
		*r, ends[i] = fds[0], fds[1]
	}
	return ends, nil
}

func (p *pipes) close() {
	for _, fd := range []int{p.out, p.errs, p.pidfd} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// exits waits for the program's exit, for at most d. With one CPU other goroutines need the thread, and it does not wait at all.
func (p *pipes) exits(d time.Duration) bool {
	if p.pidfd < 0 || runtime.GOMAXPROCS(0) == 1 {
		return false
	}
	fds := [1]unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	left := unix.NsecToTimespec(d.Nanoseconds()) // the kernel counts it down
	for {
		n, _, err := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), 1, uintptr(unsafe.Pointer(&left)), 0, 0, 0)
		if err != unix.EINTR { // the runtime's way to say that it needs the thread
			return n == 1 && err == 0
		}
	}
}

// pump moves output until both streams have ended, and the program has exited if that can be seen.
func (p *pipes) pump(stdout, stderr *capture) {
	fds := [3]unix.PollFd{{Fd: int32(p.out), Events: unix.POLLIN}, {Fd: int32(p.errs), Events: unix.POLLIN}, {Fd: int32(p.pidfd), Events: unix.POLLIN}}
	readers := [2]*int{&p.out, &p.errs}
	var deadline time.Time // once the program has exited
	var last [2]int        // after that, bytes of each pipe that are still to be read: the program itself may have written them
	left := func() int {
		if deadline.IsZero() {
			return -1
		}
		return max(0, int(time.Until(deadline).Milliseconds()))
	}
	for fds[0].Fd >= 0 || fds[1].Fd >= 0 || fds[2].Fd >= 0 { // poll skips what is negative
		n, err := unix.Poll(fds[:], left())
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || n == 0:
			return
		case fds[2].Revents != 0:
			fds[2].Fd, deadline = -1, time.Now().Add(commandGrace)
		}
		late := left() == 0
		for i, c := range []*capture{stdout, stderr} {
			if fds[i].Fd < 0 || fds[i].Revents == 0 {
				continue
			}
			if late && last[i] == 0 {
				last[i] = unread(*readers[i])
			}
			n, more := c.readFrom(*readers[i])
			if late {
				last[i] -= n
			}
			if !more || late && last[i] <= 0 {
				unix.Close(*readers[i]) // a program that goes on writing gets SIGPIPE
				*readers[i], fds[i].Fd = -1, -1
			}
		}
	}
}

// unread is how many bytes are in a pipe.
func unread(fd int) int {
	n, err := unix.IoctlGetUint32(fd, unix.TIOCINQ)
	if err != nil {
		return 0 // the next read says what is wrong
	}
	return int(n)
}

// readFrom reads what is there. No more: there will be none, or nobody wants it.
func (c *capture) readFrom(fd int) (n int, more bool) {
	room, err := c.room()
	if err != nil {
		return 0, false
	}
	n, err = unix.Read(fd, room)
	if errors.Is(err, unix.EINTR) {
		return 0, true
	}
	return n, err == nil && n > 0 && c.filled(n) == nil
}
