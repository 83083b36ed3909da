package lines

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fionread asks how many bytes there are to be read in a pipe. Either end knows.
const fionread = unix.TIOCINQ

// dieOf ends this process by a signal, without a word and without a core: the program has left both.
func dieOf(sig syscall.Signal) {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) // lowering a limit is always allowed
	// The runtime catches some signals and says which goroutines there are. All zeros is the default action, whatever the layout; the kernel's struct is
	// smaller than this.
	var action [64]byte
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	_ = unix.Kill(os.Getpid(), sig)
	// It arrives before the system call returns, unless another thread takes it.
	_ = unix.Nanosleep(&unix.Timespec{Sec: 1}, nil)
	os.Exit(128 + int(sig))
}
