// Package cgroup keeps each worker in a cgroup (version 2) of its own, below one that was given to this process to divide. So the kernel knows which processes
// are a worker's, whatever they have done to get away; it ends them all at once, counts their memory and keeps them within limits.
//
// The part of the hierarchy that a daemon uses looks like this, and nothing outside it is touched:
//
//	DIR/                      delegated to the daemon, or named by whoever started it
//	DIR/supervisor/           the daemon and its guardian, if the daemon was in DIR itself
//	DIR/procpool-NUMBER/      the workers of one daemon; locked (flock) while it lives
//	DIR/procpool-NUMBER/NAME/ a worker with all its children
//
// A cgroup with processes in it cannot hand controllers on to those below. That is why the daemon moves to a leaf.
package cgroup

// Auto is the place that Open finds by itself, in a cgroup that has been delegated.
const Auto = "auto"

// Controllers that are used, if they are there.
const (
	Memory = "memory"
	Pids   = "pids"
)

// Limits are those of a worker with all its children. 0: none.
type Limits struct {
	Memory    uint64 // bytes; needs the controller Memory
	Processes uint32 // and threads; needs the controller Pids
}

// Account is what the kernel has counted in a leaf. What it does not count is 0.
type Account struct {
	Peak     int64 // most bytes of memory at a time
	OOMKills int   // processes that the kernel has killed for memory
	AtLimit  int   // times that Limits.Memory was reached, and nothing could be taken back
	Refused  int   // processes and threads that Limits.Processes did not allow
}
