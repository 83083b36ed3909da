package workerproc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/procpool/procpool/workerproc/internal/cgroup"
	"github.com/procpool/procpool/workerproc/internal/guard"
)

// startIn starts a process in a cgroup: it is there from its first moment, so that no child of it can be elsewhere.
func startIn(leaf *cgroup.Leaf, path string, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	dir, err := leaf.Open()
	if err != nil {
		return nil, err
	}
	if dir != nil {
		defer dir.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
	}
	return os.StartProcess(path, argv, attr)
}

// tryCgroup starts a process in a cgroup. It is this program as a guardian that has nothing to guard, which ends at once. A program that cannot be a guardian is taken at its
// word.
func tryCgroup(t *Cgroups) error {
	if guardable() != nil {
		return nil
	}
	leaf, err := t.Leaf("try", Limits{})
	if err != nil {
		return err
	}
	defer leaf.Remove()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	proc, err := startIn(leaf, "/proc/self/exe", []string{"procpool-cgroup"}, &os.ProcAttr{
		Dir: "/", Env: []string{guard.Mark + "=" + guard.MarkValue, "GOMAXPROCS=1"}, Files: []*os.File{null, null, null, null}, Sys: &syscall.SysProcAttr{},
	})
	if err != nil {
		return fmt.Errorf("start a process in %s: %w", t.Dir(), err)
	}
	_, err = proc.Wait() // whatever its status is
	return err
}

// residentMemory is how many bytes of memory a process has; 0 if that is not known, because it has ended for example.
func residentMemory(pid int) int64 {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(statm))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// privateMemory is the same without files; what n processes share counts as an nth for each. If that may not be seen, all counts.
func privateMemory(pid int) int64 {
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return residentMemory(pid)
	}
	sum, found := int64(0), false
	for line := range strings.Lines(string(rollup)) {
		if f := strings.Fields(line); len(f) == 3 && (f[0] == "Pss_Anon:" || f[0] == "Pss_Shmem:") {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				sum, found = sum+n<<10, true
			}
		}
	}
	if !found { // before Linux 5.9
		return residentMemory(pid)
	}
	return sum
}

// family is a process with its children, theirs, and so on. One whose parent has ended is another's child by then.
func family(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all) && len(all) < 4096; i++ {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		if err != nil {
			continue
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			for _, f := range strings.Fields(string(b)) {
				if child, err := strconv.Atoi(f); err == nil {
					all = append(all, child)
				}
			}
		}
	}
	return all
}
