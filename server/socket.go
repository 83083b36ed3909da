package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// maxPath is the longest path a Unix socket can have: 108 bytes with the final zero (unix(7)).
const maxPath = 107

var errServed = errors.New("another procpoold serves it already")

// socket is a Unix socket that this process has bound, with the lock that says so.
type socket struct {
	*net.UnixListener
	path string
	lock *os.File
}

// listen binds a Unix socket at path. A lock file beside it decides who owns the path, so that a socket left behind by a dead
// process is replaced and one of a living process is not. The lock goes with its process, however that ends. group is whose group the socket is; -1:
// the process's own.
func listen(path string, mode os.FileMode, group int) (*socket, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("listen on %s: the path has %d bytes, a Unix socket's at most %d; choose a shorter directory", path, len(path), maxPath)
	}
	lock, err := flock(path + ".lock")
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("listen on %s: %w", path, errServed)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := removeStale(path); err != nil {
		lock.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// Bound under another name and renamed when its mode is right, so that there is no moment in which anybody may connect.
	early := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%d", os.Getpid()))
	os.Remove(early)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: early, Net: "unix"})
	if err == nil {
		l.SetUnlinkOnClose(false)
		if group >= 0 { // a service that may not chown need not
			err = os.Chown(early, -1, group)
		}
		err = errors.Join(err, os.Chmod(early, mode), os.Rename(early, path))
		if err != nil {
			l.Close()
			os.Remove(early)
		}
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &socket{UnixListener: l, path: path, lock: lock}, nil
}

// removeStale removes the socket of a dead process. It touches nothing but a socket of our own.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file of another kind; remove it or choose another path")
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Getuid() {
		return fmt.Errorf("there is a socket of another user (uid %d); remove it or choose another path", st.Uid)
	}
	return os.Remove(path)
}

// remove takes the socket and its lock out of the file system.
func (s *socket) remove() {
	os.Remove(s.path)
	os.Remove(s.path + ".lock")
	s.lock.Close()
}

// flock takes the lock file at path, without waiting.
func flock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			return nil, err
		}
		// Its last owner may have removed the file between our open and our lock.
		here, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(here, there) {
			return f, nil
		}
		f.Close()
	}
}

// Listen binds a Unix socket as the daemon binds its own: what a dead process has left at path is replaced, what a living one serves is not. To close
// the listener removes the socket.
func Listen(path string, mode os.FileMode) (net.Listener, error) {
	s, err := listen(path, mode, -1)
	if err != nil {
		return nil, err
	}
	return removing{s}, nil
}

type removing struct{ *socket }

func (r removing) Close() error {
	err := r.socket.Close()
	r.remove()
	return err
}
