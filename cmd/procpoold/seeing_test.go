package main_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
)

func TestMetricsAreServed(t *testing.T) {
	socket := filepath.Join(socketDir(t), "metrics.sock")
	d := startDaemon(t, "--metrics", "unix:"+socket)
	pool := d.create("p", 1)
	if _, err := client.Apply(t.Context(), pool, nap, 0); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v; want mode 0600", info.Mode(), err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	var page []byte
	for range 100 { // their garbage must not pile up
		resp, err := (&http.Client{Transport: transport}).Get("http://procpoold/metrics")
		if err != nil {
			t.Fatal(err)
		}
		page, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{`procpool_tasks_total{function="nap",outcome="value",pool="p"} 1`, "procpool_build_info{", "process_resident_memory_bytes "} {
		if !strings.Contains(string(page), want) {
			t.Errorf("there is no %s in\n%s", want, page)
		}
	}
	if raceEnabled {
		t.Logf("memory is not what it is under the race detector, so that of an idle daemon is NOT tested: go test -run %s ./cmd/procpoold", t.Name())
		return
	}
	eventually(t, 30*time.Second, func() string { // it gives memory back seconds after the call, or within a minute
		if rss := residentKiB(t, d.cmd.Process.Pid); rss > 25<<10 {
			return fmt.Sprintf("the idle daemon has %d KiB of memory, published is 25 MiB", rss)
		}
		return ""
	})
}

func residentKiB(t *testing.T, pid int) (kib int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("this system has no /proc: memory is NOT tested here")
	}
	m := regexp.MustCompile(`VmRSS:\s*(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmRSS in %s", status)
	}
	fmt.Sscan(string(m[1]), &kib)
	return kib
}

func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "p") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestMetricsForTheNetworkAreRefused(t *testing.T) {
	dir := socketDir(t)
	addr := filepath.Join(dir, "api.sock")
	out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "procpoold"), "--addr", addr, "--metrics", "0.0.0.0:9464").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "write unix:PATH or 127.0.0.1:PORT") {
		t.Errorf("got %v and %s, want a refusal that says what to write", err, out)
	}
	if left, _ := filepath.Glob(dir + "/*.sock"); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

// Under systemd the journal adds the time; what it needs is the priority.
func TestLogForTheJournal(t *testing.T) {
	for _, c := range []struct {
		name   string
		stream func(dev, ino uint64) string
		want   string // a regular expression for every line
	}{
		{"to the journal", func(dev, ino uint64) string { return fmt.Sprintf("%d:%d", dev, ino) }, `^<[3467]>\[(ERROR|WARN|INFO|DEBUG)\] +procpoold`},
		{"redirected", func(dev, ino uint64) string { return fmt.Sprintf("%d:%d", dev, ino+1) }, `^\d{4}-\d\d-\d\dT\S+ \[(ERROR|WARN|INFO|DEBUG)\] +procpoold`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := socketDir(t)
			log, err := os.Create(filepath.Join(dir, "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			info, err := log.Stat()
			if err != nil {
				t.Fatal(err)
			}
			st := info.Sys().(*syscall.Stat_t)
			cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "procpoold"), "--addr", filepath.Join(dir, "api.sock"))
			cmd.Env = append(os.Environ(), "JOURNAL_STREAM="+c.stream(st.Dev, st.Ino))
			cmd.Stderr = log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, patience, func() string {
				if b, _ := os.ReadFile(log.Name()); !strings.Contains(string(b), "serving") {
					return "it does not serve"
				}
				return ""
			})
			cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
			b, err := os.ReadFile(log.Name())
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(b)) {
				if !regexp.MustCompile(c.want).MatchString(line) {
					t.Errorf("got the line %q", line)
				}
			}
		})
	}
}
