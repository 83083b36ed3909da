package client

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// runningImage is the file that this process was started from, even if another lies at path by now.
func runningImage(string) string { return "/proc/self/exe" }

func fileID(info os.FileInfo) (device, inode uint64) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Dev), s.Ino //nolint:unconvert // Dev has 32 bits on some architectures
	}
	return 0, 0
}

// currentUmask reads the mask where reading does not change it, as umask(2) would for a moment and for every goroutine. Nil if unknown.
func currentUmask() *uint32 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(status)) {
		if octal, ok := strings.CutPrefix(line, "Umask:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(octal), 8, 32)
			if err != nil {
				return nil
			}
			m := uint32(mask)
			return &m
		}
	}
	return nil
}
