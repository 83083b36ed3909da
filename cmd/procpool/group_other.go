//go:build !linux

package main

import (
	"os"
	"syscall"
)

// terminateGroup sends SIGTERM to a command. What the command has started itself is killed with the worker's process group.
func terminateGroup(command *os.Process) error { return command.Signal(syscall.SIGTERM) }

func killGroup() {}
