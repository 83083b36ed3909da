package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// undumpable keeps the workers, which have the daemon's user, from its memory and descriptors: they cannot trace it, nor open its files in /proc. It leaves
// no core dump either.
func undumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep workers from the daemon's memory: %w", err)
	}
	return nil
}
