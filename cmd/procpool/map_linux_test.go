package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/cmd/procpool/internal/flags"
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

// finishMeasured is finish, and the most memory that the process had resident: what the kernel says last before it ends. (Its rusage would have the
// memory of this process in it, which it was until it executed itself.)
func finishMeasured(t *testing.T, cmd *exec.Cmd) (r result, peak int64) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = cmp.Or(cmd.Stdout, io.Writer(&stdout)), &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its status is in the result
	}()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ended:
			return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}, peak
		case <-ticker.C:
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if err != nil {
			continue // it has just ended
		}
		for line := range strings.Lines(string(status)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmHWM:" {
				kib, err := strconv.ParseInt(fields[1], 10, 64)
				if err != nil {
					t.Error(err)
				}
				peak = kib << 10
			}
		}
	}
}

// memoryBound is far above what map needs (some 30 MiB), also with the race detector, and far below what goes through it here.
const memoryBound = 150 << 20

func TestMapReadsAMillionItemsInLittleMemory(t *testing.T) {
	t.Parallel()
	if raceEnabled {
		t.Skip("memory is not what it is under the race detector: go test -run " + t.Name() + " ./cmd/procpool")
	}
	const items = 1_000_000
	cmd := procpool(t, "map", "-n", "2000", "--", "sh", "-c", "echo $#", "_")
	in, inEnd := io.Pipe()
	cmd.Stdin = in
	go func() {
		line := bytes.Repeat([]byte("x"), 200)
		line[199] = '\n'
		block := bytes.Repeat(line, 1000)
		for range items / 1000 {
			if _, err := inEnd.Write(block); err != nil {
				break
			}
		}
		inEnd.Close()
	}()
	r, got := finishMeasured(t, cmd)
	sum := 0
	for _, n := range strings.Fields(r.stdout) {
		v, _ := strconv.Atoi(n)
		sum += v
	}
	if sum != items || r.status != 0 {
		t.Errorf("commands got %d items, want %d\n%+v", sum, items, r.stderr)
	}
	if got > memoryBound || got == 0 {
		t.Errorf("%s of memory for 200 MB of items, want less than %s", flags.FormatBytes(got), flags.FormatBytes(memoryBound))
	} else {
		t.Logf("%s of memory at most", flags.FormatBytes(got))
	}
}

func TestMapSpoolsOutputInLittleMemory(t *testing.T) {
	t.Parallel()
	if raceEnabled {
		t.Skip("memory is not what it is under the race detector: go test -run " + t.Name() + " ./cmd/procpool")
	}
	const size = 200 << 20
	cmd := procpool(t, "map", "--", "head", "-c", strconv.Itoa(size), "{}", ":::", "/dev/zero")
	digest := &zeros{}
	cmd.Stdout = digest
	r, got := finishMeasured(t, cmd)
	if r.status != 0 || digest.n != size {
		t.Errorf("got %d bytes, want %d\n%+v", digest.n, size, r)
	}
	if got > memoryBound || got == 0 {
		t.Errorf("%s of memory for %s of output, want less than %s", flags.FormatBytes(got), flags.FormatBytes(size), flags.FormatBytes(memoryBound))
	} else {
		t.Logf("%s of memory at most", flags.FormatBytes(got))
	}
}
