package server

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The default size of a pool is what Go takes GOMAXPROCS to be: the affinity, and the quota of the cgroup. That it heeds the affinity can be tried
// everywhere; a quota is rounded up to two at least, so that a small machine does not show it.
func TestUsableCPUsAreThoseOfTheAffinity(t *testing.T) {
	const mark = "PRINT_USABLE_CPUS"
	if os.Getenv(mark) != "" {
		fmt.Printf("usable=%d\n", usableCPUs())
		return
	}
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	usable := func(set *unix.CPUSet) string {
		runtime.LockOSThread() // a child has the affinity of the thread that starts it
		defer runtime.UnlockOSThread()
		if err := unix.SchedSetaffinity(0, set); err != nil {
			t.Fatal(err)
		}
		defer unix.SchedSetaffinity(0, &all) // it is what it was before
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestUsableCPUsAreThoseOfTheAffinity$")
		cmd.Env = append(os.Environ(), mark+"=1", "GOMAXPROCS=")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return line
	}
	if got, want := usable(&one), "usable=1"; got != want {
		t.Errorf("with one CPU: %s, want %s", got, want)
	}
	if got, most := usable(&all), fmt.Sprintf("usable=%d", all.Count()); all.Count() <= 2 && got != most {
		t.Errorf("with %d CPUs: %s", all.Count(), got)
	}
}
