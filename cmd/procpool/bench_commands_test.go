package main

import (
	"os/exec"
	"strings"
	"testing"
)

// The measures of commands are those that need the rest of this program.
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
