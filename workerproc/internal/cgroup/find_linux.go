package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// supervisor is the leaf for the daemon itself.
const supervisor = "supervisor"

// find is the directory of the cgroup that this process may divide: its own one, if it has been delegated. It may have been put into the leaf already: by itself before, or
// by systemd (DelegateSubgroup=supervisor).
func find() (string, error) {
	own, err := ownDir()
	if err != nil {
		return "", err
	}
	if delegated(own) {
		return own, nil
	}
	if parent := filepath.Dir(own); filepath.Base(own) == supervisor && delegated(parent) {
		return parent, nil
	}
	if isRoot(own) {
		return "", errors.New("this process is in the root of the hierarchy, which is nobody's to divide")
	}
	return "", fmt.Errorf("%s has not been delegated to it", own)
}

// delegated tells whether whoever manages the hierarchy has marked a cgroup as one that its processes may divide. systemd does that for units with Delegate=yes: user.delegate
// since version 251, trusted.delegate, which only root may read, before.
func delegated(dir string) bool {
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		b := make([]byte, 8)
		if n, err := unix.Getxattr(dir, name, b); err == nil && string(b[:n]) == "1" {
			return !isRoot(dir)
		}
	}
	return false
}

// isRoot tells whether dir is the root of the hierarchy, the only cgroup that has no type. That of a namespace is not.
func isRoot(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.type"))
	return errors.Is(err, os.ErrNotExist)
}

// isCgroup says why dir is no cgroup of version 2.
func isCgroup(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Errorf("%s is not in a file system of cgroups of version 2", dir)
	}
	return nil
}

var errNone = errors.New("this system has no cgroups of version 2")

// ownDir is the directory of this process's cgroup.
func ownDir() (string, error) {
	cgroups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", errNone
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", errNone
	}
	return locate(string(cgroups), string(mounts))
}

// locate finds the directory of a cgroup from what is in /proc/PID/cgroup and /proc/PID/mountinfo. Beside those of version 1, version 2 may be mounted anywhere
// (/sys/fs/cgroup/unified); a container may see a part of it only.
func locate(cgroups, mounts string) (string, error) {
	path := ""
	for line := range strings.Lines(cgroups) {
		if p, ok := strings.CutPrefix(line, "0::"); ok {
			path = strings.TrimSuffix(p, "\n")
		}
	}
	if path == "" {
		return "", errNone
	}
	err := errNone
	for line := range strings.Lines(mounts) {
		before, after, _ := strings.Cut(line, " - ")
		mount, kind := strings.Fields(before), strings.Fields(after)
		if len(mount) < 5 || len(kind) < 1 || kind[0] != "cgroup2" {
			continue
		}
		root, point := unescape(mount[3]), unescape(mount[4])
		if rest, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/")); ok && (rest == "" || rest[0] == '/') && !strings.HasPrefix(rest, "/..") {
			return filepath.Join(point, rest), nil
		}
		err = fmt.Errorf("the cgroup %s of this process cannot be seen from here: %s shows %s", path, point, root)
	}
	return "", err
}

// unescape undoes what mountinfo does to spaces and the like: \040.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
