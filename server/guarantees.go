package server

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/workerproc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Describe tells who the daemon is and what can be relied upon where it runs.
func (ps *poolService) Describe(context.Context, *pb.DescribeRequest) (*pb.DescribeResponse, error) {
	s := ps.server
	return &pb.DescribeResponse{
		Version: version(), Pid: int64(os.Getpid()), Uid: ownUID(), Started: timestamppb.New(s.started), Socket: s.Addr(), Embedded: s.cfg.Embedded,
		Guarantees: s.guarantees(),
	}, nil
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// guarantees looks at what the system has, now. Each says what there is instead where something is missing.
func (s *Server) guarantees() []*pb.Guarantee {
	if s.cfg.InProcess {
		return []*pb.Guarantee{{Name: "isolation", Essential: true, How: "workers are goroutines of this process: for debuggers and unit tests only"}}
	}
	list := []*pb.Guarantee{
		s.privateSockets(), workerIdentity(), s.clientDeath(), lifeline(), s.guarded(), progressRecord(), reaping(), s.escapees(), s.oomDetection(), s.memoryLimit(), s.processLimit(),
	}
	if !s.cfg.Embedded {
		list = append(list, underSystemd())
	}
	return list
}

func (s *Server) privateSockets() *pb.Guarantee {
	g := &pb.Guarantee{Name: "private sockets", Essential: true}
	dir := filepath.Dir(s.workers.path)
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		g.How = err.Error()
	case info.Mode().Perm()&0o077 != 0:
		g.How = fmt.Sprintf("%s has mode %v", dir, info.Mode().Perm())
		g.Advice = "chmod 0700 " + dir
	default:
		g.Active, g.How = true, fmt.Sprintf("only uid %d and root reach the worker socket, in a directory of mode 0700", ownUID())
	}
	return g
}

func workerIdentity() *pb.Guarantee {
	strength := kernelIdentity()
	g := &pb.Guarantee{Name: "worker identity", Active: strength != byToken, Essential: true, How: strength}
	switch strength {
	case byPidfd:
		g.How += ": the kernel says that it is the process that was started"
	case byPid:
		g.How += ": the process id of the child that has not been reaped"
	default:
		g.How += ": this system does not say who is at the other end of a socket"
		g.Essential = runtime.GOOS == "linux" // elsewhere the private directory must do
	}
	return g
}

func (s *Server) clientDeath() *pb.Guarantee {
	g := &pb.Guarantee{Name: "client death", Active: true}
	switch {
	case s.cfg.Embedded:
		g.How = "the only client is this process"
	case hasPidfd():
		g.How = "by the end of the connection, and of the process by its pidfd"
	default:
		g.Active = false
		g.How = "by the end of the connection alone: a child of the client that holds its socket keeps its calls and pools alive"
		g.Advice = "Linux 5.4 has pidfds; a container may forbid them"
	}
	return g
}

func lifeline() *pb.Guarantee {
	return &pb.Guarantee{
		Name: "lifeline", Active: true, Essential: true,
		How: "a worker ends with its process group when the daemon is gone; a dead worker's group is killed before it is reaped",
	}
}

func (s *Server) guarded() *pb.Guarantee {
	g := &pb.Guarantee{Name: "guardian", Active: true}
	switch pid, err := s.guardian.State(); {
	case err != nil:
		g.Active, g.How = false, fmt.Sprintf("should the daemon be killed, workers that hang or are stopped live on: %v", err)
		g.Advice = "run the daemon as a Go program on Linux 5.4 or newer; or under systemd, which kills what is left of a service"
	case pid != 0:
		g.How = fmt.Sprintf("process %d ends workers that hang or are stopped, should the daemon be killed", pid)
	default:
		g.How = "it is started a moment after the first worker"
	}
	return g
}

func progressRecord() *pb.Guarantee {
	g := &pb.Guarantee{Name: "progress record", Active: true, How: "exactly the task that killed a worker is blamed, and results computed before it are kept"}
	if err := workerproc.Recordable(); err != nil {
		g.Active, g.How = false, fmt.Sprintf("a worker gets one task at a time, which is slower: %v", err)
		g.Advice = "Linux 3.17 has memfds; a container may forbid them"
	}
	return g
}

func reaping() *pb.Guarantee {
	g := &pb.Guarantee{Name: "reaping", Active: true, How: "every worker is reaped here, orphans of workers by the system's init"}
	if os.Getpid() == 1 {
		g.Active, g.How = false, "this daemon is process 1: orphans of workers become its children and stay as zombies"
		g.Advice = "put an init before it, such as tini (docker run --init)"
	}
	return g
}

func (s *Server) escapees() *pb.Guarantee {
	if s.cgroups != nil {
		return &pb.Guarantee{
			Name: "escaped children", Active: true,
			How: "killed with their worker, whatever session or group they have gone to: each worker has a cgroup of its own below " + s.cgroups.Dir(),
		}
	}
	return &pb.Guarantee{
		Name:   "escaped children",
		How:    fmt.Sprintf("a child that a worker puts into another session or group (setsid) is not killed with it: there are no cgroups for workers: %v", s.noCgroups),
		Advice: s.cgroupAdvice(),
	}
}

// cgroupAdvice says where cgroups for workers could come from, or their controllers.
func (s *Server) cgroupAdvice() string {
	if s.cgroups != nil {
		return "let the daemon be alone in a cgroup that has the controllers memory and pids: Delegate=memory pids; and where version 1 has them, boot without it " +
			"(systemd.unified_cgroup_hierarchy=1)"
	}
	if s.cfg.Embedded {
		return "run the program where it may divide its cgroup: systemd-run --scope -p Delegate=yes (with --user where that has the controllers)"
	}
	return "run procpoold as a systemd service with Delegate=memory pids, or name a cgroup for its workers: procpoold --cgroup=DIR"
}

func (s *Server) oomDetection() *pb.Guarantee {
	g := &pb.Guarantee{Name: "OOM detection", Active: true, How: "a worker that the kernel kills for memory is reported as such, with the most that it had"}
	if err := s.missing(workerproc.CgroupMemory); err != nil {
		g.Active, g.How = false, fmt.Sprintf("a worker that the kernel kills for memory is reported as killed by SIGKILL, without a guess: %v", err)
		g.Advice = "the kernel's log (dmesg, journalctl -k) has the process ids of those that it killed; or " + s.cgroupAdvice()
	}
	return g
}

func (s *Server) memoryLimit() *pb.Guarantee {
	g := &pb.Guarantee{Name: "memory limit", Active: true, How: "max_memory of a pool is kept by the kernel, for each worker with its children"}
	if err := s.missing(workerproc.CgroupMemory); err != nil {
		g.Active, g.How = false, fmt.Sprintf("max_memory of a pool is kept by looking once a second, so that a worker can have more for a moment: %v", err)
		g.Advice = s.cgroupAdvice()
	}
	return g
}

func (s *Server) processLimit() *pb.Guarantee {
	g := &pb.Guarantee{Name: "process limit", Active: true, How: "max_processes of a pool is kept by the kernel, for each worker with its children"}
	if err := s.missing(workerproc.CgroupPids); err != nil {
		g.Active, g.How = false, fmt.Sprintf("a pool with max_processes is refused; workers share the limits of the daemon: %v", err)
		g.Advice = s.cgroupAdvice()
	}
	return g
}

func underSystemd() *pb.Guarantee {
	g := &pb.Guarantee{Name: "systemd", How: "not started by systemd: nobody starts the daemon again", Advice: "start procpoold as a service"}
	if os.Getenv("SYSTEMD_EXEC_PID") != strconv.Itoa(os.Getpid()) { // since version 248; other variables are inherited by whoever a service starts
		return g
	}
	unit := ""
	if path, err := cgroupOf(os.Getpid()); err == nil {
		for part := range strings.SplitSeq(path, "/") {
			if strings.HasSuffix(part, ".service") {
				unit = part
			}
		}
	}
	g.Active, g.How, g.Advice = true, "started by systemd: "+cmp.Or(unit, "a unit"), ""
	return g
}
