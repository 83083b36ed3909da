// Package server is the daemon as a library: New binds its sockets, Run serves them until its context ends.
//
// # Rooms
//
//   - server.go: New, Run, the registry of pools and calls, and the order of shutdown.
//   - pool.go: the goroutine that owns a pool. Everybody else posts events to it; it asks the decision core (internal/sched) what they mean and carries
//     out the answer. It never waits for a client, a worker or a process.
//   - worker.go, start.go: a worker process, from fork to reaping, and the effects that concern it.
//   - worker_service.go, outbox.go: the Attach stream, which lets a worker in and carries chunks to it and results back.
//   - call.go, call_service.go: a Map, ApplyAsync or Apply: its window, its outcomes, and the RPC that it lives in.
//   - pool_service.go, describe.go, feed.go, output.go, logs.go: the other RPCs, answers for people, and what workers write and how they end,
//     for the opener of a pool and for whoever asks.
//   - tally.go, stats.go, watch.go: what is counted and told of a pool, for monitors and watchers.
//   - json.go: the one place where payloads are looked into, for people who send JSON.
//   - socket.go, peer.go: Unix sockets, who owns them, and who is at the other end.
//   - errors.go: the one table from reasons to gRPC codes.
//
// # Goroutines
//
// Each pool has one owner (pool.run), each worker process one life (worker.live) and one sender (worker.send), each call one receiver
// (call.receive). RPC handlers belong to gRPC. docs/architecture.md has who waits for whom.
//
// # Shutdown
//
// Refuse new calls, close every pool and let the accepted calls end, terminate what is left after the drain timeout, end the streams, remove
// the sockets. Each step has an end of its own.
package server
