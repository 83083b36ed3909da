package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Tree is the cgroup of a daemon's workers.
type Tree struct {
	dir     string           // of the workers' leaves
	lock    *os.File         // on it, as long as the daemon lives
	missing map[string]error // why a controller is not there
}

// prefix is how the cgroups of a daemon's workers begin. A number follows. What has another name is not ours.
const prefix = "procpool-"

// ours tells whether a cgroup is that of a daemon's workers. (One of systemd's is not: it has a name like procpool-1.slice.)
func ours(name string) bool {
	number, ok := strings.CutPrefix(name, prefix)
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

// patience is how long the processes of a killed cgroup may take to die, before it is left where it is.
const patience = time.Second

// Open finds the cgroup that this process may divide (Auto), or takes the one at the path where, which is made if it is not there. It removes what daemons that were killed have
// left there, and makes a place for the workers of this one. Nothing has been changed when the error says that there is no such cgroup.
func Open(where string) (*Tree, error) {
	base := where
	if where == Auto {
		var err error
		if base, err = find(); err != nil {
			return nil, err
		}
	} else if err := named(where); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(base, "cgroup.kill")); err != nil {
		return nil, fmt.Errorf("%s has no cgroup.kill (Linux 5.14)", base)
	}
	sweep(base)
	t := &Tree{missing: make(map[string]error)}
	if err := t.settle(base); err != nil {
		return nil, err
	}
	if err := makeRoom(base); err != nil {
		for _, c := range []string{Memory, Pids} {
			t.missing[c] = err
		}
		return t, nil
	}
	for _, c := range []string{Memory, Pids} {
		for _, dir := range []string{base, t.dir} {
			if err := enable(dir, c); err != nil {
				t.missing[c] = err
				break
			}
		}
	}
	return t, nil
}

// named makes sure of a cgroup that somebody has named.
func named(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("%q is not an absolute path", dir)
	}
	if err := isCgroup(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := isCgroup(dir); err != nil {
		return err
	}
	if isRoot(dir) {
		return fmt.Errorf("%s is the root of the hierarchy; name a cgroup below it", dir)
	}
	return nil
}

// settle makes the cgroup of the workers, and locks it.
func (t *Tree) settle(base string) error {
	for range 10 {
		dir, err := os.MkdirTemp(base, prefix)
		if err != nil {
			return fmt.Errorf("make a cgroup for the workers: %w", err)
		}
		if lock := tryLock(dir); lock != nil {
			if _, err := os.Stat(dir); err == nil {
				t.dir, t.lock = dir, lock
				return nil
			}
			lock.Close()
		}
		// Somebody has taken it for one of a daemon that was killed, in the moment before the lock.
	}
	return fmt.Errorf("others remove what is made in %s", base)
}

// tryLock locks a directory until the file is closed, or this process ends. nil: somebody else has locked it, or it is gone.
func tryLock(dir string) *os.File {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil
	}
	return f
}

// sweep ends and removes what daemons that were killed have left in base.
func sweep(base string) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !ours(e.Name()) {
			continue
		}
		dir := filepath.Join(base, e.Name())
		if lock := tryLock(dir); lock != nil {
			_ = raze(dir, patience) // what a process in the kernel's hands keeps, the next one removes
			lock.Close()
		}
	}
}

// makeRoom moves this process out of base, if it is there, as only a cgroup without processes can hand controllers on. Other processes are not ours to move.
func makeRoom(base string) error {
	pids, err := processes(base)
	if err != nil {
		return err
	}
	if others := slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return pid == os.Getpid() }); len(others) > 0 {
		return fmt.Errorf("there are other processes in %s, so that it cannot hand controllers on: %v", base, others)
	}
	if len(pids) == 0 {
		return nil
	}
	leaf := filepath.Join(base, supervisor)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return write(leaf, "cgroup.procs", strconv.Itoa(os.Getpid()))
}

// enable hands a controller on to the cgroups below dir.
func enable(dir, controller string) error {
	there, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	if !slices.Contains(strings.Fields(string(there)), controller) {
		return fmt.Errorf("the controller %s is not in %s/cgroup.controllers", controller, dir)
	}
	return write(dir, "cgroup.subtree_control", "+"+controller)
}

// Dir is the directory of the cgroup that has all workers.
func (t *Tree) Dir() string { return t.dir }

// Missing says why a controller is not there; nil if it is.
func (t *Tree) Missing(controller string) error { return t.missing[controller] }

// KillFile is open for writing "1", which kills all workers with all their children.
func (t *Tree) KillFile() (*os.File, error) {
	return os.OpenFile(filepath.Join(t.dir, "cgroup.kill"), os.O_WRONLY, 0)
}

// Close kills what is left of the workers and removes their cgroups. All workers must have been reaped.
func (t *Tree) Close() error {
	defer t.lock.Close()
	return raze(t.dir, patience)
}

// Leaf makes the cgroup of a worker.
func (t *Tree) Leaf(name string, limits Limits) (*Leaf, error) {
	l := &Leaf{tree: t, dir: filepath.Join(t.dir, name)}
	err := os.Mkdir(l.dir, 0o755)
	if errors.Is(err, fs.ErrExist) { // that of a worker of the same name, of which a process still dies
		l.dir, err = os.MkdirTemp(t.dir, name+".")
	}
	if err != nil {
		return nil, fmt.Errorf("make a cgroup: %w", err)
	}
	if err := l.limit(limits); err != nil {
		l.Remove()
		return nil, err
	}
	return l, nil
}

// raze kills all processes in dir and below it, and removes it when they are dead.
func raze(dir string, patience time.Duration) error {
	if err := remove(dir); err == nil {
		return nil
	}
	if err := write(dir, "cgroup.kill", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := deserted(dir, patience); err != nil {
		return err
	}
	return remove(dir)
}

// deserted waits until there is no process in dir and below it.
func deserted(dir string, patience time.Duration) error {
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for end := time.Now().Add(patience); ; {
		b := make([]byte, 256)
		n, err := f.ReadAt(b, 0)
		if n == 0 && err != nil {
			return err
		}
		if value(string(b[:n]), "populated") == 0 {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("processes in %s do not die", dir)
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, max(1, int(left.Milliseconds()))); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// remove removes a cgroup with those below it, if there is no process in them.
func remove(dir string) error {
	err := syscall.Rmdir(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	entries, rerr := os.ReadDir(dir)
	if rerr != nil {
		return rerr
	}
	below := false // a worker may have made some
	for _, e := range entries {
		if e.IsDir() {
			below = true
			if err := remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if below {
		err = syscall.Rmdir(dir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

// processes are those in dir, without those below it. 0 stands for one that cannot be seen from here.
func processes(dir string) (pids []int, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	for _, f := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("%s/cgroup.procs: %w", dir, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func write(dir, file, text string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0) // not to be made if it is not there
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// value is a number from a file of lines such as "oom_kill 3"; 0 if it is not there.
func value(text, key string) int64 {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == key {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}
