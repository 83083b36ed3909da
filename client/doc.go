// Package client is the Go SDK of procpool: Map, Apply and their relatives on a pool of worker processes.
//
// A [Client] is a connection to a daemon; a [Pool] is a pool of workers there. The verbs that run work are functions, because Go
// methods have no type parameters:
//
//	lengths, err := client.Map(ctx, pool, countChars, files)          // all of them, in order
//	result := client.MapAsync(ctx, pool, countChars, files)           // the same, later
//	for out, err := range client.IMap(ctx, pool, countChars, seq) {}  // lazy input, ordered outcomes
//	n, err := client.Apply(ctx, pool, countChars, "README.md")        // one task
//	result := client.ApplyAsync(ctx, pool, countChars, "README.md")   // one of many
//
// Every task has exactly one outcome. A task that fails, times out or loses its worker is a [*TaskError] in its own place and
// disturbs no other task. A call that is refused or breaks off is an error of the call.
//
// # Contexts
//
// The context given to Map, IMap or Apply and their relatives is the life of the work: its deadline is the call's time limit, and
// cancelling it ends the work and returns at once. The context given to [Result.Get], [Result.Wait] and [Pool.Join] bounds only the
// waiting.
//
// # Memory
//
// Input that is not a slice is drawn lazily: IMap draws an item only when fewer than 4,096 outcomes (see [Window]) stand between it and
// the loop that takes them. So an endless input and a slow loop need constant memory.
//
// # Which daemon
//
// [Dial] connects to a daemon that runs already. To have workers of one's own without a daemon, use package client/local.
package client
