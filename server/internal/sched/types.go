package sched

import "time"

// Identities. None is used twice in a pool, and zero is none.
type (
	// WorkerID is a worker. The core numbers them, in Spawn.
	WorkerID uint64
	// CallID is a call. The shell chooses it, in Open.
	CallID uint64
	// ChunkID is a chunk. The core numbers them, in Dispatch; they grow.
	ChunkID uint64
)

// Outcome says how a task ended. The numbers are those of the protocol's Outcome.
type Outcome uint8

const (
	Value      Outcome = 1 // the function returned a result
	TaskError  Outcome = 2 // the function failed; the worker lives on
	Timeout    Outcome = 3 // it ran, or waited, for too long
	Cancelled  Outcome = 4 // its call, or it alone, was cancelled, or the pool terminated; or it had an attempt, and there can be no other
	WorkerLost Outcome = 5 // its worker died under it
	Rejected   Outcome = 6 // it was not run, and never will be here
)

// Outcomes is a set of Outcome, bit 1<<outcome each.
type Outcomes uint16

// Has tells whether o is in the set.
func (s Outcomes) Has(o Outcome) bool { return s&(1<<o) != 0 }

// Config is how a pool behaves. New fills zero fields with the defaults.
type Config struct {
	Workers      int           // that run tasks; required
	Spares       int           // ready workers kept beside them; a spare runs no task until it takes the place of a worker that leaves
	MaxStarting  int           // processes that may be starting at once; default min(Workers, max(2, CPUs)) is the shell's business, 0 means Workers and Spares
	StartTimeout time.Duration // from Spawn to Registered; default 10 s
	ReadyTimeout time.Duration // from Registered to Ready; default 60 s
	CancelGrace  time.Duration // from cancelling a task, from its timeout, or from Stop, to SIGTERM; default 5 s
	KillDelay    time.Duration // from SIGTERM to SIGKILL; default 2 s

	// When a worker is replaced, though nothing is wrong with it. 0: never.
	MaxTasks    int           // it has been given so many tasks, or up to a tenth less by Rand
	MaxAge      time.Duration // it has been ready for so long, ±10 % by Rand
	DrainMemory int64         // Memory says more bytes than this, or than up to a tenth less by Rand, and it has run a task
	MaxIdle     time.Duration // it has had no task for so long, ±10 % by Rand: it stops, and is replaced when there is work again…
	MinWorkers  int           // …but so many stay

	BackoffMin time.Duration  // default 100 ms, doubled per abnormal exit of the slot in a row…
	BackoffMax time.Duration  // …up to this; default 30 s. ±20 % by Rand
	Rand       func() float64 // in [0,1); default a fixed 0.5, so that tests are exact

	WindowBytes   int           // per call: results not yet read by the client; default 16 MiB
	MaxChunkTasks int           // default 4,096
	MaxItem       int           // bytes of an item; a task with a larger one is Rejected. 0: no limit
	MaxChunkBytes int           // default 1 MiB; one larger item passes alone
	TargetChunk   time.Duration // work in a chunk of automatic size; default 4 ms
	Prefetch      time.Duration // estimated work held by a worker beyond what it runs; default 2 ms
}

// CallSpec is a call as its client made it.
type CallSpec struct {
	ID           CallID
	UID          uint32 // fair shares are between uids, then between calls of a uid
	Weight       int    // of the uid; default 1
	Function     string
	Encoding     string        // required encoding of the function; empty: any
	Single       bool          // independent tasks (ApplyAsync): Close ends its input
	ChunkSize    int           // upper bound; 0: automatic
	TaskTimeout  time.Duration // per attempt, from the task's own start; 0: none
	QueueTimeout time.Duration // from Add to dispatch; 0: none
	Linger       time.Duration // how long results may wait at a worker: it holds twice as much more work. 0: it does as it likes
	Deadline     time.Time     // of the call; the shell cancels the call then, the core only passes it on. Zero: none
	MaxAttempts  int           // default 1
	RetryOn      Outcomes      // default WorkerLost only
}

// Items are tasks added to a call, in order. The core reads the sizes and keeps Ref without looking at it.
type Items struct {
	N        int
	Small    []byte   // size of each item; or
	Sizes    []uint32 // size of each item; or, if both are nil,
	ItemSize uint32   // size of every item
	Ref      any      // the shell's batch; every Part of it leads back to it
}

// Part is a run of tasks out of one Items.
type Part struct {
	Ref   any
	Seq   uint64 // number of the first task in its call, counted from 0 in the order of Add
	From  int    // place of the first task in Items…
	N     int    // …and how many
	Off   int    // bytes of Items before the first task
	Bytes int    // bytes of these tasks

	batch *batch // for cutting
}

// Function is what a worker offers.
type Function struct{ Name, Encoding string }

// Hello is what the core needs to know of a worker that has introduced itself.
type Hello struct {
	Functions   []Function
	CreditTasks int // tasks it may hold without outcome; at least 1. The shell passes 1 for a worker without the progress record
	CreditBytes int // bytes of items likewise; one task always passes
}

// Report is tasks of a chunk that have ended, as the worker (or its progress record) says.
type Report struct {
	Chunk  ChunkID
	First  int           // place of the first one in its chunk
	N      int           // how many, failures included
	Failed []Failed      // those without a value, by offset; all other tasks have one
	Bytes  int           // size of the values
	Ran    time.Duration // how long they ran, together; the core clamps it to what the daemon's own clock allows
	Ref    any           // the shell's message
}

// Failed is one task of a Report without a value.
type Failed struct {
	Offset  int // place in the chunk
	Outcome Outcome
}

// ExitKind says why a worker process ended, as far as it matters for the pool.
type ExitKind uint8

const (
	ExitAbnormal  ExitKind = iota // crashed, killed, exit code ≠ 0; counts for back-off and breaker
	ExitClean                     // exit code 0 after Stop or Goodbye
	ExitPermanent                 // it can never start (no Main, wrong protocol version): trying again is useless
)

// Exit is the end of a worker process: it has been reaped and its stream read to the end.
type Exit struct {
	Kind      ExitKind
	Recovered []Report // from the progress record: outcomes that the stream did not deliver (may overlap with it)
	Running   bool     // the progress record names the task it was running:
	Chunk     ChunkID
	Offset    int
	Known     bool // false: there is no progress record; the first unfinished task it held is guilty
	Why       any  // the shell's description; handed back in Deliveries and Refused
}

// State is where a pool is in its life. The numbers are those of the protocol's PoolState.
type State uint8

const (
	Open       State = 1 // takes calls
	Degraded   State = 2 // workers do not start, or keep dying: one is tried at a time, and calls fail with the reason
	Closed     State = 3 // takes no calls; those that are there run to their end
	Terminated State = 4 // has no calls; workers are being killed
	Joined     State = 5 // every process has been reaped. Nothing follows
)

// Kind is what an Effect asks for.
type Kind uint8

const (
	Spawn       Kind = iota // start process Worker with the program of Generation; answer Spawned, later Registered, Ready, Exited
	Dispatch                // send Chunk to Worker
	CancelTask              // send CancelTask(ChunkID, Offset) to Worker
	Revoke                  // send Revoke(ChunkID, Offset) to Worker; answer Returned
	Stop                    // send Stop to Worker; Reason says why, when it is not for the end of the pool
	Signal                  // SIGTERM to Worker's process group; Reason says why
	Kill                    // SIGKILL to Worker's process group; Reason and Why say why
	Inspect                 // read Worker's progress record; answer Progress
	Opened                  // Call's function is known: Encoding says how it is encoded. Tasks that waited for too long or are too large may have had their outcome before
	Refused                 // Call ends, instead of Opened: Reason and Why say why. Its tasks have no outcome
	Deliver                 // outcomes for Call: see Delivery
	Ended                   // Call has had an outcome for every task, or was cancelled; nothing follows for it
	Restarted               // the restart to Generation is over. With a Reason, it has failed: the program stays what it was. Why is the Exit.Why of its worker, or the name of a function
	StateChange             // the pool is now in State
)

// Reason says why, in Refused, Stop, Signal, Kill, Restarted and Delivery.
type Reason uint8

const (
	NoReason Reason = iota
	UnknownFunction
	WrongEncoding
	BootFailure // Why is the last Exit.Why
	PoolClosed
	PoolTerminated
	CallCancelled
	DeadlinePassed // of the call: the shell cancels it for this
	TaskTimedOut
	QueueTimedOut
	RanItsTasks // Config.MaxTasks
	TooOld      // Config.MaxAge
	TookMemory  // Config.DrainMemory
	IdleTooLong // Config.MaxIdle
	NotNeeded   // there are more workers than Workers and Spares
	Replaced    // by a worker of a newer generation
	NeverRegistered
	NeverReady
	IgnoredStop
	Misbehaved  // the worker broke the protocol: reported a chunk it does not hold, or out of order
	TooLarge    // the item is over Config.MaxItem
	Stopping    // the daemon is stopping
	OutOfMemory // Outgrew
)

// Chunk is work for a worker: tasks of one call, all for the same attempt. It stays valid until its last task has its outcome or has been given back,
// and then until the next Settle; the parts are plain values.
type Chunk struct {
	ID          ChunkID
	Call        CallID
	Function    int // place in the worker's Hello.Functions
	Attempt     int // from 1
	Parts       []Part
	N           int
	Waited      time.Duration // how long ago its first task was added
	TaskTimeout time.Duration
	Linger      time.Duration
	Deadline    time.Time
}

// Delivery is outcomes of tasks of one call, all after the same number of attempts.
type Delivery struct {
	Parts    []Part // which tasks, in order
	N        int
	Attempts int
	Outcome  Outcome       // of all of them; Value: Report.Ref holds the values from place First−Report.First on, except for Report.Failed
	Report   Report        // for Outcome Value
	First    int           // for Outcome Value: place in the chunk of the first task here. The tasks here are a run First…First+N−1 of the Report's
	Worker   WorkerID      // that ran the last attempt; 0: none
	Bytes    int           // for Outcome Value: size of the values; comes back in Written, to the byte
	Ran      time.Duration // how long the tasks ran, together; those of one Report in equal shares. 0: they did not run
	Reason   Reason        // for the other outcomes
	Why      any           // for WorkerLost (and killed tasks): Exit.Why
}

// Effect is something the shell must do. Which fields are set depends on Kind.
type Effect struct {
	Kind     Kind
	Reason   Reason
	State    State
	Worker   WorkerID
	Call     CallID
	Chunk    *Chunk
	ChunkID  ChunkID
	Offset   int // in Restarted: how many workers have been replaced
	Delivery *Delivery
	Why      any
	Encoding string

	Generation int
}
