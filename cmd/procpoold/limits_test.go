//go:build linux

package main_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/procpool/procpool/client"
	"golang.org/x/sys/unix"
)

// What is used up fails the start of a worker, whose pool says what and what to do about it. The daemon stays, so do its other pools, and that pool
// works as soon as there is more.
func TestADaemonWithoutMoreFiles(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	set := func(limit, old *unix.Rlimit) error {
		return unix.Prlimit(d.cmd.Process.Pid, unix.RLIMIT_NOFILE, limit, old)
	}
	starves(t, d, set, func() uint64 { return freeDescriptor(t, d.cmd.Process.Pid) }, e2eworker(), "too many open files", "ulimit -n")
}

// The limit counts the processes of a user, and does not hold for root.
func TestADaemonWithoutMoreProcesses(t *testing.T) {
	t.Parallel()
	start, program := startDaemon, e2eworker()
	if os.Getuid() == 0 {
		s := newPremises(t)
		s.write(t, "procpoold.toml", fmt.Sprintf("addr = %q\nlog_level = \"debug\"\n", s.path("run", "api.sock")))
		start, program = s.start, s.path("bin", "e2eworker")
	}
	d := start(t)
	set := func(limit, old *unix.Rlimit) (err error) {
		do := func() { err = unix.Prlimit(d.cmd.Process.Pid, unix.RLIMIT_NPROC, limit, old) }
		if os.Getuid() != 0 {
			do()
			return err
		}
		if failed := service.become(do); failed != nil { // root itself may not everywhere
			return failed
		}
		return err
	}
	starves(t, d, set, func() uint64 { return 1 }, program, "resource temporarily unavailable", "limit of processes", "ulimit -u")
}

// starves lowers a limit of the daemon, so that it can start no worker, and raises it again.
func starves(t *testing.T, d *daemon, set func(limit, old *unix.Rlimit) error, none func() uint64, program string, says ...string) {
	t.Helper()
	c := d.dial()
	create := func(name string, workers int) *client.Pool {
		pool, err := c.CreatePool(t.Context(), name, client.Program(program), client.Workers(workers))
		if err != nil {
			t.Fatal(err)
		}
		return pool
	}
	// A daemon that cannot have another thread ends, which nobody can help: it is Go's runtime. So it has had more of them before than it needs here, one for
	// each worker.
	crowd := create("crowd", 16)
	eventually(t, patience, func() string {
		info, err := crowd.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.Idle != 16 {
			return "16 workers are not there"
		}
		return ""
	})
	if err := errors.Join(crowd.Terminate(), crowd.Join(t.Context())); err != nil {
		t.Fatal(err)
	}
	well := create("well", 2)
	ms := slices.Repeat([]int{5}, 100)
	if _, err := client.Map(t.Context(), well, nap, ms, client.ChunkSize(1)); err != nil {
		t.Fatal(err)
	}

	var before unix.Rlimit
	if err := set(nil, &before); err != nil {
		t.Skipf("the limits of another process cannot be changed here (%v), so what happens without more files and processes is NOT tested: go test -run %s ./cmd/procpoold elsewhere", err, t.Name())
	}
	lower := before
	lower.Cur = none()
	if err := set(&lower, nil); err != nil {
		t.Fatal(err)
	}
	poor := create("poor", 2)
	_, err := client.Apply(t.Context(), poor, nap, 0)
	if !errors.Is(err, client.ErrBootFailure) && !errors.Is(err, client.ErrRejected) {
		t.Errorf("a call on a pool whose workers cannot be started has %v, want %v", err, client.ErrBootFailure)
	}
	for _, s := range says {
		if err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("it says %v; it should have %q", err, s)
		}
	}
	t.Log(err)
	if _, err := client.Map(t.Context(), well, nap, ms, client.ChunkSize(1)); err != nil {
		t.Errorf("a pool that has its workers: %v", err)
	}
	if err := set(&before, nil); err != nil {
		t.Fatal(err)
	}

	eventually(t, patience, func() string { // the pool tries again by itself
		if v, err := client.Apply(t.Context(), poor, nap, 1); v != 1 || err != nil {
			return fmt.Sprintf("when there is enough again, the pool answers %d, %v", v, err)
		}
		return ""
	})
	d.dial() // new connections are served, too
	if v, err := client.Apply(t.Context(), create("next", 2), nap, 1); v != 1 || err != nil {
		t.Errorf("when there is enough again, a new pool answers %d, %v", v, err)
	}
}

// freeDescriptor is the lowest number that a new file of a process would get.
func freeDescriptor(t *testing.T, pid int) (lowest uint64) {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	taken := make(map[string]bool)
	for _, f := range files {
		taken[f.Name()] = true
	}
	for taken[strconv.FormatUint(lowest, 10)] {
		lowest++
	}
	return lowest
}
