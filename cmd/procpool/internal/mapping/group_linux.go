package mapping

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// terminateGroup sends SIGTERM to everything that a command has started. A command runs in the process group of its worker, so that the
// group's end is its end too whatever happens to the worker; hence the worker picks the others out.
func terminateGroup(command int) {
	syscall.Kill(command, syscall.SIGTERM)
	signalGroup(syscall.SIGTERM, command)
}

// killGroup kills what a cancelled command has left behind.
func killGroup() { signalGroup(syscall.SIGKILL, 0) }

// signalGroup signals every other process of this worker's group, except one. A process that is born meanwhile can be missed: it ends with
// the pool. Quadratic in nothing, but it walks through /proc: for the unhappy path only.
func signalGroup(sig syscall.Signal, except int) {
	self := os.Getpid()
	if syscall.Getpgrp() != self {
		return // not a group of our own: leave the others alone
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == self || pid == except {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// PID (NAME) STATE PPID PGRP …; the name may contain anything, also parentheses.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) > 2 && string(fields[2]) == strconv.Itoa(self) {
			_ = syscall.Kill(pid, sig) // it may have ended by itself
		}
	}
}
