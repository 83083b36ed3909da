package client

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
)

// listenerOf asks the kernel who listens at the other end of conn: for a Unix socket, the process that has called listen(2).
func listenerOf(conn net.Conn) (l listener) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return l
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return l
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			l.pid = int(cred.Pid)
		}
	})
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", l.pid)); err == nil {
		l.name = strings.TrimSpace(string(name))
	}
	return l
}
