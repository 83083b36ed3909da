package lines

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

// fionread asks how many bytes there are to be read in a pipe: FIONREAD of sys/filio.h.
const fionread = 0x4004667f

// dieOf ends this process by a signal, as far as the runtime lets that happen.
func dieOf(sig syscall.Signal) {
	signal.Reset(sig)
	_ = syscall.Kill(os.Getpid(), sig)
	<-time.After(time.Second) // another thread may take it
	os.Exit(128 + int(sig))
}
