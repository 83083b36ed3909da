package workerproc

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// awaitExit returns when the process has ended, and leaves it to be reaped.
func awaitExit(proc *os.Process) error {
	kq, err := unix.Kqueue()
	if err != nil {
		return fmt.Errorf("watch process %d: %w", proc.Pid, err)
	}
	defer unix.Close(kq)
	var change unix.Kevent_t
	unix.SetKevent(&change, proc.Pid, unix.EVFILT_PROC, unix.EV_ADD|unix.EV_ONESHOT)
	change.Fflags = unix.NOTE_EXIT
	events := make([]unix.Kevent_t, 1)
	for {
		n, err := unix.Kevent(kq, []unix.Kevent_t{change}, events, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n > 0 { // ESRCH: it has ended already
			return nil
		}
	}
}

// fionread asks how many bytes there are to be read: FIONREAD of sys/filio.h.
const fionread = 0x4004667f

func newRecord(int) (*os.File, error) { return nil, errors.New("this system has no memfd") }

func signalName(sig syscall.Signal) string { return unix.SignalName(sig) }
