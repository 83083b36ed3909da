package workerproc

import "time"

// What both ends of the contract know. The rest of it is in the protocol.
const (
	// ProtocolMin and ProtocolMax are the versions of the worker protocol that this package speaks.
	ProtocolMin = 1
	ProtocolMax = 1

	// FeatureProgress is the feature of a worker that keeps the progress record.
	FeatureProgress = "progress"

	// ExitConfig is the exit status of a worker for which trying again is useless (EX_CONFIG of sysexits.h).
	ExitConfig = 78

	// ExitLost is the exit status of a worker that has lost its daemon and does not lead a process group that it could kill.
	ExitLost = 69

	mark      = "PROCPOOL_WORKER" // in the environment: descriptor 3 is for you
	markValue = "3"
	umaskVar  = "PROCPOOL_UMASK" // in the environment: octal

	bootFD     = 3
	progressFD = 4

	bootTimeout = 5 * time.Second // to read the bootstrap frame
	lostGrace   = time.Second     // for the task in hand when the stream is gone
)

// What a worker says it can hold.
const (
	creditTasks = 8192
	creditBytes = 16 << 20
)
