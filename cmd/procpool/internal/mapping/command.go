package mapping

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/procpool/procpool/cmd/procpool/internal/text"
	"github.com/procpool/procpool/workerproc"
)

const (
	// commandGrace is how long a cancelled command has between SIGTERM and SIGKILL, and how long output is awaited from
	// what a command has left running in the background.
	commandGrace = time.Second
	// announceAfter is how long a command runs before it says its process id, for whoever waits for it.
	announceAfter = 5 * time.Second
	// pidStream is the stream of task output that carries the process id.
	pidStream = 3
)

// runCommand is the function behind `procpool map -- command`: it runs one command to its end.
var runCommand = workerproc.Func("procpool.command", func(ctx context.Context, c command) (commandResult, error) { return c.run(ctx) })

// command is the argument of the function: an argv, no shell.
type command struct {
	Argv []text.Bytes `json:"argv"`
	// Live: pass output on as it comes. Else it travels with the result, as far as that is small.
	Live bool `json:"live,omitempty"`
	// Slots are the places in Argv where the number of the worker's slot is to be inserted, in order, and SlotFile the file in which
	// workers hold their slots.
	Slots    []slotPlace `json:"slots,omitempty"`
	SlotFile string      `json:"slot_file,omitempty"`
	// LimitFile tells how long the command may take; see medianLimit.
	LimitFile string `json:"limit_file,omitempty"`
	// Stdin is the file that the command reads; empty for nothing.
	Stdin string `json:"stdin,omitempty"`
}

// slotPlace is a place in an argv.
type slotPlace struct {
	Arg    int `json:"arg"`
	Offset int `json:"offset"`
}

// commandResult is how a command ended. Its whole output is what was sent as task output, followed by Stdout and Stderr.
type commandResult struct {
	ExitCode int        `json:"exit_code"`
	Signal   string     `json:"signal,omitempty"`
	Stdout   text.Bytes `json:"stdout,omitempty"`
	Stderr   text.Bytes `json:"stderr,omitempty"`
	StartMS  int64      `json:"start_ms,omitempty"` // when it began, in Unix milliseconds
	Seconds  float64    `json:"seconds"`
	Late     bool       `json:"late,omitempty"` // it was ended because of its LimitFile
	Pid      int        `json:"pid,omitempty"`
	Worker   string     `json:"worker,omitempty"`
	Reason   string     `json:"reason,omitempty"` // why it could not be run at all
}

// commandError is a command that failed. The result is its detail.
type commandError struct{ result commandResult }

// Error is the reason in a few words.
func (e *commandError) Error() string {
	r := &e.result
	switch {
	case r.Reason != "":
		return r.Reason
	case r.Late:
		return fmt.Sprintf("took too long in comparison with the others: ended after %.3g s", r.Seconds)
	case r.Signal != "":
		return "killed by " + r.Signal
	}
	return fmt.Sprintf("exit status %d", r.ExitCode)
}

// Detail is the result as JSON.
func (e *commandError) Detail() []byte {
	b, err := json.Marshal(&e.result)
	if err != nil {
		return nil // nothing in a result can fail to encode
	}
	return b
}

func (c *command) run(ctx context.Context) (commandResult, error) {
	info, _ := workerproc.TaskInfo(ctx)
	result := commandResult{Worker: info.Worker}
	argv, err := c.argv()
	if err != nil {
		return result, err
	}
	path, err := lookPath(argv[0])
	if err != nil {
		return result, notRun(result, err)
	}
	stdout, stderr := newCapture(workerproc.Output(ctx, 1), c.Live), newCapture(workerproc.Output(ctx, 2), c.Live)
	defer stdout.release()
	defer stderr.release()
	own, late := ctx, errors.New("late")
	if c.LimitFile != "" {
		var cancel context.CancelCauseFunc
		own, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		stop, err := watchLimit(c.LimitFile, time.Now(), func() { cancel(late) })
		if err != nil {
			return result, err
		}
		defer stop()
	}
	in, err := c.input()
	if err != nil {
		return result, fmt.Errorf("read a block of the input: %w", err)
	}
	if c.Stdin != "" {
		defer in.Close()
	}
	start := time.Now()
	announced := func() {}
	end, err := runCaptured(own, program{path, argv, in}, stdout, stderr, func(pid int) { announced = announce(ctx, pid) })
	if end.pid == 0 {
		return result, notRun(result, err)
	}
	if own.Err() != nil {
		killGroup()
	}
	announced()
	if err != nil {
		return result, fmt.Errorf("wait for the command: %w", err)
	}
	result.StartMS = start.UnixMilli()
	result.Seconds = time.Since(start).Seconds()
	result.Pid = end.pid
	result.Stdout, result.Stderr = stdout.rest(), stderr.rest()
	if result.ExitCode = end.status.ExitStatus(); end.status.Signaled() {
		result.ExitCode = 128 + int(end.status.Signal())
		result.Signal = unix.SignalName(end.status.Signal())
	}
	result.Late = end.told && errors.Is(context.Cause(own), late)
	if result.ExitCode != 0 || end.told { // a command may end well when it is told to end, and has not done its work
		return result, &commandError{result}
	}
	return result, nil
}

// program is what runCaptured runs.
type program struct {
	path  string
	argv  []string
	stdin *os.File
}

// ran is how a program has run. Without a pid it has not.
type ran struct {
	pid    int
	status syscall.WaitStatus
	told   bool // to end, before it did
}

var devNull = sync.OnceValues(func() (*os.File, error) { return os.Open(os.DevNull) })

// input is what the command reads.
func (c *command) input() (*os.File, error) {
	if c.Stdin == "" {
		return devNull()
	}
	return os.Open(c.Stdin)
}

// argv is the command's arguments with the slot number in its places.
func (c *command) argv() ([]string, error) {
	if len(c.Argv) == 0 {
		return nil, errors.New("the command has no argv")
	}
	args := slices.Clone(c.Argv)
	if len(c.Slots) > 0 {
		slot, err := ownSlot(c.SlotFile)
		if err != nil {
			return nil, err
		}
		for _, p := range slices.Backward(c.Slots) { // from the end, so that offsets hold
			if p.Arg < 0 || p.Arg >= len(args) || p.Offset < 0 || p.Offset > len(args[p.Arg]) {
				return nil, fmt.Errorf("slot place %+v lies outside of the command", p)
			}
			args[p.Arg] = slices.Insert(slices.Clone(args[p.Arg]), p.Offset, []byte(strconv.Itoa(slot))...)
		}
	}
	argv := make([]string, len(args))
	for i, a := range args {
		argv[i] = string(a)
	}
	return argv, nil
}

// notRun is a command that could not be started, with the exit code a shell would give.
func notRun(r commandResult, err error) error {
	r.ExitCode = 126
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		r.ExitCode = 127
	}
	r.Reason = err.Error()
	return &commandError{r}
}

// announce sends the process id of a command that runs long. The returned function ends that and waits for it.
func announce(ctx context.Context, pid int) (stop func()) {
	done := make(chan struct{})
	timer := time.AfterFunc(announceAfter, func() {
		defer close(done)
		fmt.Fprint(workerproc.Output(ctx, pidStream), pid)
	})
	return func() {
		if !timer.Stop() {
			<-done
		}
	}
}

var paths sync.Map // name to path: a worker runs the same command again and again

func lookPath(name string) (string, error) {
	if p, ok := paths.Load(name); ok {
		return p.(string), nil
	}
	p, err := findProgram(name)
	if err == nil {
		paths.Store(name, p)
	}
	return p, err
}

// findProgram is the program that a name stands for. A relative directory in $PATH is as good as another one: whoever put it there wanted that.
func findProgram(name string) (string, error) {
	p, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrDot) {
		return p, nil
	}
	return p, err
}

var slot struct {
	sync.Mutex
	number int
	lock   io.Closer // open for the life of the process: closing it would give the slot away
}

// ownSlot is the number of this worker's slot: the lowest that no other worker of the same command line holds. It is held by a lock on that byte
// of the slot file, which goes with the process: a worker that replaces another takes over its number.
func ownSlot(file string) (int, error) {
	slot.Lock()
	defer slot.Unlock()
	if slot.number > 0 {
		return slot.number, nil
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("find a slot: %w", err)
	}
	for n := 1; ; n++ {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(n), Len: 1}
		switch err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock); {
		case err == nil:
			slot.number, slot.lock = n, f
			return n, nil
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES):
			return 0, errors.Join(fmt.Errorf("lock slot %d of %s: %w", n, file, err), f.Close())
		}
	}
}
