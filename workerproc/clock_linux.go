package workerproc

import (
	"time"

	"golang.org/x/sys/unix"
)

// Both ends of the progress record count by CLOCK_MONOTONIC, which is one clock for all processes of a machine.
var clockBase, clockStart = func() (int64, time.Time) {
	var ts unix.Timespec
	now := time.Now()
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, now
	}
	return ts.Nano(), now
}()

func toMonotonic(t time.Time) int64 { return clockBase + int64(t.Sub(clockStart)) }

func fromMonotonic(ns int64) time.Time { return clockStart.Add(time.Duration(ns - clockBase)) }
