package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// What bench does is tested beside it. These are the measures that need other commands of this program, and the daemon that --addr names.

func TestBenchComparesCommands(t *testing.T) {
	t.Parallel()
	got := finish(t, procpool(t, "bench", "command-one", "--compare", "xargs", "--runs", "1", "--time", "1ms"))
	status := 0
	if _, err := exec.LookPath("parallel"); err != nil {
		status = 1
	}
	if got.status != status || !strings.Contains(got.stdout, "×") || (status == 1) != strings.Contains(got.stderr, "GNU parallel") {
		t.Errorf("got %+v, want a ratio, and status %d", got, status)
	}
}

func TestBenchKnowsTheFloorOfCommands(t *testing.T) {
	t.Parallel()
	got := finish(t, procpool(t, "bench", "command-rate", "--compare", "floor", "--runs", "1", "--time", "0s", "--json"))
	if got.status != 0 || got.stderr != "" || strings.Count(got.stdout, `"peer": "fork+exec"`) != 1 || strings.Contains(got.stdout, "null") {
		t.Errorf("got %+v, want a figure of each", got)
	}
}

func TestBenchMeasuresARunningDaemon(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	if out, want := run0(t, append(addr, "bench", "apply", "--json", "--runs", "1", "--time", "1ms")...), fmt.Sprintf(`"mode": %q`, addr[1]); !strings.Contains(out, want) {
		t.Errorf("there is no %s in\n%s", want, out)
	}
	if got := finish(t, procpool(t, append(addr, "bench", "memory-idle")...)); got.status != 1 || !strings.Contains(got.stderr, "--daemon") {
		t.Errorf("a look into a daemon that is not ours: got %+v, want status 1 and advice", got)
	}
	if got := finish(t, procpool(t, append(addr, "bench", "--daemon")...)); got.status != statusFailure || got.stdout != "" {
		t.Errorf("two daemons: got %+v, want a refusal", got)
	}
}
