package workerproc

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// awaitExit returns when the process has ended, and leaves it to be reaped. An error means that somebody else has reaped it.
func awaitExit(proc *os.Process) error {
	for {
		err := unix.Waitid(unix.P_PID, proc.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err
		}
	}
}

// fionread asks how many bytes there are to be read.
const fionread = unix.TIOCINQ

// newRecord makes an empty progress record whose size nobody can change.
func newRecord(size int) (*os.File, error) {
	fd, err := unix.MemfdCreate("procpool-progress", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make a progress record: %w", err)
	}
	f := os.NewFile(uintptr(fd), "progress")
	if err := f.Truncate(int64(size)); err != nil {
		f.Close()
		return nil, fmt.Errorf("make a progress record: %w", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal a progress record: %w", err)
	}
	return f, nil
}

func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(sig))
}
