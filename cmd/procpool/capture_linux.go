package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// runCaptured runs a command to its end; started is called when it runs. One thread waits for both streams and the exit: goroutines that
// read, one per stream, cost a short command half as much again as its start.
//
// When the command has exited, what it left behind in the background may still hold the pipes open: the output ends when nothing has come for a
// while.
func runCaptured(cmd *exec.Cmd, stdout, stderr *capture, started func()) error {
	out, outEnd, err := pipe()
	if err != nil {
		return err
	}
	defer outEnd.Close()
	errs, errsEnd, err := pipe()
	if err != nil {
		unix.Close(out)
		return err
	}
	defer errsEnd.Close()
	cmd.Stdout, cmd.Stderr = outEnd, errsEnd
	if err := cmd.Start(); err != nil {
		unix.Close(out)
		unix.Close(errs)
		return err
	}
	outEnd.Close()
	errsEnd.Close()
	started()
	fds := [3]unix.PollFd{{Fd: int32(out), Events: unix.POLLIN}, {Fd: int32(errs), Events: unix.POLLIN}, {Fd: -1, Events: unix.POLLIN}}
	err = cmd.Process.WithHandle(func(pidfd uintptr) {
		fds[2].Fd = int32(pidfd)
		pump(&fds, [2]*capture{stdout, stderr})
	})
	if errors.Is(err, os.ErrNoHandle) { // before Linux 5.4: then only the ends of both streams tell
		pump(&fds, [2]*capture{stdout, stderr})
	}
	return cmd.Wait()
}

// pipe is a pipe whose reading end is not known to the runtime's poller: it is polled here.
func pipe() (r int, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, nil, fmt.Errorf("make a pipe: %w", err)
	}
	return fds[0], os.NewFile(uintptr(fds[1]), "|1"), nil
}

// pump moves output until both streams have ended, and closes them. The third descriptor is readable when the process has exited.
func pump(fds *[3]unix.PollFd, streams [2]*capture) {
	end := func(i int) {
		if fds[i].Fd >= 0 {
			unix.Close(int(fds[i].Fd)) // a command that goes on writing gets SIGPIPE
			fds[i].Fd = -1             // poll skips it
		}
	}
	defer end(0)
	defer end(1)
	timeout := -1
	for fds[0].Fd >= 0 || fds[1].Fd >= 0 {
		n, err := unix.Poll(fds[:], timeout)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || n == 0:
			return
		case fds[2].Revents != 0:
			fds[2].Fd, timeout = -1, int(commandGrace.Milliseconds())
		}
		for i, c := range streams {
			if fds[i].Fd >= 0 && fds[i].Revents != 0 && !c.readFrom(int(fds[i].Fd)) {
				end(i)
			}
		}
	}
}

// readFrom reads what is there. False: there will be no more, or nobody wants it.
func (c *capture) readFrom(fd int) bool {
	room, err := c.room()
	if err != nil {
		return false
	}
	n, err := unix.Read(fd, room)
	if errors.Is(err, unix.EINTR) {
		return true
	}
	return err == nil && n > 0 && c.filled(n) == nil
}
