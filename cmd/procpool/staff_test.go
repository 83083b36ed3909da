package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestResizeAndRestart(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	at := func(args ...string) []string { return append(slices.Clone(addr), args...) }
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run0(t, at("create", "staff", "-j", "2", "--max-tasks", "100", "--max-age", "1h", "--max-idle", "1h", "--min-workers", "1", "--spares", "1",
		"--drain-memory", "1G", "--", self)...)
	cells := func() []string { // of the pool "staff"
		for line := range strings.Lines(run0(t, at("pools", "-o", "wide")...)) {
			if f := strings.Fields(line); f[0] == "staff" {
				return f
			}
		}
		return nil
	}
	awaitWide := func(workers, starting, idle, spares, generation int) {
		t.Helper()
		want := strings.Fields(fmt.Sprint(starting, idle, spares, generation))
		eventually(t, func() string {
			f := cells()
			if f[2] != fmt.Sprint(workers) || !slices.Equal(f[len(f)-4:], want) {
				return fmt.Sprintf("got %v, want %d workers, and %v at the end", f, workers, want)
			}
			return ""
		})
	}
	awaitWide(2, 0, 2, 1, 1)
	run0(t, at("resize", "staff", "3")...)
	awaitWide(3, 0, 3, 1, 1)
	run0(t, at("restart", "staff", "--timeout", "1m")...)
	awaitWide(3, 0, 3, 1, 2)
	run0(t, at("restart", "staff", "--", self, "anew")...)
	awaitWide(3, 0, 3, 1, 3)
	if f := cells(); !slices.Contains(f, "anew") {
		t.Errorf("got %v, want the new command in it", f)
	}
	run0(t, at("resize", "staff", "1")...)
	awaitWide(1, 0, 1, 1, 3)
	if out := run0(t, at("workers", "staff", "-o", "wide")...); !strings.Contains(out, "MEMORY") || !strings.Contains(out, "spare") {
		t.Errorf("the workers are\n%s\nwant a spare, and a column for memory", out)
	}

	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"resize", "staff"}, "which pool to which size"},
		{[]string{"resize", "staff", "x"}, "not a number"},
		{[]string{"resize", "staff", "0"}, "1 to 4096"},
		{[]string{"resize", "nobody", "1"}, "nobody"},
		{[]string{"restart"}, "which pool"},
		{[]string{"restart", "staff", "true"}, `write "--"`},
		{[]string{"restart", "staff", "--lines"}, "-- PROGRAM"},
		{[]string{"restart", "staff", "--", "false"}, "do not start"},
		{[]string{"create", "x", "--drain-memory", "12Q", "--", self}, "not a size"},
		{[]string{"create", "x", "--min-workers", "1", "--", self}, "max_worker_idle"},
		{[]string{"pools", "-o", "narrow"}, "table, wide or json"},
	} {
		if r := finish(t, procpool(t, at(c.args...)...)); r.status != statusFailure || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%v: got %+v, want an error with %q", c.args, r, c.want)
		}
	}
}

func TestRestartTakesAProgramThatHasBeenRebuilt(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	build := func() {
		t.Helper()
		if err := os.WriteFile(program+".new", binary, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(program+".new", program); err != nil {
			t.Fatal(err)
		}
	}
	build()
	run0(t, append(addr, "create", "built", "-j", "1", "--", program)...)
	run0(t, append(addr, "apply", "--pool", "built", "double", "1")...)
	build()
	run0(t, append(addr, "restart", "built")...)
	if out := run0(t, append(addr, "apply", "--pool", "built", "double", "4")...); out != "8\n" {
		t.Errorf("got %q, want 8", out)
	}
}
