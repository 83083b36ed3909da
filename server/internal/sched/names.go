package sched

import "fmt"

// Names for logs and tests.

var (
	outcomes = [...]string{Value: "value", TaskError: "task error", Timeout: "timeout", Cancelled: "cancelled", WorkerLost: "worker lost", Rejected: "rejected"}
	states   = [...]string{Open: "open", Degraded: "degraded", Closed: "closed", Terminated: "terminated", Joined: "joined"}
	kinds    = [...]string{
		Spawn: "spawn", Dispatch: "dispatch", CancelTask: "cancel task", Revoke: "revoke", Stop: "stop", Signal: "signal", Kill: "kill", Inspect: "inspect",
		Opened: "opened", Refused: "refused", Deliver: "deliver", Ended: "ended", Restarted: "restarted", StateChange: "state change",
	}
	reasons = [...]string{
		NoReason: "no reason", UnknownFunction: "unknown function", WrongEncoding: "wrong encoding", BootFailure: "boot failure", PoolClosed: "pool closed",
		PoolTerminated: "pool terminated", CallCancelled: "call cancelled", DeadlinePassed: "deadline passed", TaskTimedOut: "task timed out", QueueTimedOut: "queue timed out",
		RanItsTasks: "ran its tasks", TooOld: "too old", TookMemory: "took memory", IdleTooLong: "idle for too long", NotNeeded: "not needed", Replaced: "replaced",
		NeverRegistered: "never registered", NeverReady: "never ready", IgnoredStop: "ignored stop", Misbehaved: "misbehaved", TooLarge: "too large", Stopping: "stopping",
		OutOfMemory: "out of memory",
	}
	activities = [...]string{Starting: "starting", Idle: "idle", Busy: "busy", Leaving: "stopping", Spare: "spare"}
)

func name[T ~uint8](names []string, x T) string {
	if int(x) < len(names) && names[x] != "" {
		return names[x]
	}
	return fmt.Sprintf("%T(%d)", x, x)
}

func (o Outcome) String() string  { return name(outcomes[:], o) }
func (s State) String() string    { return name(states[:], s) }
func (k Kind) String() string     { return name(kinds[:], k) }
func (r Reason) String() string   { return name(reasons[:], r) }
func (a Activity) String() string { return name(activities[:], a) }
