package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/server/internal/sched"
)

// Stats is what a daemon has done and does, in numbers: what a monitor asks for. Package server/metrics makes Prometheus metrics of it.
type Stats struct {
	Started time.Time
	Pools   []PoolStats // those that were made by name and have not ended, then OpenedPools
}

// OpenedPools is the name under which all pools are counted that live with their opener's stream, those that have ended too: each has a name and
// functions of its own, so that there is no end to them.
const OpenedPools = "(opened)"

// PoolStats is a pool in numbers; or all OpenedPools.
type PoolStats struct {
	Tally

	Name    string
	States  map[pb.PoolState]int   // pools in each
	Workers map[pb.WorkerState]int // workers in each
	Wanted  int                    // workers that should run tasks
	Calls   int                    // that have not ended
	Pending uint64                 // tasks without outcome…
	Queued  uint64                 // …and those of them that no worker holds

	Memory   uint64        // resident, of all workers
	CPU      time.Duration // of all workers, those that have ended too
	Measured bool          // Memory and CPU are known
}

func newPoolStats(name string) PoolStats {
	return PoolStats{Tally: newTally(), Name: name, States: make(map[pb.PoolState]int), Workers: make(map[pb.WorkerState]int), Measured: true}
}

// Stats asks every pool's owner. What it returns is the caller's own. Counts never fall, but for those of a named pool that has ended and was made anew.
func (s *Server) Stats(ctx context.Context) (*Stats, error) {
	s.statsMu.Lock() // one at a time, for cpuShown and openedCPU
	defer s.statsMu.Unlock()
	s.mu.Lock()
	pools := s.byName()
	opened := newPoolStats(OpenedPools)
	opened.add(&s.openedTally, true)
	s.mu.Unlock()
	opened.CPU = opened.DeadCPU

	all := &Stats{Started: s.started}
	anyOpened := opened.Starts > 0
	for _, p := range pools {
		if p.opened {
			anyOpened = true
			if err := p.stats(ctx, &opened); err != nil {
				return nil, err
			}
			continue
		}
		one := newPoolStats(p.name)
		if err := p.stats(ctx, &one); err != nil {
			return nil, err
		}
		if one.States[pb.PoolState_POOL_STATE_JOINED] == 0 {
			all.Pools = append(all.Pools, one)
		}
	}
	s.openedCPU = max(s.openedCPU, opened.CPU)
	opened.CPU = s.openedCPU
	if anyOpened {
		all.Pools = append(all.Pools, opened)
	}
	return all, nil
}

// stats adds a pool's numbers to sum.
func (p *pool) stats(ctx context.Context, sum *PoolStats) error {
	var procs []process
	cpu := time.Duration(0)
	err := p.ask(ctx, func(time.Time) {
		i := p.core.Info()
		sum.States[pb.PoolState(i.State)]++
		sum.Wanted += i.Workers
		sum.Calls += i.Calls
		sum.Pending += i.Pending
		sum.Queued += i.Queued
		for id, w := range p.workers {
			sum.Workers[p.workerState(id)]++
			if w.proc != nil {
				procs = append(procs, w.proc)
			}
		}
		p.count(sum)
		cpu = p.tally.DeadCPU
	})
	if errors.Is(err, errPoolEnded) {
		<-p.joined // its owner has returned, or is about to: the tally is nobody's
		sum.States[pb.PoolState_POOL_STATE_JOINED]++
		p.count(sum)
		sum.CPU += p.tally.DeadCPU
		return nil
	}
	if err != nil {
		return err
	}
	for _, proc := range procs {
		u, ok := resourcesOf(proc)
		sum.Measured = sum.Measured && (ok || u.ended)
		sum.Memory += u.memory
		cpu += u.cpu
	}
	// A worker that has been reaped since the owner was asked is in neither sum.
	p.cpuShown = max(p.cpuShown, cpu)
	sum.CPU += p.cpuShown
	return nil
}

// keepTally adds the tally of an opened pool that has ended to those of its like. The caller holds mu.
func (s *Server) keepTally(p *pool) {
	var last PoolStats
	last.Tally = newTally()
	p.count(&last)
	s.openedTally.add(&last.Tally, true)
}

// count adds the tally, and what others than the owner count.
func (p *pool) count(sum *PoolStats) {
	sum.add(&p.tally, p.opened)
	sum.Lines += p.lines.Load()
	sum.LostLines += p.lostLines.Load()
}

// workerState is what a worker is doing. It is called by the owner.
func (p *pool) workerState(id sched.WorkerID) pb.WorkerState {
	if i, ok := p.core.Worker(id); ok {
		return pb.WorkerState(i.Activity)
	}
	return pb.WorkerState_WORKER_STATE_STOPPING // the core does not count on it any more
}

// resources is what a process uses.
type resources struct {
	memory uint64        // bytes, resident
	cpu    time.Duration // with its children that it has waited for
	ended  bool          // it has been reaped, so that it uses nothing
}

// resourcesOf looks at a worker's process. False if the system does not tell. It is not for the owner's goroutine: it reads files.
func resourcesOf(proc process) (u resources, ok bool) {
	if _, isProcess := proc.(*inProcess); isProcess {
		return u, false
	}
	held := proc.Hold(func(pid, _ int) { u, ok = resourcesOfPid(pid) })
	u.ended = !held
	return u, ok
}

// tick is the unit of CPU time in /proc, on every Linux that Go runs on.
const tick = time.Second / 100

// resourcesOfPid reads /proc/PID/stat. The name of the program in it may have any characters.
func resourcesOfPid(pid int) (u resources, ok bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, false
	}
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(f) < 22 {
		return u, false
	}
	for _, field := range f[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return u, false
		}
		u.cpu += time.Duration(n) * tick
	}
	pages, err := strconv.ParseUint(string(f[21]), 10, 64)
	u.memory = pages * uint64(os.Getpagesize())
	return u, err == nil
}
