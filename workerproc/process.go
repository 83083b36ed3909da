package workerproc

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/workerproc/internal/cgroup"
	"github.com/procpool/procpool/workerproc/internal/guard"
)

// Spec is how to start a worker.
type Spec struct {
	Program   *pb.Program
	Bootstrap *pb.Bootstrap // Start adds the progress record
	Output    func(Line)    // gets what the worker writes, by line; called from two goroutines, for stdout and stderr. nil: nobody
	Guardian  *Guardian     // takes care of the worker while it lives. nil: nobody does
	Cgroups   *Cgroups      // has a cgroup for the worker. nil: there are none
	Limits    Limits        // of that cgroup
}

// Line is a line that a worker wrote.
type Line struct {
	Pid       int
	Stream    int // 1: stdout, 2: stderr
	Text      []byte
	Truncated bool // it was longer than 64 KiB
	Partial   bool // it ended without a newline
	Page      int  // that it began on; see Process.Turn. −1: one that was over long before the line was read
}

const noPage = -1

// Exit is the end of a worker process.
type Exit struct {
	Pid         int
	Code        int    // exit status, if it exited
	Signal      string // name of the signal that ended it, if one did
	CoreDumped  bool
	CPU         time.Duration // that it has used, with its children that it has waited for
	CrashReport []string      // its last words: up to 40 lines
	Page        int           // that they are from; see Process.Turn
	Record      *Record       // what its progress record tells; nil if it did not keep one
	Account     Account       // of its cgroup, if it had one
}

// String says how it ended.
func (e Exit) String() string {
	switch {
	case e.Signal != "" && e.CoreDumped:
		return "killed by " + e.Signal + " (core dumped)"
	case e.Signal != "":
		return "killed by " + e.Signal
	default:
		return fmt.Sprintf("exit status %d", e.Code)
	}
}

// Process is a worker process. It leads a process group of its own, and the group ends with it; so does its cgroup, if it has one.
type Process struct {
	proc     *os.Process
	lifeline *os.File // the daemon's end; closed once the process has been reaped
	record   *os.File // the progress record; nil: there is none
	size     int
	lines    *lines
	drained  sync.WaitGroup
	pipes    []*os.File
	outputs  []*outPipe // the same
	guardian *Guardian
	leaf     *cgroup.Leaf // nil: it is in the daemon's own cgroup

	mu     sync.Mutex
	reaped bool
}

// drainTime is how long a dead worker's output is read when somebody else holds its end and goes on writing.
const drainTime = time.Second

// Start starts a worker. The caller must call Wait.
func Start(spec Spec) (*Process, error) {
	prog := spec.Program
	if err := sameProgram(prog); err != nil {
		return nil, err
	}
	p := &Process{lines: newLines(spec.Output)}
	var child []*os.File // what goes into the child, in order of descriptors
	defer func() {
		for _, f := range child {
			f.Close()
		}
	}()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, startError(prog, err)
	}
	child = append(child, null)
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			p.closeAll()
			return nil, startError(prog, err)
		}
		p.pipes = append(p.pipes, r)
		child = append(child, w)
	}
	r, w, err := os.Pipe()
	if err != nil {
		p.closeAll()
		return nil, startError(prog, err)
	}
	child, p.lifeline = append(child, r), w
	if p.record, err = newRecord(ProgressSize); err == nil {
		child = append(child, p.record)
		p.size = ProgressSize
		spec.Bootstrap.ProgressFd, spec.Bootstrap.ProgressSize = progressFD, ProgressSize
	} else if usedUp(err) { // else this system has no records, and the worker does without
		p.closeAll()
		return nil, startError(prog, err)
	}
	frame, err := encodeBootstrap(spec.Bootstrap)
	if err == nil {
		_, err = p.lifeline.Write(frame) // a pipe holds more than a frame has
	}
	if err == nil && spec.Cgroups != nil {
		if p.leaf, err = spec.Cgroups.Leaf(spec.Bootstrap.Worker, spec.Limits); err != nil {
			p.closeAll()
			return nil, startError(prog, err)
		}
	}
	if err == nil {
		p.proc, err = startIn(p.leaf, prog.Path, append([]string{prog.Path}, prog.Args...), &os.ProcAttr{
			Dir: prog.Dir, Env: environment(prog), Files: child, Sys: &syscall.SysProcAttr{Setpgid: true},
		})
	}
	if p.record != nil {
		child = slices.DeleteFunc(child, func(f *os.File) bool { return f == p.record }) // we go on reading it
	}
	if err != nil {
		p.closeAll()
		p.leaf.Remove()
		return nil, diagnose(prog, err)
	}
	p.lines.pid = p.proc.Pid
	if p.guardian = spec.Guardian; p.guardian != nil {
		p.guardian.guard(p)
	}
	for i, f := range p.pipes {
		o := &outPipe{pipe: f}
		p.outputs = append(p.outputs, o)
		p.drained.Go(func() { p.lines.read(o, i+1) })
	}
	return p, nil
}

func (p *Process) closeAll() {
	for _, f := range append(p.pipes, p.lifeline, p.record) {
		if f != nil {
			f.Close()
		}
	}
}

// environment is the program's environment with the mark of a worker.
func environment(prog *pb.Program) []string {
	env := prog.Env
	if len(env) == 0 && !prog.ClearEnv {
		env = os.Environ()
	}
	env = slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		return strings.HasPrefix(e, mark+"=") || strings.HasPrefix(e, umaskVar+"=") || strings.HasPrefix(e, guard.Mark+"=")
	})
	env = append(env, mark+"="+markValue)
	if prog.Umask != nil {
		env = append(env, umaskVar+"="+strconv.FormatUint(uint64(*prog.Umask), 8))
	}
	return env
}

// sameProgram makes sure that the program is still the file that the client meant.
func sameProgram(prog *pb.Program) error {
	if prog.Inode == 0 {
		return nil
	}
	info, err := os.Stat(prog.Path)
	if err != nil {
		return diagnose(prog, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && (st.Ino != prog.Inode || uint64(st.Dev) != prog.Device || (prog.MtimeNs != 0 && info.ModTime().UnixNano() != prog.MtimeNs)) { //nolint:unconvert // Dev has another type on other systems
		return fmt.Errorf("the program %s has been rebuilt since the pool was opened; open the pool again", prog.Path)
	}
	return nil
}

// diagnose says what is wrong with a program that does not start.
func diagnose(prog *pb.Program, err error) error {
	info, serr := os.Stat(prog.Path)
	switch {
	case errors.Is(serr, fs.ErrNotExist):
		return fmt.Errorf("the program %s does not exist", prog.Path)
	case errors.Is(serr, fs.ErrPermission):
		return fmt.Errorf("the program %s cannot be reached: a directory above it may not be searched (chmod +x)", prog.Path)
	case serr == nil && info.IsDir():
		return fmt.Errorf("the program %s is a directory", prog.Path)
	case prog.Dir != "" && !isDir(prog.Dir):
		return fmt.Errorf("the working directory %s does not exist", prog.Dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the program %s may not be executed (mode %v): chmod +x, or mount its file system without noexec", prog.Path, info.Mode())
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the program %s is there, but its interpreter is not: %s", prog.Path, interpreter(prog.Path))
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("the program %s is not an executable of this machine: a script needs a first line like #!/bin/sh, a binary the right architecture", prog.Path)
	default:
		return startError(prog, err)
	}
}

// startError says what is used up, if that is why a program was not started, and what to do about it.
func startError(prog *pb.Program, err error) error {
	var remedy string
	switch {
	case errors.Is(err, syscall.EMFILE):
		remedy = ": have fewer workers, or raise this process's limit (ulimit -n; LimitNOFILE= of a systemd unit)"
	case errors.Is(err, syscall.ENFILE):
		remedy = ": the whole machine's limit is reached (sysctl fs.file-max)"
	case errors.Is(err, syscall.EAGAIN):
		remedy = ": the limit of processes is reached; have fewer workers, or raise it (ulimit -u, LimitNPROC= or TasksMax= of a systemd unit, or the cgroup's pids.max)"
	case errors.Is(err, syscall.ENOMEM):
		remedy = ": have fewer workers, or give them more memory"
	}
	return fmt.Errorf("start %s: %w%s", prog.Path, err, remedy)
}

// usedUp says whether there would have been another file or more memory before.
func usedUp(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// interpreter is what a program asks to be run by.
func interpreter(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head)
	if line, ok := bytes.CutPrefix(head[:n], []byte("#!")); ok {
		line, _, _ = bytes.Cut(line, []byte("\n"))
		return strings.TrimSpace(string(line))
	}
	if e, err := elf.NewFile(f); err == nil {
		for _, p := range e.Progs {
			if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
				name := make([]byte, p.Filesz)
				if _, err := p.ReadAt(name, 0); err == nil {
					return string(bytes.TrimRight(name, "\x00"))
				}
			}
		}
	}
	return "unknown"
}

// Pid is the process's number, and that of its group.
func (p *Process) Pid() int { return p.proc.Pid }

// Recordable says why workers started here have no progress record; nil if they have one.
func Recordable() error {
	f, err := newRecord(ProgressSize)
	if err != nil {
		return err
	}
	return f.Close()
}

// Hold calls f unless the process has been reaped, and it is not reaped meanwhile: nobody else can get its number, nor that of its group.
// pidfd is a descriptor for the process until f returns; -1 where the system has none. It reports whether f was called.
func (p *Process) Hold(f func(pid, pidfd int)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return false
	}
	if p.proc.WithHandle(func(handle uintptr) { f(p.proc.Pid, int(handle)) }) != nil {
		f(p.proc.Pid, -1)
	}
	return true
}

// Turn begins a page of output: what the process writes from now on, to the byte. The first one is page 0. Lines say which page they are from, and the
// crash report has lines of the last page only.
func (p *Process) Turn(page int) {
	p.lines.turn(page, [2]int64{p.outputs[0].written(), p.outputs[1].written()})
}

// Terminate sends SIGTERM to the process and its group.
func (p *Process) Terminate() { p.signal(syscall.SIGTERM) }

// Kill sends SIGKILL to the process and its group, and to whatever else is in its cgroup.
func (p *Process) Kill() {
	p.signal(syscall.SIGKILL)
	p.leaf.Kill() // that is its own, also when it has been reaped
}

// signal signals the group, unless the process has been reaped: its number may be somebody else's by then.
func (p *Process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return
	}
	if syscall.Kill(-p.proc.Pid, sig) != nil { // it has moved to another group
		p.proc.Signal(sig)
	}
}

// Progress reads what the process is doing. False if it keeps no record.
func (p *Process) Progress() (Progress, bool) {
	if p.record == nil {
		return Progress{}, false
	}
	rec, err := readProgress(p.record)
	return rec, err == nil
}

// Wait waits for the process's end, kills what is left of its group, reaps it, and reads the rest of its output. It must be called once.
func (p *Process) Wait() Exit {
	gone := awaitExit(p.proc)
	p.mu.Lock()
	if gone == nil {
		syscall.Kill(-p.proc.Pid, syscall.SIGKILL) // its number is its own until it is reaped
	}
	p.leaf.Kill()
	state, err := p.proc.Wait()
	p.reaped = true
	p.mu.Unlock()
	if p.guardian != nil {
		p.guardian.forget(p)
	}
	p.lifeline.Close()

	exit := Exit{Pid: p.proc.Pid}
	if state != nil {
		exit.CPU = state.UserTime() + state.SystemTime()
	}
	if err != nil {
		exit.Code = -1
	} else if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		exit.Signal, exit.CoreDumped = signalName(ws.Signal()), ws.CoreDump()
	} else {
		exit.Code = state.ExitCode()
	}
	if p.record != nil {
		if rec, err := readRecord(p.record, p.size); err == nil {
			exit.Record = rec
		}
		p.record.Close()
	}
	p.drain()
	began := time.Time{} // not known
	if exit.Record != nil && exit.Record.Running {
		began = exit.Record.Started
	}
	exit.Account = p.leaf.Account()
	p.leaf.Remove()
	exit.CrashReport, exit.Page = p.lines.report(began)
	return exit
}

// drain reads what the process has left in its pipes, and closes them. It does not wait for their end: a process outside the group may hold
// them for ever, and write. What is in them now may be the last words of the process, and is waited for, however busy the machine is.
func (p *Process) drain() {
	ended := make(chan struct{})
	go func() { // waited for below
		p.drained.Wait()
		close(ended)
	}()
	limit := time.Now().Add(drainTime)
	left := make([]int64, len(p.outputs)) // where what is in them now ends
	for i, o := range p.outputs {
		left[i] = o.written()
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for read := false; !read; {
		select {
		case <-ended:
			read = true
		case <-look.C:
			read = true
			for i, o := range p.outputs {
				taken, written := o.progress()
				read = read && (taken == written || taken >= left[i] && time.Now().After(limit))
			}
		}
	}
	for _, f := range p.pipes {
		_ = f.SetReadDeadline(time.Now()) // a pipe has one; what has been read already is not lost
	}
	<-ended
	for _, f := range p.pipes {
		f.Close()
	}
}
