package server

import (
	"fmt"
	"net"
	"os"
	"sync"

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
