// Package sched decides what a pool does: which worker gets which tasks, when processes are started, stopped and killed, and
// what the outcome of a task is. It decides only. There is no goroutine, clock, process, socket or logger here: what happens comes in as a
// method call with the time at which it happened, and what must be done comes out as a list of effects.
//
//	pool := sched.New(cfg)
//	for {
//		// Wait for news, or until pool.NextDeadline.
//		pool.Results(now, worker, report) // any number of events…
//		for _, effect := range pool.Settle(now) { // …then one Settle
//			perform(effect)
//		}
//	}
//
// So every rule can be told as a story and tested as one: the files in testdata are the best place to see what a pool does.
// The rest of the tests check what must hold whatever happens (check_test.go), and how well it is done (sim_test.go).
//
// # Tasks
//
// A client opens a call and adds tasks, many at a time. They wait in the queue of their call until it is the turn of the call (fair.go)
// and a worker has room; then some of them become a chunk (dispatch.go). The worker reports tasks in the order in which they are in
// the chunk (report.go), so that a count says what is done. From there a task is delivered, or goes back to the front of its queue: for another
// attempt, or because its worker gave it back or died before it had begun (exit.go). Each task is in one place only, so it has
// one outcome.
//
// # Workers
//
// A worker is starting, booting (it has said Hello), live, and then leaving (asked to stop), signalled or killed; it never goes back. A live
// worker runs the first task of the first chunk that it holds, or is a spare, which runs none. How many there should be of each, and who is
// replaced though nothing is wrong with it, is in staff.go; the replacement of all of them is in restart.go. The process of a slot is replaced
// when it has exited (spawn.go).
//
// # Cost
//
// All accounts are kept per chunk, none per task. Nothing that happens per chunk looks at all calls or all workers; the few
// things that do (sweep, takeBack, dismiss, and changes of the staff) happen so seldom that they do not count.
package sched
