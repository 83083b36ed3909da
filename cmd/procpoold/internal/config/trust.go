package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Whoever can write what the daemon reads here decides what runs as the daemon's user. So in system mode that must be root alone; in user mode nobody
// beside the user.

// maxFile is the most that a file of the configuration may have, in bytes.
const maxFile = 1 << 20

// read reads a file of the configuration.
func read(path string, system bool) (string, error) {
	if system {
		if err := rootsOwn(path); err != nil {
			return "", err
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return "", plain(err)
	}
	defer f.Close()
	info, err := f.Stat() // of the file that is read, whatever lies at the path by now
	if err != nil {
		return "", plain(err)
	}
	owners, writers := []uint32{0, uint32(os.Getuid())}, fs.FileMode(0o002)
	if system {
		owners, writers = owners[:1], 0o022
	}
	if err := owned(info, owners, writers); err != nil {
		return "", err
	}
	if info.IsDir() {
		return "", errors.New("it is a directory")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", plain(err)
	}
	if len(b) > maxFile {
		return "", fmt.Errorf("it has more than %d bytes", maxFile)
	}
	return string(b), nil
}

// plain is a file system error without the path, which stands before it already.
func plain(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// rootsOwn says why somebody else than root could change what lies at a path.
func rootsOwn(path string) error { return trusted(path) }

// maxLinks is how many symbolic links a path may lead through.
const maxLinks = 40

// trusted says who else than root and some users could change what lies at a path: its file, the directories above it, and those of every link
// on the way. In a directory with the sticky bit nobody else can change what belongs to root.
func trusted(path string, users ...uint32) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	owners := append([]uint32{0}, users...)
	at, rest, links := "/", components(path), 0
	for {
		info, err := os.Lstat(at)
		if err != nil {
			return plain(err)
		}
		sticky := info.IsDir() && info.Mode()&fs.ModeSticky != 0
		writers := fs.FileMode(0o022)
		if sticky {
			writers = 0
		}
		if err := owned(info, owners, writers); err != nil {
			if at == path {
				return err
			}
			return fmt.Errorf("on the way there, %s: %w", at, err)
		}
		if info.Mode().Type() == fs.ModeSymlink {
			if links++; links > maxLinks {
				return errors.New("it leads through too many symbolic links")
			}
			target, err := os.Readlink(at)
			if err != nil {
				return plain(err)
			}
			rest = append(components(target), rest...)
			if at = filepath.Dir(at); filepath.IsAbs(target) {
				at = "/"
			}
		}
		if len(rest) == 0 {
			return nil
		}
		at, rest = filepath.Join(at, rest[0]), rest[1:]
	}
}

func components(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" })
}

// owned says what is wrong with who may write a file.
func owned(info fs.FileInfo, owners []uint32, writers fs.FileMode) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return errors.New("its owner is not known")
	case !slices.Contains(owners, st.Uid) && len(owners) == 1:
		return fmt.Errorf("it belongs to uid %d; in system mode it must belong to root (chown root)", st.Uid)
	case !slices.Contains(owners, st.Uid):
		return fmt.Errorf("it belongs to uid %d; it must belong to root or uid %d", st.Uid, owners[len(owners)-1])
	case info.Mode().Type() != fs.ModeSymlink && info.Mode().Perm()&writers != 0:
		return fmt.Errorf("others than its owner may write it (mode %04o): chmod go-w", info.Mode().Perm())
	}
	return nil
}
