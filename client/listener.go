package client

import (
	"fmt"
	"time"
)

// listener is the process that listens at the other end of a socket, as far as the kernel tells.
type listener struct {
	pid  int // 0: unknown
	name string
}

// patience is how long it has for its first answer. A socket that systemd keeps is answered by a daemon that may have to start, or to wait for the end of
// the last one.
func (l listener) patience() time.Duration {
	if l.name == "systemd" || l.pid == 1 && l.name == "" {
		return redialWait
	}
	return dialPatience
}

// String is the process in parentheses, for after "it listens".
func (l listener) String() string {
	switch {
	case l.pid == 0:
		return ""
	case l.name == "":
		return fmt.Sprintf(" (process %d)", l.pid)
	default:
		return fmt.Sprintf(" (process %d, %s)", l.pid, l.name)
	}
}

// silentError is the error of a connection to which nobody has said anything in time.
type silentError struct {
	listener
	ended error // the end of the caller's context, if that was it
}

func (e *silentError) Error() string {
	return fmt.Sprintf("it listens%s, but does not answer: is it another program than procpoold, or a daemon that is stopped or hangs?", e.listener)
}

func (e *silentError) Unwrap() error { return e.ended }
