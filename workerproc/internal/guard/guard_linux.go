package guard

import (
	"errors"
	"syscall"
	"unsafe"
)

// A process that was started as a guardian never gets further than this. That is before os, fmt and whatever needs those has been initialised, as this
// package needs little more than syscall and the linker orders packages by need, then by name. So the guardian runs next to nothing of the program it is made of, and
// its memory is little more than that of the Go runtime.
func init() {
	if v, _ := syscall.Getenv(Mark); v == MarkValue {
		syscall.Exit(stand())
	}
}

const (
	sysPidfdSendSignal = 424     // on every architecture but MIPS, where workers have their lifeline only
	wholeGroup         = 1 << 2  // PIDFD_SIGNAL_PROCESS_GROUP (Linux 6.9)
	prSetName          = 15      // PR_SET_NAME
	sigIgnore          = 1       // SIG_IGN
	pollIn             = 0x1     // POLLIN
	cloexec            = 1 << 30 // MSG_CMSG_CLOEXEC
	sysCloseRange      = 436     // likewise
)

// pollFD is struct pollfd.
type pollFD struct {
	fd      int32
	events  int16
	revents int16
}

// guarded is a worker.
type guarded struct {
	id    uint32
	pid   int
	pidfd int
}

// stand guards until the daemon is gone, and returns the exit status.
func stand() int {
	if kind, err := syscall.GetsockoptInt(FD, syscall.SOL_SOCKET, syscall.SO_TYPE); err != nil || kind != syscall.SOCK_SEQPACKET {
		return 1 // the mark was set by hand
	}
	// What the daemon has inherited from its parent, and this process from it: somebody may wait for its end. The runtime has none open yet, as GOMAXPROCS is
	// given.
	_, _, _ = syscall.RawSyscall(sysCloseRange, FD+1, 1<<32-1, 0)
	name := [16]byte{}
	copy(name[:15], "procpool-guard")
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&name)), 0)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE} {
		action := [8]uintptr{sigIgnore} // struct sigaction: the handler is first, and the rest may be zero
		_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	}
	var limit syscall.Rlimit // a descriptor for each worker
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) // then there is room for fewer
	}
	_, _ = syscall.Write(FD, []byte(Ready)) // if the daemon has gone already, what it has said of its workers is there all the same
	var workers []guarded
	daemon := -1  // pidfd
	cgroups := -1 // kills all workers, if there are cgroups
	for {
		fds := [2]pollFD{{fd: FD, events: pollIn}, {fd: int32(daemon), events: pollIn}} // a negative one is not looked at
		_, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), 2, 0, 0, 0, 0)
		if errno != 0 {
			continue // a signal
		}
		over := fds[1].revents != 0 // also if a child of the daemon has the socket and keeps it open
		for {
			m, fd, err := receive()
			if errors.Is(err, syscall.EAGAIN) {
				break
			}
			if err != nil {
				over = true
				break
			}
			switch m.op {
			case OpDaemon:
				daemon = fd
			case OpCgroup:
				cgroups = fd
			case OpGuard:
				if fd >= 0 {
					workers = append(workers, guarded{m.id, m.pid, fd})
				}
			case OpForget:
				for i := range workers {
					if workers[i].id == m.id {
						syscall.Close(workers[i].pidfd)
						workers[i] = workers[len(workers)-1]
						workers = workers[:len(workers)-1]
						break
					}
				}
			}
		}
		if over {
			for i := range workers {
				workers[i].kill()
			}
			if cgroups >= 0 {
				_, _ = syscall.Write(cgroups, []byte("1")) // nobody is left to tell
			}
			return 0
		}
	}
}

type message struct {
	op  byte
	id  uint32
	pid int
}

// receive takes a message, if there is one, and the descriptor that came with it, or -1.
func receive() (m message, fd int, err error) {
	var b [Size]byte
	var oob [64]byte
	n, oobn, _, _, err := syscall.Recvmsg(FD, b[:], oob[:], syscall.MSG_DONTWAIT|cloexec)
	if err != nil {
		return m, -1, err
	}
	if n < Size {
		return m, -1, syscall.EPIPE // the end
	}
	number := func(b []byte) uint32 { return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24 }
	m = message{b[0], number(b[4:]), int(number(b[8:]))}
	fd = -1
	if list, err := syscall.ParseSocketControlMessage(oob[:oobn]); err == nil && len(list) == 1 {
		if fds, err := syscall.ParseUnixRights(&list[0]); err == nil && len(fds) == 1 {
			fd = fds[0]
		}
	}
	return m, fd, nil
}

// kill ends a worker and its group, whatever state they are in. The daemon is gone, so anybody may reap the worker at any moment, and its number may then be
// another process's: a pidfd cannot miss.
func (w guarded) kill() {
	if signal(w.pidfd, syscall.SIGKILL, wholeGroup) == syscall.EINVAL {
		// An older kernel. The group's number is its own while the worker has not been reaped, which then holds for at least the next moment.
		if signal(w.pidfd, 0, 0) == 0 {
			_ = syscall.Kill(-w.pid, syscall.SIGKILL) // nobody is left to tell
		}
	}
	_ = signal(w.pidfd, syscall.SIGKILL, 0) // it may have moved to another group
}

func signal(pidfd int, sig syscall.Signal, flags uintptr) syscall.Errno {
	_, _, errno := syscall.Syscall6(sysPidfdSendSignal, uintptr(pidfd), uintptr(sig), 0, flags, 0, 0)
	return errno
}
