package workerproc

import "github.com/procpool/procpool/workerproc/internal/cgroup"

// Cgroups are the cgroups of a daemon's workers; see [OpenCgroups]. Close removes them.
type Cgroups = cgroup.Tree

// Limits are those of a worker with all its children.
type Limits = cgroup.Limits

// Account is what the kernel has counted of a worker with all its children. What it does not count is 0.
type Account = cgroup.Account

// Where cgroups come from, and the controllers that limits need.
const (
	CgroupAuto   = cgroup.Auto   // the cgroup of this process, if it has been delegated to it
	CgroupMemory = cgroup.Memory // for Limits.Memory; see Cgroups.Missing
	CgroupPids   = cgroup.Pids   // for Limits.Processes
)

// OpenCgroups makes cgroups for the workers of this process below its own one (CgroupAuto), or below the one whose directory is given. An error says why there are none.
//
// That a process can be started in one is tried once: rules, rights and what a container forbids have too many parts to be foretold.
func OpenCgroups(where string) (*Cgroups, error) {
	t, err := cgroup.Open(where)
	if err != nil {
		return nil, err
	}
	if err := tryCgroup(t); err != nil {
		_ = t.Close() // it is of no use anyway
		return nil, err
	}
	return t, nil
}

// Memory is how many bytes of memory the process has. In a cgroup that counts it that is all of its processes, without files that the kernel can forget; else
// its own resident memory. 0 if it is not known.
func (p *Process) Memory() int64 {
	if n, ok := p.leaf.InUse(); ok {
		return n
	}
	return residentMemory(p.proc.Pid)
}

// Outgrown tells whether the process and its children have more bytes of memory than limit, files that the kernel can forget not counted, and how many. It is for a limit
// that no cgroup keeps.
func (p *Process) Outgrown(limit int64) (bytes int64, yes bool) {
	p.Hold(func(pid, _ int) {
		pids, err := p.leaf.Processes()
		if err != nil {
			pids = family(pid)
		}
		for _, pid := range pids {
			bytes += residentMemory(pid)
		}
		if bytes <= limit {
			return
		}
		bytes = 0 // that was a cheap look, which counts what they share for each of them
		for _, pid := range pids {
			bytes += privateMemory(pid)
		}
		yes = bytes > limit
	})
	return bytes, yes
}
