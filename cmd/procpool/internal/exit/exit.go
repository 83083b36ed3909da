// Package exit has the ends of this program that are more than an error to be told: exit statuses, and signals.
package exit

import (
	"fmt"
	"syscall"
)

// ManyFailed is the exit status when more than 100 items failed.
const ManyFailed = 101

// StatusError is an error that has been reported already; nothing is left but to exit with this status.
type StatusError int

func (s StatusError) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// Failed is the end of a run in which so many items failed: a StatusError of their number, or of ManyFailed; nil for none.
func Failed(items int) error {
	if items == 0 {
		return nil
	}
	return StatusError(min(items, ManyFailed))
}

// SignalError is the cause of a context that a signal has ended.
type SignalError struct{ Signal syscall.Signal }

func (e SignalError) Error() string { return e.Signal.String() }
