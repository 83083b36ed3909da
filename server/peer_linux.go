package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// credentialsOf asks the kernel who connected.
func credentialsOf(conn *net.UnixConn) (peerInfo, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return peerInfo{}, err
	}
	var cred *unix.Ucred
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return peerInfo{}, err
	}
	if optErr != nil {
		return peerInfo{}, fmt.Errorf("ask for the peer's credentials: %w", optErr)
	}
	return peerInfo{uid: cred.Uid, gid: cred.Gid, pid: cred.Pid, known: true}, nil
}

// groupsOf asks the kernel for the supplementary groups of who connected (Linux 4.13).
func groupsOf(conn *net.UnixConn) ([]uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	groups := make([]uint32, 64)
	var size uint32 // in bytes
	var errno unix.Errno
	ask := func(fd uintptr) {
		size = uint32(4 * len(groups))
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
	}
	err = raw.Control(ask)
	if err == nil && errno == unix.ERANGE { // size is what it takes
		groups = make([]uint32, size/4)
		err = raw.Control(ask)
	}
	if err != nil {
		return nil, err
	}
	if errno != 0 {
		return nil, fmt.Errorf("ask for the peer's groups: %w", errno)
	}
	return groups[:size/4], nil
}

// pidfdOf is a descriptor for the process that connected. SO_PEERPIDFD (Linux 6.5) names exactly that process; before, its
// number could have been given to another one since.
func pidfdOf(conn *net.UnixConn, pid int32) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, optErr := -1, error(nil)
	if err := raw.Control(func(s uintptr) {
		fd, optErr = unix.GetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	}); err != nil {
		return -1, err
	}
	if optErr == nil {
		unix.CloseOnExec(fd)
		return fd, nil
	}
	return unix.PidfdOpen(int(pid), 0)
}

// pidfsMagic is the type of the file system of pidfds (Linux 6.9). Its inodes are never used for two processes; before, all pidfds had the same one.
const pidfsMagic = 0x50494446

// pidfsInode is what the kernel calls the process of a pidfd; 0 if this kernel has no name for it.
func pidfsInode(pidfd int) uint64 {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if pidfd < 0 || unix.Fstatfs(pidfd, &fs) != nil || fs.Type != pidfsMagic || unix.Fstat(pidfd, &st) != nil {
		return 0
	}
	return st.Ino
}

// peerInode is what the kernel calls the process that connected; 0 if it does not say.
func peerInode(conn *net.UnixConn) uint64 {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	inode := uint64(0)
	_ = raw.Control(func(s uintptr) { // else it stays 0
		if fd, err := unix.GetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_PEERPIDFD); err == nil {
			inode = pidfsInode(fd)
			unix.Close(fd)
		}
	})
	return inode
}

// kernelIdentity is how surely the kernel can tell who is at the other end of a socket.
func kernelIdentity() string {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return byPid
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	fd, err := unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		return byPid
	}
	defer unix.Close(fd)
	if pidfsInode(fd) == 0 {
		return byPid
	}
	return byPidfd
}

func hasPidfd() bool {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	return err == nil && unix.Close(fd) == nil
}

// sameGroup tells whether the peer is in the process group that the un-reaped process leader leads.
func sameGroup(peer peerInfo, leader int) bool {
	return whilePeer(peer, func() bool {
		group, err := unix.Getpgid(int(peer.pid))
		return err == nil && group == leader
	})
}

// sameCgroup says why the peer is not in the cgroup of the un-reaped process child, or in one below it.
func sameCgroup(peer peerInfo, child int) error {
	own, err := cgroupOf(os.Getpid())
	if err != nil {
		return err
	}
	there, err := cgroupOf(child)
	if err != nil {
		return err
	}
	if there == own {
		return fmt.Errorf("the process that was started is in the daemon's own cgroup %s, so that this proves nothing; start it by what makes one for it (systemd-run --scope), or run the daemon where it can make them (procpool doctor)", own)
	}
	if !whilePeer(peer, func() bool {
		here, err := cgroupOf(int(peer.pid))
		return err == nil && (here == there || strings.HasPrefix(here, strings.TrimSuffix(there, "/")+"/"))
	}) {
		return fmt.Errorf("the cgroup of the process that was started is %s, and the other one is not in it", there)
	}
	return nil
}

// whilePeer reports what f finds out about the process with the peer's number, if that still is the peer.
func whilePeer(peer peerInfo, f func() bool) bool {
	fd, err := unix.PidfdOpen(int(peer.pid), 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if inode := pidfsInode(fd); inode != peer.inode {
		return false
	}
	return f() && !exited(fd)
}

// cgroupOf is the cgroup (version 2) of a process, as the daemon sees it.
func cgroupOf(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(path, "\n"), nil
		}
	}
	return "", errors.New("this system has no cgroups of version 2")
}

// watchedConn is a connection that is closed when its peer's process has ended.
type watchedConn struct {
	*net.UnixConn
	pidfd *os.File
	once  sync.Once
}

// watchPeer closes conn when the process at its other end has ended. Where the kernel has no pidfd the end of the stream must do.
func watchPeer(conn *net.UnixConn, info peerInfo) net.Conn {
	if int(info.pid) == os.Getpid() || info.pid <= 0 {
		return conn
	}
	fd, err := pidfdOf(conn, info.pid)
	if err != nil {
		return conn
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return conn
	}
	w := &watchedConn{UnixConn: conn, pidfd: os.NewFile(uintptr(fd), "pidfd")}
	raw, err := w.pidfd.SyscallConn()
	if err != nil {
		w.pidfd.Close()
		return conn
	}
	go func() { // ends when the peer ends, or when Close closes the pidfd
		if raw.Read(func(fd uintptr) bool { return exited(int(fd)) }) == nil {
			w.Close()
		}
	}()
	return w
}

// exited tells whether the process of a pidfd has ended.
func exited(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0
}

func (w *watchedConn) Close() (err error) {
	w.once.Do(func() {
		err = w.UnixConn.Close()
		w.pidfd.Close()
	})
	return err
}
