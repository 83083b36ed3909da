//go:build !linux

package main

import (
	"errors"
	"os/exec"
)

// runCaptured runs a command to its end; started is called when it runs. What it left behind in the background may hold its pipes open: then output
// ends commandGrace after the command.
func runCaptured(cmd *exec.Cmd, stdout, stderr *capture, started func()) error {
	cmd.Stdout, cmd.Stderr = captureWriter{stdout}, captureWriter{stderr}
	if err := cmd.Start(); err != nil {
		return err
	}
	started()
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
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
