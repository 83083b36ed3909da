package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Leaf is the cgroup of a worker. nil is one that does not exist: there is nothing in it, and nothing to be done.
type Leaf struct {
	tree *Tree
	dir  string
}

// lingering is how long the children of a worker may take to die of their kill. After that their cgroup stays until the daemon ends, or the next one begins.
const lingering = 10 * time.Second

// limit sets the limits. The kernel takes back what it can before it kills, and then all processes together: half a worker is of no use.
func (l *Leaf) limit(limits Limits) error {
	if limits.Memory > 0 {
		if err := l.tree.Missing(Memory); err != nil {
			return fmt.Errorf("limit the memory of a worker: %w", err)
		}
		if err := write(l.dir, "memory.max", strconv.FormatUint(limits.Memory, 10)); err != nil {
			return fmt.Errorf("limit the memory of a worker: %w", err)
		}
		if err := write(l.dir, "memory.oom.group", "1"); err != nil {
			return fmt.Errorf("limit the memory of a worker: %w", err)
		}
		if err := write(l.dir, "memory.swap.max", "0"); err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without swap has no such file
			return fmt.Errorf("limit the swap of a worker: %w", err)
		}
	}
	if limits.Processes > 0 {
		if err := l.tree.Missing(Pids); err != nil {
			return fmt.Errorf("limit the processes of a worker: %w", err)
		}
		if err := write(l.dir, "pids.max", strconv.FormatUint(uint64(limits.Processes), 10)); err != nil {
			return fmt.Errorf("limit the processes of a worker: %w", err)
		}
	}
	return nil
}

// Open opens the directory, for starting a process in it.
func (l *Leaf) Open() (*os.File, error) {
	if l == nil {
		return nil, nil //nolint:nilnil // there is none, and that is no error
	}
	return os.Open(l.dir)
}

// Kill kills all its processes, those below it as well. They die at once, but not before it returns.
func (l *Leaf) Kill() {
	if l != nil {
		_ = write(l.dir, "cgroup.kill", "1") // it has been removed, or there is nobody in it
	}
}

// Account is what the kernel has counted.
func (l *Leaf) Account() Account {
	if l == nil {
		return Account{}
	}
	events := l.read("memory.events")
	return Account{
		Peak: l.number("memory.peak"), OOMKills: int(value(events, "oom_kill")), AtLimit: int(value(events, "oom")),
		Refused: int(value(l.read("pids.events"), "max")),
	}
}

// InUse is how many bytes of memory its processes have, without files that the kernel has read for them and can forget at any time. False if that is not counted.
func (l *Leaf) InUse() (bytes int64, ok bool) {
	if l == nil || l.tree.Missing(Memory) != nil {
		return 0, false
	}
	stat := l.read("memory.stat")
	bytes = l.number("memory.current") - value(stat, "active_file") - value(stat, "inactive_file")
	return max(0, bytes), stat != ""
}

// Processes are those in it, without those below it.
func (l *Leaf) Processes() ([]int, error) {
	if l == nil {
		return nil, errNone
	}
	return processes(l.dir)
}

// Remove kills what is left in it and removes it, as soon as that is dead. It does not wait for that.
func (l *Leaf) Remove() {
	if l == nil || remove(l.dir) == nil {
		return
	}
	go func() { // ends after lingering at the latest; nobody waits for it: Tree.Close does the same if it comes first
		_ = raze(l.dir, lingering)
	}()
}

func (l *Leaf) read(file string) string {
	b, err := os.ReadFile(filepath.Join(l.dir, file))
	if err != nil {
		return ""
	}
	return string(b)
}

func (l *Leaf) number(file string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(l.read(file)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
