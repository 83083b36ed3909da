package local_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
)

// Published bounds. Tests allow twenty times as much, and print what it was.
const (
	crashBound = 50 * time.Millisecond               // from a crash to the outcome of its task
	bootBound  = 3*crashBound + 300*time.Millisecond // until calls are told that workers do not start: three starts, and the back-offs between them
)

// promptly measures how long something takes, says it, and complains when that is more than twenty times what is published. On a machine so busy that somebody
// had to wait for a CPU most of that time, late is no proof: then it measures again, five times in all.
func promptly(t *testing.T, what string, published time.Duration, measure func() time.Duration) {
	t.Helper()
	for attempt := 1; ; attempt++ {
		began, waited := time.Now(), waitedForCPU()
		took := measure()
		waited = waitedForCPU() - waited
		t.Logf("%s took %v, published is %v", what, took.Round(100*time.Microsecond), published)
		if took <= 20*published || t.Failed() {
			return
		}
		if attempt == 5 || waited < time.Since(began)/2 {
			t.Errorf("%s took %v, more than twenty times the published %v (attempt %d)", what, took, published, attempt)
			return
		}
	}
}

// waitedForCPU is for how long there has been a process that had to wait for a CPU, anywhere on this machine; always 0 on a system that does not say.
func waitedForCPU() time.Duration {
	pressure, err := os.ReadFile("/proc/pressure/cpu")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(pressure), "\n") // some avg10=0.00 avg60=0.00 avg300=0.00 total=0
	_, total, _ := strings.Cut(line, "total=")
	us, _ := strconv.ParseInt(total, 10, 64)
	return time.Duration(us) * time.Microsecond
}

// usage is what this process, in which the daemon runs, uses.
type usage struct{ goroutines, files, children int }

func used(t *testing.T) usage {
	t.Helper()
	return usage{runtime.NumGoroutine(), countFDs(t), len(children(t))}
}

// back waits until no more is used than before.
func (before usage) back(t *testing.T) {
	t.Helper()
	eventually(t, func() string {
		if now := used(t); now.goroutines > before.goroutines || now.files > before.files || now.children > before.children {
			return fmt.Sprintf("%+v in use, before it was %+v", now, before)
		}
		return ""
	})
}

// awaitGuardian waits until the daemon of a pool has its guardian, or cannot have one here: it comes a moment after the first worker and stays.
func awaitGuardian(t *testing.T, pool *client.Pool) {
	t.Helper()
	eventually(t, func() string {
		about, err := pool.Daemon(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range about.Guarantees {
			if g.Name == "guardian" && strings.Contains(g.How, "started") {
				return "the guardian is being started"
			}
		}
		return ""
	})
}
