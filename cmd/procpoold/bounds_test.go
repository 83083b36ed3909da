package main_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
)

// Published bounds. Tests allow twenty times as much, and print what it was.
const (
	crashBound = 50 * time.Millisecond                   // from a crash to the outcome of its task, or from a start to a refusal
	grace      = 100 * time.Millisecond                  // of pools in tests that end a task
	killDelay  = 100 * time.Millisecond                  // likewise
	killBound  = grace + killDelay + 20*time.Millisecond // from a timeout to the outcome of a task that heeds nothing
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

// watched is a daemon that says by its metrics what it uses, and a client of it.
type watched struct {
	*daemon
	client  *client.Client
	metrics *http.Client
}

func startWatched(t *testing.T) *watched {
	t.Helper()
	socket := filepath.Join(socketDir(t), "metrics.sock")
	d := startDaemon(t, "--metrics", "unix:"+socket)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	w := &watched{daemon: d, client: d.dial(), metrics: &http.Client{Transport: transport}}
	pool, err := w.client.CreatePool(t.Context(), "first", client.Program(filepath.Join(bin, "e2eworker")), client.Workers(1))
	if err != nil {
		t.Fatal(err)
	}
	guardianOf(t, d.cmd.Process.Pid, 1) // comes with the first worker, and stays
	if _, err := client.Map(t.Context(), pool, nap, []int{0}); err != nil {
		t.Fatal(err)
	}
	rest(t, pool, 1)
	w.holdings(t) // so all connections are there from now on
	return w
}

// holdings is what a daemon holds.
type holdings struct{ goroutines, files, children int }

func (w *watched) holdings(t *testing.T) (h holdings) {
	t.Helper()
	resp, err := w.metrics.Get("http://procpoold/metrics")
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]*int{"go_goroutines": &h.goroutines, "process_open_fds": &h.files} {
		m := regexp.MustCompile(`(?m)^` + name + ` (\d+)$`).FindSubmatch(page)
		if m == nil {
			t.Fatalf("no %s in\n%s", name, page)
		}
		*n, _ = strconv.Atoi(string(m[1]))
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ") // the name may contain anything
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(w.cmd.Process.Pid) {
			h.children++ // a zombie counts as well
		}
	}
	return h
}

// back waits until the daemon holds no more than before.
func (w *watched) back(t *testing.T, before holdings) {
	t.Helper()
	eventually(t, patience, func() string {
		if now := w.holdings(t); now.goroutines > before.goroutines || now.files > before.files || now.children > before.children {
			return fmt.Sprintf("the daemon holds %+v, before it was %+v", now, before)
		}
		return ""
	})
}

// rest waits until a pool has so many idle workers and nothing else.
func rest(t *testing.T, pool *client.Pool, workers uint32) {
	t.Helper()
	eventually(t, patience, func() string {
		info, err := pool.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.Idle != workers || info.Busy+info.Starting != 0 || info.Calls != 0 {
			return fmt.Sprintf("the pool has %d idle, %d busy and %d starting workers and %d calls, want %d idle workers and nothing else",
				info.Idle, info.Busy, info.Starting, info.Calls, workers)
		}
		return ""
	})
}
