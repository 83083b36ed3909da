package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"syscall"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/workerproc"
)

// usableCPUs is how many CPUs this process may use: those of its affinity, and no more than the quota of its cgroup, rounded up to a whole number and
// to 2 at least. This is how Go sets GOMAXPROCS since 1.25; who sets it otherwise, sets this.
func usableCPUs() int { return runtime.GOMAXPROCS(0) }

// checkProgram looks whether a pool's program can be started, so that its opener hears it at once and in a sentence.
func (s *Server) checkProgram(prog *pb.Program) error {
	if s.cfg.InProcess {
		return checkOwnProgram(prog)
	}
	return checkProgram(prog)
}

// checkOwnProgram looks whether goroutines of this process can stand for a program.
func checkOwnProgram(prog *pb.Program) error {
	var what string
	self, err := os.Executable()
	dir, err2 := os.Getwd()
	switch {
	case err == nil && (prog.Path != self || len(prog.Args) > 0):
		what = "run another program, or with arguments"
	case err2 == nil && prog.Dir != dir:
		what = "have another working directory"
	case !slices.Equal(prog.Env, os.Environ()):
		what = "have another environment"
	default:
		return nil
	}
	return refuse(pb.Reason_REASON_UNSUPPORTED, "the workers of an inline pool are goroutines of this process, and cannot %s", what)
}

func checkProgram(prog *pb.Program) error {
	info, err := os.Stat(prog.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refuse(pb.Reason_REASON_PROGRAM, "the program %s does not exist; if it was built by `go run`, it has been removed: build it with `go build`", prog.Path)
	case err != nil:
		return refuse(pb.Reason_REASON_PROGRAM, "the program cannot be used: %v", err)
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return refuse(pb.Reason_REASON_PROGRAM, "the program %s is not an executable file (mode %v)", prog.Path, info.Mode())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && prog.Inode != 0 && (st.Ino != prog.Inode || uint64(st.Dev) != prog.Device) { //nolint:unconvert // Dev has another type on other systems
		return refuse(pb.Reason_REASON_PROGRAM, "the program %s is another file here than for its client: it has been rebuilt since, or the two see different file systems", prog.Path)
	}
	if prog.Dir != "" {
		if info, err := os.Stat(prog.Dir); err != nil {
			return refuse(pb.Reason_REASON_PROGRAM, "the working directory cannot be used: %v", err)
		} else if !info.IsDir() {
			return refuse(pb.Reason_REASON_PROGRAM, "the working directory %s is not a directory", prog.Dir)
		}
	}
	return nil
}

// start starts the process of a worker.
func (s *Server) start(w *worker) (process, error) {
	spec := w.pool.spec
	boot := &pb.Bootstrap{
		Socket: s.workers.path, Worker: w.name, Generation: uint64(w.id), Token: w.token[:], ProtocolMin: workerproc.ProtocolMin,
		ProtocolMax: workerproc.ProtocolMax, StartTimeoutMs: uint32(spec.StartTimeout.AsDuration().Milliseconds()),
	}
	if s.cfg.InProcess {
		return startInProcess(boot), nil
	}
	return workerproc.Start(workerproc.Spec{
		Program: w.program, Bootstrap: boot, Output: w.wrote, Guardian: s.guardian, Cgroups: s.cgroups, Limits: s.limits(spec),
	})
}

// inProcess is a worker made of goroutines of this process. It can be asked to end, but not made to.
type inProcess struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func startInProcess(boot *pb.Bootstrap) *inProcess {
	ctx, cancel := context.WithCancel(context.Background())
	p := &inProcess{cancel: cancel, done: make(chan struct{})}
	go func() { // waited for by Wait
		defer close(p.done)
		p.err = workerproc.ServeInProcess(ctx, boot)
	}()
	return p
}

func (p *inProcess) Pid() int   { return os.Getpid() }
func (p *inProcess) Terminate() { p.cancel() }
func (p *inProcess) Kill()      { p.cancel() }

func (p *inProcess) Turn(int) {}

func (p *inProcess) Hold(func(pid, pidfd int)) bool { return false }

func (p *inProcess) Memory() int64 { return 0 }

func (p *inProcess) Outgrown(int64) (int64, bool) { return 0, false }

func (p *inProcess) Progress() (workerproc.Progress, bool) { return workerproc.Progress{}, false }

func (p *inProcess) Wait() workerproc.Exit {
	<-p.done
	p.cancel()
	exit := workerproc.Exit{Pid: os.Getpid()}
	if p.err != nil {
		exit.Code = 1
		exit.CrashReport = []string{fmt.Sprint(p.err)}
	}
	return exit
}
