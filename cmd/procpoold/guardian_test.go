package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
)

// guardianOf is the guardian of a daemon, once it has one and guards so many workers.
func guardianOf(t *testing.T, daemon, workers int) (pid int) {
	t.Helper()
	eventually(t, patience, func() string {
		list, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range list {
			b, err := os.ReadFile(file)
			if err == nil && string(b) == fmt.Sprintf("procpool-guardian\x00of\x00%d\x00", daemon) {
				pid, _ = strconv.Atoi(strings.Split(file, "/")[2])
				// Its pidfd of the daemon is the first thing it gets, those of the workers follow.
				if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil && len(fds) >= 5+workers {
					return ""
				}
				return "the guardian does not guard all workers yet"
			}
		}
		return "there is no guardian"
	})
	return pid
}

func TestKilledDaemonLeavesNoProcessWhateverItsWorkersDo(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, pool *client.Pool, workers []int){
		"idle": func(*testing.T, *client.Pool, []int) {},
		"busy and deaf": func(t *testing.T, pool *client.Pool, workers []int) {
			t.Helper()
			for range workers {
				client.ApplyAsync(t.Context(), pool, client.Func[int, int]("spin"), 0)
			}
			eventually(t, patience, func() string {
				if info, err := pool.Info(t.Context()); err != nil || int(info.Busy) < len(workers) {
					return fmt.Sprintf("%d workers are busy, %v", info.GetBusy(), err)
				}
				return ""
			})
		},
		"stopped": func(_ *testing.T, _ *client.Pool, workers []int) {
			for _, pid := range workers {
				syscall.Kill(pid, syscall.SIGSTOP)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t)
			pool := d.create("p", 2)
			pids := families(t, pool, 2)
			var workers []int
			list, err := d.dial().Workers(t.Context(), "p")
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range list {
				workers = append(workers, int(w.Pid))
			}
			guardian := guardianOf(t, d.cmd.Process.Pid, 2)
			prepare(t, pool, workers)
			d.cmd.Process.Kill()
			took := eventually(t, 40*time.Second, gone(append(pids, guardian)))
			t.Logf("published bound 2s; took %v", took)
		})
	}
}

func TestAKilledProgramWithAnEmbeddedDaemonLeavesNoProcess(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		cmd := exec.Command(filepath.Join(bin, "e2eworker"), "embed")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var pids []int
		if err := json.NewDecoder(out).Decode(&pids); err != nil {
			t.Fatal(err)
		}
		guardian := guardianOf(t, cmd.Process.Pid, 1)
		if stopped {
			syscall.Kill(pids[0], syscall.SIGSTOP)
		}
		cmd.Process.Kill()
		_ = cmd.Wait() // killed, as it should be
		took := eventually(t, 40*time.Second, gone(append(pids, guardian)))
		t.Logf("stopped worker: %v; published bound 2s; took %v", stopped, took)
	}
}

func TestADaemonThatStopsTakesItsGuardianAlong(t *testing.T) {
	d := startDaemon(t)
	pool := d.create("p", 1)
	families(t, pool, 1)
	guardian := guardianOf(t, d.cmd.Process.Pid, 1)
	d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.done
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", guardian)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the guardian is still there: %v", err)
	}
}
