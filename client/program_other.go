//go:build !linux

package client

import "os"

func runningImage(path string) string { return path }

// fileID is not known: a rebuilt program is not noticed here.
func fileID(os.FileInfo) (device, inode uint64) { return 0, 0 }

// currentUmask is not known: umask(2) would change it for a moment, for every goroutine. The workers get the daemon's.
func currentUmask() *uint32 { return nil }
