// Package server is the daemon as a library: New binds its sockets, Run serves them until its context ends.
//
// # Rooms
//
//   - server.go: New, Run, the registry of pools and calls, and the order of shutdown.
//   - pool.go: the goroutine that owns a pool. Everybody else posts events to it; it asks the decision core (internal/sched) what they mean and carries
//     out the answer. It never waits for a client, a worker or a process.
//   - worker.go, start.go: a worker process, from fork to reaping, and the effects that concern it.
//     kill.go notes why a worker is signalled, limits.go keeps its memory and its cgroup.
//   - worker_service.go, outbox.go: the Attach stream, which carries chunks to a worker and results back. Who comes in is looked at in porch.go, before
//     there is a token, and in identity.go.
//   - call.go, call_service.go: a Map, ApplyAsync or Apply: its window, its outcomes, and the RPC that it lives in.
//   - pool_service.go, describe.go, feed.go, output.go, logs.go: the other RPCs, answers for people, and what workers write and how they end,
//     for the opener of a pool and for whoever asks.
//   - tally.go, stats.go, watch.go: what is counted and told of a pool, for monitors and watchers.
//   - staff.go, configure.go: resize and restart, and the pools of the configuration.
//   - access.go, veil.go, tenant.go: in system mode, who may do what, see what, and hear what workers write.
//   - budget.go: what one user, and all together, may have in the daemon.
//   - guarantees.go, pulse.go: what can be promised on this machine, and whether the daemon is well.
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
