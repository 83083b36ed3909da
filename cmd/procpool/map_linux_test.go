package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestMapEndsOnAFullDisk fills a small file system with the joblog, spooled output, results and blocks.
func TestMapEndsOnAFullDisk(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=320k"); err != nil {
		t.Skipf("needs root to mount a small tmpfs (%v): go test -exec sudo -run %s ./cmd/procpool", err, t.Name())
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	long := strings.Repeat("x", 100<<10)
	for _, c := range []struct {
		name, in, want string
		args           []string
	}{
		{"joblog", "1\n2\n3\n4\n5\n", "joblog", []string{"--joblog", filepath.Join(disk, "log"), "--", "true", long}},
		{"spool", "1\n", "spool", []string{"--", "sh", "-c", "head -c 20000000 /dev/zero"}},
		{"results", "1\n", "results", []string{"--results", filepath.Join(disk, "out"), "--", "sh", "-c", "head -c 20000000 /dev/zero"}},
		{"table", "1\n", "no space", []string{"--results", filepath.Join(disk, "out.csv"), "--", "sh", "-c", "head -c 20000000 /dev/zero"}},
		{"blocks", strings.Repeat(long+"\n", 10), "block of the input", []string{"--pipe", "--", "cat"}},
	} { // one after the other: they share the disk
		t.Run(c.name, func(t *testing.T) {
			cmd := procpool(t, append([]string{"map"}, c.args...)...)
			cmd.Env = append(cmd.Env, "TMPDIR="+disk, "XDG_RUNTIME_DIR="+t.TempDir())
			cmd.Stdin = strings.NewReader(c.in)
			r := finish(t, cmd)
			if r.status != statusFailure || !strings.Contains(r.stderr, c.want) || !strings.Contains(r.stderr, "no space left") {
				t.Errorf("got status %d and %.300q, want %d and a sentence with %q", r.status, r.stderr, statusFailure, c.want)
			}
			if c.name == "joblog" {
				if got := seqs(t, filepath.Join(disk, "log")); len(got) == 0 || len(got) > 3 {
					t.Errorf("the joblog has %v, want what fits", got)
				}
			}
			left, err := os.ReadDir(disk)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range left {
				if err := os.RemoveAll(filepath.Join(disk, f.Name())); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestMemAvailable(t *testing.T) {
	t.Parallel()
	got, err := memAvailable([]byte("MemTotal: 100 kB\nMemFree: 2 kB\nMemAvailable:   1234 kB\n"))
	if want := int64(1234 << 10); got != want || err != nil {
		t.Errorf("got %d, %v; want %d", got, err, want)
	}
	if got, err := memAvailable([]byte("MemTotal: 100 kB\n")); err == nil {
		t.Errorf("got %d from a file without it", got)
	}
}
