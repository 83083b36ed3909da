// Package lines makes a worker of any program that answers lines: it reads an item per line from its stdin and writes one line to its stdout for each, the
// item's result. It needs no SDK and stays up from item to item.
//
//	while line := read a line { print f(line), and flush }
//
// The worker process is this package's adapter: a program of ours (procpool, procpoold, or one that calls [Main]) that has been executed once more. It speaks
// the worker protocol with the daemon, and its child is the line program. What becomes of the program becomes of the worker: it dies of the same signal or
// exits with the same status, so the daemon does what it does for every worker that dies. The program's stderr is the worker's.
//
// The pipe is a queue. The adapter keeps several lines in it, about a millisecond of work, so that the program need not wait for the next one. The oldest item
// without an answer is the task in hand: its timeout counts from when it became that, it is lost when the program dies, and those behind it run
// elsewhere.
//
// [Spec] is such a worker, for a pool's program; docs/line-workers.md is for those who write one.
package lines
