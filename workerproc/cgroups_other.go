//go:build !linux

package workerproc

import (
	"os"

	"github.com/procpool/procpool/workerproc/internal/cgroup"
)

func startIn(_ *cgroup.Leaf, path string, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	return os.StartProcess(path, argv, attr)
}

func tryCgroup(*Cgroups) error { return nil }

func residentMemory(int) int64 { return 0 }

func privateMemory(int) int64 { return 0 }

func family(pid int) []int { return []int{pid} }
