// Package workerproc is both ends of the contract between the procpool daemon and a worker process.
//
// A program registers its functions with [Func] and calls [Main] first in main. Started by a daemon, Main serves tasks and never returns;
// started by a person, it returns at once. So one program can be both client and worker.
//
// A [Pipe] is a function that takes items ahead of their outcomes; package lines makes one of any program that answers lines.
//
// What a worker must know to be written in another language is in docs/worker-protocol.md. In short: it reads a frame from file descriptor
// 3, connects to the Unix socket that the frame names, presents the one-time token, and runs the tasks that come on
// the stream, in order, one at a time. Descriptor 3 stays open as a lifeline: when it ends, the daemon is gone, and the
// worker kills its process group.
//
// The other end, [Start], is the daemon's: a worker leads a process group of its own, which is killed before the worker is reaped; its output is read by
// line, however long; and it shares a progress record with the daemon, which tells after a crash which task was running and
// what had been computed before.
package workerproc
