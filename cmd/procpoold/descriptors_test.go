package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/procpool/procpool/client"
)

// Nothing that the daemon has open gets into another process: not what it has opened itself, and not what it was started with by somebody who did not
// close their own.
func TestDescriptorsOfTheDaemonStayThere(t *testing.T) {
	d := newDaemon(t)
	left := filepath.Join(t.TempDir(), "left-open")
	for range 4 { // two more than a worker gets there itself, in the place of the first ones
		f, err := os.Create(left)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		d.cmd.ExtraFiles = append(d.cmd.ExtraFiles, f)
	}
	d.start()
	if there := opened(t, d.cmd.Process.Pid, left); there != len(d.cmd.ExtraFiles) {
		t.Fatalf("the daemon has the file open %d times, want %d", there, len(d.cmd.ExtraFiles))
	}
	pool := d.create("p", 1)
	got, err := client.Apply(t.Context(), pool, client.Func[int, []string]("descriptors"), 0)
	if err != nil {
		t.Fatal(err)
	}
	want := `^0 /dev/null,1 pipe:\S+,2 pipe:\S+,3 pipe:\S+(,4 /memfd:procpool-progress \(deleted\))?$`
	if !regexp.MustCompile(want).MatchString(strings.Join(got, ",")) {
		t.Errorf("a worker begins with %q, want %s", got, want)
	}
	if there := opened(t, guardianOf(t, d.cmd.Process.Pid, 1), left); there > 0 {
		t.Errorf("the guardian has the file open %d times", there)
	}
}

// TestTheDaemonOutlivesTheReaderOfItsLog: what a log is written to may be gone.
func TestTheDaemonOutlivesTheReaderOfItsLog(t *testing.T) {
	d := newDaemon(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.Stderr = w
	d.start()
	w.Close()
	r.Close()
	pool := d.create("p", 1)
	if _, err := client.Apply(t.Context(), pool, nap, 1); err != nil {
		t.Error(err)
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	if <-d.done; d.err != nil {
		t.Errorf("it ended with %v", d.err)
	}
}

// opened is how often a process has a file open.
func opened(t *testing.T, pid int, path string) (n int) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Skipf("NOT TESTED: who has which file open, which /proc/PID/fd tells (mount -t proc proc /proc): %v", err)
	}
	for _, fd := range fds {
		if what, err := os.Readlink(fd); err == nil && what == path {
			n++
		}
	}
	return n
}
