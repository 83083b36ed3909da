package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// dir is the private directory of an embedded daemon. A lock on it says that its process lives; a directory without one was left
// behind and is removed by whoever comes next.
type dir struct {
	path string
	lock *os.File
}

const dirPrefix = "embedded-"

// makeDir makes a directory for one daemon: below the user's runtime directory, or in the home directory where there is none, or in
// the system's place for temporary files where that cannot be written either. Only this user may enter it.
func makeDir() (*dir, error) {
	var errs []error
	for _, base := range bases() {
		if err := os.MkdirAll(base, 0o700); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := ours(base); err != nil {
			errs = append(errs, err)
			continue
		}
		sweep(base)
		path, err := os.MkdirTemp(base, dirPrefix)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		lock, err := lockDir(path)
		if err != nil {
			os.RemoveAll(path)
			errs = append(errs, err)
			continue
		}
		return &dir{path: path, lock: lock}, nil
	}
	return nil, fmt.Errorf("no place for its sockets; set XDG_RUNTIME_DIR to a directory of yours: %w", errors.Join(errs...))
}

// longest is what is appended to a base to make the longest socket path: a name, and the worker socket in it. A Unix socket's path
// has at most 107 bytes.
const longest = len("/" + dirPrefix + "1234567890/private/worker.sock")

// ours makes sure that nobody else can put anything into base.
func ours(base string) error {
	if len(base)+longest > 107 {
		return fmt.Errorf("%s is too long for a socket's path", base)
	}
	info, err := os.Lstat(base)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o022 != 0 || (ok && int(st.Uid) != os.Getuid()) {
		return fmt.Errorf("%s is not a directory that only this user can write (mode %v)", base, info.Mode())
	}
	return nil
}

func bases() []string {
	var list []string
	if d := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) {
		list = append(list, filepath.Join(d, "procpool"))
	}
	run := fmt.Sprintf("/run/user/%d", os.Getuid())
	if _, err := os.Stat(run); err == nil {
		list = append(list, filepath.Join(run, "procpool"))
	}
	if home, err := os.UserHomeDir(); err == nil {
		list = append(list, filepath.Join(home, ".procpool", "run"))
	}
	return append(list, filepath.Join(os.TempDir(), fmt.Sprintf("procpool-%d", os.Getuid())))
}

// lockDir takes the lock of a directory, if nobody has it.
func lockDir(path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes the directories of daemons that were killed.
func sweep(base string) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(base, e.Name())
		if !strings.HasPrefix(e.Name(), dirPrefix) || !e.IsDir() {
			continue
		}
		if _, err := os.Stat(filepath.Join(path, "lock")); err != nil {
			continue // it is being made at this moment
		}
		if lock, err := lockDir(path); err == nil {
			os.RemoveAll(path)
			lock.Close()
		}
	}
}

func (d *dir) remove() {
	os.RemoveAll(d.path)
	d.lock.Close()
}
