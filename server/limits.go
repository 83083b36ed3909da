package server

import (
	"context"
	"fmt"
	"strings"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/workerproc"
)

// Limits of workers: who keeps them here, and the watch over memory where it is the daemon.

// cgroupOff is the Config.Cgroup of who wants none.
const cgroupOff = "off"

// openCgroups makes cgroups for the workers, if this process may. It is an error only if somebody has named a place for them.
func (s *Server) openCgroups() error {
	if s.cfg.InProcess {
		return nil
	}
	if s.cfg.Cgroup == cgroupOff {
		s.noCgroups = fmt.Errorf("this daemon was told to make none (cgroup = %s)", cgroupOff)
		return nil
	}
	s.cgroups, s.noCgroups = workerproc.OpenCgroups(s.cfg.Cgroup)
	switch {
	case s.noCgroups == nil:
		s.cfg.Logger.Info("each worker has a cgroup of its own", "below", s.cgroups.Dir())
	case s.cfg.Cgroup != workerproc.CgroupAuto:
		return fmt.Errorf("cgroup: %w", s.noCgroups)
	default:
		s.cfg.Logger.Debug("workers have no cgroups of their own", "reason", s.noCgroups)
	}
	return nil
}

func (s *Server) closeCgroups() {
	if s.cgroups == nil {
		return
	}
	if err := s.cgroups.Close(); err != nil {
		s.cfg.Logger.Warn("cgroups of workers stay behind", "reason", err)
	}
}

// missing says why workers have no cgroup with a controller; nil if they have.
func (s *Server) missing(controller string) error {
	if s.cgroups == nil {
		return s.noCgroups
	}
	return s.cgroups.Missing(controller)
}

// checkLimits refuses limits that nobody would keep here.
func (s *Server) checkLimits(spec *pb.PoolSpec) error {
	switch {
	case s.cfg.InProcess:
		return checkInProcess(spec)
	case spec.MaxProcesses == 0:
		return nil
	}
	if err := s.missing(workerproc.CgroupPids); err != nil {
		return refuse(pb.Reason_REASON_UNSUPPORTED, "max_processes cannot be kept here: %v; create the pool without it, or %s (docs/cgroups.md)", err, s.cgroupAdvice()).of(spec.Name)
	}
	return nil
}

// checkInProcess refuses limits of what goroutines do not have.
func checkInProcess(spec *pb.PoolSpec) error {
	var names []string
	for _, l := range []struct {
		name  string
		given bool
	}{{"drain_memory", spec.DrainMemory > 0}, {"max_memory", spec.MaxMemory > 0}, {"max_processes", spec.MaxProcesses > 0}} {
		if l.given {
			names = append(names, l.name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return refuse(pb.Reason_REASON_UNSUPPORTED, "%s cannot be kept: the workers of an inline pool are goroutines of this process, and have no memory or processes of their own; open it without",
		strings.Join(names, " and ")).of(spec.Name)
}

// limits are those that the cgroup of a worker keeps.
func (s *Server) limits(spec *pb.PoolSpec) (l workerproc.Limits) {
	if s.missing(workerproc.CgroupMemory) == nil {
		l.Memory = spec.MaxMemory
	}
	l.Processes = spec.MaxProcesses
	return l
}

// memoryInterval is how often the memory of workers is looked at.
const memoryInterval = time.Second

// watchesMemory tells whether somebody must look at the memory of workers.
func (p *pool) watchesMemory() bool {
	return (p.spec.DrainMemory > 0 || p.spec.MaxMemory > 0) && !p.server.cfg.InProcess
}

// watchMemory tells the core how much memory the workers have, and which have too much. It ends with the pool.
func (p *pool) watchMemory() {
	limit := int64(p.spec.MaxMemory)
	if p.server.missing(workerproc.CgroupMemory) == nil {
		limit = 0 // the kernel keeps it
	}
	tick := time.NewTicker(memoryInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.joined:
			return
		}
		type look struct {
			w        *worker
			proc     process
			bytes    int64
			family   int64 // with children
			outgrown bool
		}
		var looks []look
		if p.ask(context.Background(), func(time.Time) {
			for _, w := range p.workers {
				if w.proc != nil {
					looks = append(looks, look{w: w, proc: w.proc})
				}
			}
		}) != nil {
			return
		}
		for i := range looks { // not on the owner's time
			l := &looks[i]
			l.bytes = l.proc.Memory()
			if limit > 0 {
				l.family, l.outgrown = l.proc.Outgrown(limit)
			}
		}
		p.post(func(now time.Time) {
			for _, l := range looks {
				l.w.memory, l.w.peak = l.bytes, max(l.w.peak, l.family)
				p.core.Memory(now, l.w.id, l.bytes)
				if l.outgrown {
					p.core.Outgrew(now, l.w.id)
				}
			}
		})
	}
}

// outOfMemory says in one line how a worker that wanted too much memory ended.
func (w *worker) outOfMemory(atLimit bool, peak int64) string {
	s := "out of memory: "
	if limit := w.pool.spec.MaxMemory; limit > 0 && atLimit {
		s += fmt.Sprintf("limit %s, peak %s", size(int64(limit)), size(peak))
	} else {
		s += fmt.Sprintf("the system or the daemon's own limit had no more for it, peak %s", size(peak))
	}
	return s
}

// size is bytes for a person.
func size(bytes int64) string {
	switch {
	case bytes <= 0:
		return "not known"
	case bytes < 10<<20:
		return fmt.Sprintf("%d KiB", bytes>>10)
	default:
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
}
