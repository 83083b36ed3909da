package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// keepDescriptors keeps what this process was started with, beside its standard streams, from those that it starts: not everybody who starts a
// daemon closes their own files first.
func keepDescriptors() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("look which descriptors there are: %w", err)
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}
