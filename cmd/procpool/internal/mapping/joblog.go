package mapping

import (
	"bufio"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"iter"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// joblogHeader is the first line of a joblog. The columns are GNU parallel's.
const joblogHeader = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"

// joblog is the file in which a line is written for each item that has ended, after its output. Each line is one write, so that whatever
// is killed, the file ends with a whole line or, on a disk that is full or broken, with a piece of one that the next run cuts off.
type joblog struct {
	file    *os.File
	size    int64 // of the whole lines
	command func(*ended) string

	mu       sync.Mutex
	received map[int]received // bytes of stdout, by index
}

// received is how much a command has written to stdout so far.
type received struct {
	attempt int
	size    int64
}

// logged is what a joblog says about an item.
type logged struct {
	failed bool
	digest uint64 // of its command
	line   int
}

// resumed is a joblog as a run that goes on with it finds it.
type resumed struct {
	name string
	seed maphash.Seed
	jobs map[int]logged
}

// openJoblog begins a joblog, or goes on with one. The file stays locked: two runs would take turns in it.
func openJoblog(name string, goOn bool) (*joblog, *resumed, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, nil, fmt.Errorf("joblog: %w", err)
	}
	l := &joblog{file: f, received: map[int]received{}}
	old, err := l.begin(name, goOn)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return l, old, nil
}

// readJoblog is what a run that goes on with a joblog would find. One that is not there yet has nothing.
func readJoblog(name string) (*resumed, error) {
	old := newResumed(name)
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return old, nil
	}
	if err != nil {
		return nil, fmt.Errorf("joblog: %w", err)
	}
	defer f.Close()
	_, err = old.read(f, true)
	return old, err
}

func newResumed(name string) *resumed {
	return &resumed{name: name, seed: maphash.MakeSeed(), jobs: map[int]logged{}}
}

func (l *joblog) begin(name string, goOn bool) (*resumed, error) {
	// Unlike flock's, this lock goes with the process, even while a child that was being born when it was killed still has the file open.
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(l.file.Fd(), unix.F_SETLK, &lock); errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("joblog %s is in use by another run", name)
	}
	old := newResumed(name)
	size, err := old.read(l.file, goOn)
	switch {
	case err != nil:
		return nil, err
	case !goOn:
		old, size = nil, 0
	}
	if err := l.file.Truncate(size); err != nil && !errors.Is(err, unix.EINVAL) { // of a device or pipe there is nothing to cut off
		return nil, fmt.Errorf("joblog %s: %w", name, err)
	}
	l.size = size
	if size == 0 {
		return old, l.write(joblogHeader)
	}
	return old, nil
}

// read reads the lines of a joblog, or looks only whether it is one. size is that of the whole ones: a last one without an end was never written to its end.
func (r *resumed) read(f *os.File, all bool) (size int64, err error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0, err
	}
	in := bufio.NewReader(f)
	for number := 1; ; number++ {
		line, err := in.ReadString('\n')
		if number == 1 && !strings.HasPrefix(joblogHeader, line) {
			return 0, fmt.Errorf("%s is no joblog: its first line is another one; remove the file, or name another", r.name)
		}
		if errors.Is(err, io.EOF) || !all {
			return size, nil
		}
		if err != nil {
			return 0, fmt.Errorf("joblog %s: %w", r.name, err)
		}
		size += int64(len(line))
		if number > 1 {
			if err := r.add(number, strings.TrimSuffix(line, "\n")); err != nil {
				return 0, err
			}
		}
	}
}

func (r *resumed) add(number int, line string) error {
	columns := strings.SplitN(line, "\t", 9)
	if len(columns) < 9 {
		return fmt.Errorf("joblog %s, line %d: %d columns, want 9", r.name, number, len(columns))
	}
	seq, err := strconv.Atoi(columns[0])
	if err != nil || seq < 1 {
		return fmt.Errorf("joblog %s, line %d: %q is not the number of an item", r.name, number, columns[0])
	}
	r.jobs[seq] = logged{failed: columns[6] != "0" || columns[7] != "0", digest: maphash.String(r.seed, columns[8]), line: number}
	return nil
}

// done says whether an item need not run again. It is an error if the joblog knows it with another command.
func (r *resumed) done(seq int, command string, again bool) (bool, error) {
	job, ok := r.jobs[seq]
	if !ok {
		return false, nil
	}
	if job.digest != maphash.String(r.seed, command) {
		return false, fmt.Errorf("joblog %s belongs to another command or to other items: its line %d has another command for item %d than\n%s\n"+
			"--resume needs the same as before; to begin anew, leave it out", r.name, job.line, seq, command)
	}
	return !job.failed || !again, nil
}

func (l *joblog) piece(index, attempt, stream int, _ *job, data []byte) error {
	if stream != 1 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.received[index]
	if r.attempt != attempt {
		r = received{attempt: attempt}
	}
	r.size += int64(len(data))
	l.received[index] = r
	return nil
}

func (l *joblog) end(e *ended) error {
	l.mu.Lock()
	r := l.received[e.Index]
	delete(l.received, e.Index)
	l.mu.Unlock()
	size := int64(len(e.Result.Stdout))
	if r.attempt == e.Attempt {
		size += r.size
	}
	exit, signal := e.exitStatus()
	return l.write(fmt.Sprintf("%d\t:\t%.3f\t%10.3f\t%d\t%d\t%d\t%d\t%s\n",
		e.Job.Seq, seconds(e.Start), e.Result.Seconds, e.Job.sent(), size, exit, signal, l.command(e)))
}

// exitStatus is how GNU parallel notes the end of a command: its exit status and the number of the signal that ended it. -1: what ended it was not
// its own doing.
func (e *ended) exitStatus() (exit, signal int) {
	switch {
	case e.Outcome == "value":
		return 0, 0
	case e.Outcome == "timeout":
		return -1, int(unix.SIGTERM)
	case e.Outcome != "task_error":
		return -1, 0
	case e.Result.Signal != "":
		return 0, int(unix.SignalNum(e.Result.Signal))
	}
	return e.Result.ExitCode, 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// write adds a line. One that could be written in part only is taken back, so that a full disk leaves whole lines.
func (l *joblog) write(line string) error {
	n, err := l.file.WriteAt([]byte(line), l.size)
	if errors.Is(err, unix.ESPIPE) { // a pipe, or a terminal
		n, err = l.file.WriteString(line)
	}
	if err != nil {
		_ = l.file.Truncate(l.size) // should that fail, the next run cuts it off
		return fmt.Errorf("write to joblog: %w", err)
	}
	l.size += int64(n)
	return nil
}

func (l *joblog) close() error { return l.file.Close() }

// filter leaves out the jobs that are done. Until it has seen a job that the joblog knows, and with the same command, it holds back the others: nothing of
// another command is to be run, if that can be seen soon.
func (r *resumed) filter(all iter.Seq[*job], again bool, command func(*job) string, skip func(), fail func(error)) iter.Seq[*job] {
	const soon = 1000
	return func(yield func(*job) bool) {
		var held []*job
		known := len(r.jobs) == 0
		giveHeld := func() bool {
			for _, j := range held {
				if !yield(j) {
					return false
				}
			}
			held = nil
			return true
		}
		for j := range all {
			done, err := r.done(j.Seq, command(j), again)
			if err != nil {
				fail(err)
				return
			}
			_, logged := r.jobs[j.Seq]
			known = known || logged || len(held) >= soon || j.Block != nil
			if known && !giveHeld() {
				return
			}
			switch {
			case done:
				skip()
				j.release()
			case !known:
				held = append(held, j)
			case !yield(j):
				return
			}
		}
		giveHeld()
	}
}
