//go:build !linux

package mapping

import (
	"context"
	"os/exec"
	"syscall"
)

// runCaptured runs a program to its end, and says how it ended. lasts is called as soon as it runs. When ctx ends, the program gets SIGTERM, and
// SIGKILL after a while. What it left behind in the background may hold its pipes open: then output ends commandGrace after the program.
func runCaptured(ctx context.Context, p program, stdout, stderr *capture, lasts func(pid int)) (r ran, err error) {
	cmd := exec.CommandContext(ctx, p.path)
	cmd.Args = p.argv
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.stdin, captureWriter{stdout}, captureWriter{stderr}
	told := false // Wait returns after it has been set
	cmd.Cancel = func() error {
		told = true
		return cmd.Process.Signal(syscall.SIGTERM)
	}
	cmd.WaitDelay = commandGrace // then SIGKILL
	if err := cmd.Start(); err != nil {
		return r, err
	}
	r.pid = cmd.Process.Pid
	lasts(r.pid)
	err = cmd.Wait()
	if r.told = told; cmd.ProcessState == nil {
		return r, err
	}
	r.status, _ = cmd.ProcessState.Sys().(syscall.WaitStatus)
	return r, nil
}

type captureWriter struct{ c *capture }

func (w captureWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		room, err := w.c.room()
		if err != nil {
			return n, err
		}
		m := copy(room, p[n:])
		if err := w.c.filled(m); err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}
