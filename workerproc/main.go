package workerproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"golang.org/x/sys/unix"
)

// ErrForgotten is what is wrong with a process that was started as a worker and does not serve.
var ErrForgotten = errors.New("this process was started as a procpool worker, but it does not serve: call workerproc.Main() first in main (and in TestMain)")

// called is set when Main has been called.
var called atomic.Bool

// Main makes this process a worker, if it was started as one: it serves, and never returns. In any other process it returns at once.
// Call it first in main, and first in TestMain, of every program whose functions are to run in workers.
//
// A worker exits with status 0 when it has been told to stop, 1 when its init function failed, and 78 when there is no point in
// trying again. It ends itself and its process group when the daemon is gone.
func Main() {
	called.Store(true)
	if os.Getenv(mark) != markValue {
		return
	}
	os.Exit(serveProcess())
}

// Forgotten is ErrForgotten in a process that was started as a worker and has not called Main.
func Forgotten() error {
	if os.Getenv(mark) != "" && !called.Load() {
		return ErrForgotten
	}
	return nil
}

// A worker that does not serve would run its whole program, as if it were the client. So it is told, and stopped.
func init() {
	if os.Getenv(mark) == markValue {
		time.AfterFunc(watchStep, watchMain)
	}
}

const watchStep = 250 * time.Millisecond

// watchMain ends the process when main has been running for a while without calling Main. Package initialisation may take as long as
// it likes. It looks for the first time a step after the start, when most workers have called Main long ago.
func watchMain() {
	if called.Load() {
		return
	}
	const patience = 4 // steps
	stack := make([]byte, 1<<20)
	tick := time.NewTicker(watchStep)
	defer tick.Stop()
	for seen := 0; !called.Load(); <-tick.C {
		trace := string(stack[:runtime.Stack(stack, true)])
		if strings.Contains(trace, "\nmain.main(") || strings.Contains(trace, "\ntesting.(*M).Run(") {
			seen++
		}
		if seen > patience {
			fmt.Fprintln(os.Stderr, ErrForgotten)
			os.Exit(ExitConfig)
		}
	}
}

// serveProcess is Main in a worker process. It returns the exit status.
func serveProcess() int {
	os.Unsetenv(mark)
	if umask, err := strconv.ParseUint(os.Getenv(umaskVar), 8, 12); err == nil {
		syscall.Umask(int(umask))
	}
	os.Unsetenv(umaskVar)
	syscall.CloseOnExec(bootFD)
	_ = syscall.SetNonblock(bootFD, true) // so that no thread waits in it, which has to be made; where it fails, one does
	lifeline := os.NewFile(bootFD, "lifeline")
	if lifeline == nil {
		return fail(errNotOurs)
	}
	// When the daemon dies, a write to stdout would end this process before it can end its group. Were the signal ignored instead, it
	// would be so in commands that tasks run, too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	late := time.AfterFunc(bootTimeout, func() {
		os.Exit(fail(fmt.Errorf("no bootstrap frame within %v", bootTimeout)))
	})
	boot, err := readBootstrap(lifeline)
	late.Stop()
	if err != nil {
		return fail(err)
	}
	go func() { // for as long as the process lives
		var b [64]byte
		for err := error(nil); err == nil; { // however it ends, it has ended
			_, err = lifeline.Read(b[:])
		}
		endGroup()
	}()
	s := newSession(boot)
	if boot.ProgressFd != 0 {
		if err := s.mapProgress(int(boot.ProgressFd), int(boot.ProgressSize)); err != nil {
			fmt.Fprintln(os.Stderr, "procpool worker: no progress record:", err)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s.fatal = endGroup
	return s.exitStatus(s.serve(ctx))
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "procpool worker:", err)
	return ExitConfig
}

// endGroup ends this process and everything it has started.
func endGroup() {
	if syscall.Getpgrp() == os.Getpid() {
		syscall.Kill(0, syscall.SIGKILL)
	}
	os.Exit(ExitLost)
}

// mapProgress opens the progress record.
func (s *session) mapProgress(fd, size int) error {
	syscall.CloseOnExec(fd)
	if size < progressHeader+4096 {
		return fmt.Errorf("it has only %d bytes", size)
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	s.share(mem)
	return nil
}

// ServeInProcess serves as a worker by goroutines of this process, until ctx is done or the daemon says stop. There is no isolation, no
// lifeline and no progress record. It is for client/local.Inline.
func ServeInProcess(ctx context.Context, boot *pb.Bootstrap) error {
	return newSession(boot).serve(ctx)
}
