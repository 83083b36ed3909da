package main_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
)

// manager is what systemd is for a service: it holds the socket, and listens to what the daemon says of itself.
type manager struct {
	t      *testing.T
	addr   string
	socket *os.File
	news   *net.UnixConn
	seen   []string // lines of news, in order
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "p")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &manager{t: t, addr: filepath.Join(dir, "api.sock")}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: m.addr, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if m.socket, err = l.File(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	t.Cleanup(func() { m.socket.Close() })
	if m.news, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.news.Close() })
	return m
}

// start starts a daemon with the socket, as descriptor 3. The shell knows the number of the process that it becomes.
func (m *manager) start(args ...string) *daemon {
	m.t.Helper()
	d := &daemon{t: m.t, addr: m.addr, log: new(bytes.Buffer), done: make(chan struct{})}
	script := `LISTEN_PID=$$ exec "$0" "$@"`
	d.cmd = exec.Command("sh", append([]string{"-c", script, filepath.Join(bin, "procpoold"), "--addr", m.addr}, args...)...)
	d.cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "NOTIFY_SOCKET="+m.news.LocalAddr().String(), "WATCHDOG_USEC=600000")
	d.cmd.ExtraFiles = []*os.File{m.socket}
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	go func() { d.err = d.cmd.Wait(); close(d.done) }()
	m.t.Cleanup(func() {
		d.cmd.Process.Signal(syscall.SIGTERM)
		<-d.done
		if m.t.Failed() {
			m.t.Logf("log of procpoold:\n%s", d.log)
		}
	})
	return d
}

// hears waits for a line of news that begins so, after those that it has heard.
func (m *manager) hears(begin string) string {
	m.t.Helper()
	m.news.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 4096)
	for {
		for len(m.seen) > 0 {
			line := m.seen[0]
			m.seen = m.seen[1:]
			if strings.HasPrefix(line, begin) {
				return line
			}
		}
		n, err := m.news.Read(buf)
		if err != nil {
			m.t.Fatalf("no %s: %v", begin, err)
		}
		m.seen = strings.Split(string(buf[:n]), "\n")
	}
}

func TestADaemonTellsSystemdHowItIs(t *testing.T) {
	m := newManager(t)
	config := filepath.Join(filepath.Dir(m.addr), "procpoold.toml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := m.start("--config", config, "--drain-timeout", "5m")
	m.hears("READY=1")
	m.hears("WATCHDOG=1")
	d.create("p", 1)
	m.hears("STATUS=1 pools, 1 workers, 0 calls")

	d.cmd.Process.Signal(syscall.SIGHUP)
	m.hears("RELOADING=1")
	m.hears("MONOTONIC_USEC=")
	m.hears("READY=1")
	if err := os.WriteFile(config, []byte("mood = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.cmd.Process.Signal(syscall.SIGHUP)
	m.hears("RELOADING=1")
	m.hears("READY=1")
	m.hears("STATUS=the new configuration is wrong")

	d.cmd.Process.Signal(syscall.SIGTERM)
	m.hears("STOPPING=1")
	if got, want := m.hears("EXTEND_TIMEOUT_USEC="), fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (320*time.Second).Microseconds()); got != want {
		t.Errorf("got %s, want %s: the drain timeout and what stopping may take beyond it", got, want)
	}
	<-d.done
	if d.err != nil {
		t.Errorf("procpoold: %v", d.err)
	}
}

// A manager that does not read what it is told is no reason to hang. It hears that the daemon is ready when it reads again.
func TestAManagerThatDoesNotReadKeepsNobody(t *testing.T) {
	m := newManager(t)
	conn, err := net.DialUnix("unixgram", nil, m.news.LocalAddr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fill := func() { // until there is no room
		for err := error(nil); err == nil; {
			conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			_, err = conn.Write([]byte("STATUS=as before"))
		}
	}
	fill()
	d := m.start()
	if got, err := client.Apply(t.Context(), d.create("p", 1), nap, 1); err != nil || got != 1 {
		t.Errorf("got %d, %v, want 1", got, err)
	}
	m.hears("READY=1")
	fill()
	d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.done
	if d.err != nil || !strings.Contains(d.log.String(), "systemd does not hear") {
		t.Errorf("it ended with %v and the log\n%s", d.err, d.log)
	}
}

// What TestADaemonTellsSystemdHowItIs cannot show: who holds the socket has it after the daemon, and whoever connects meanwhile is the next one's.
func TestTheSocketOfSystemdOutlivesTheDaemon(t *testing.T) {
	m := newManager(t)
	first := m.start()
	m.hears("READY=1")
	pool := first.create("p", 1)
	let := runsUntil(t, pool)
	first.cmd.Process.Signal(syscall.SIGTERM)
	m.hears("STOPPING=1")
	drains(t, pool)                 // after that it accepts nobody
	came := make(chan struct{}, 10) // more connections than a client makes
	late := make(chan error, 1)     // one slot: the test may have failed already
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		c, err := client.DialFunc(ctx, func(ctx context.Context) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", m.addr)
			came <- struct{}{}
			return conn, err
		})
		if err == nil {
			_, err = c.Describe(ctx)
			c.Close()
		}
		late <- err
	}()
	<-came
	if v, err := let(); v != 1 || err != nil {
		t.Errorf("got %d, %v; want the accepted task to end", v, err)
	}
	<-first.done
	if _, err := os.Stat(m.addr); err != nil {
		t.Errorf("the daemon has removed a socket that is not its own: %v", err)
	}
	m.start()
	if err := <-late; err != nil {
		t.Errorf("a client that came while the first daemon drained: %v; want the second one to serve it", err)
	}
}
