// Package guard is the guardian: a small process beside the daemon that ends the process group of every worker when the daemon is gone, however it went. A worker
// that runs code does so by itself, at the end of its lifeline. This is for those that cannot: stopped, hung in C code, or made without the SDK.
//
// It is the daemon's own program, executed once more, and lives in this package's init function. So it must be linked by every program that can have a
// daemon in it, which package workerproc sees to.
package guard

// What the daemon and its guardian agree upon. Their socket keeps messages apart (SOCK_SEQPACKET). The guardian says Ready; then the
// daemon sends messages of Size bytes: what to do at 0, at 4 a number for the worker, at 8 its process id, both little-endian. It says no more than that: when the
// socket has ended, or the daemon's process has, the guardian does what it is there for.
const (
	Mark      = "PROCPOOL_GUARDIAN" // in the environment: you are a guardian, and FD is the socket
	MarkValue = "3"
	FD        = 3
	Ready     = "PROCPOOL guardian 1"
	Size      = 12

	OpDaemon = 1 // a pidfd of the daemon comes along
	OpGuard  = 2 // a pidfd of a new worker comes along
	OpForget = 3 // the worker has been reaped
	OpCgroup = 4 // a descriptor comes along: "1", written to it, kills the workers with all their children (cgroup.kill)
)
