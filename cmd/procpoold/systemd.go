package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"
	"github.com/procpool/procpool/cmd/procpoold/internal/config"
	"github.com/procpool/procpool/server"
)

// inherited is the client socket that systemd holds for this process; nil if it holds none.
func inherited() (net.Listener, error) {
	files := activation.Files(true) // those who come after us in this environment are not meant
	if len(files) == 0 {
		return nil, nil //nolint:nilnil // there is none, and that is no error
	}
	for _, f := range files {
		defer f.Close() // a listener has a copy
	}
	if len(files) > 1 {
		return nil, fmt.Errorf("systemd has handed over %d sockets, and procpoold serves one: leave one ListenStream= in its socket unit", len(files))
	}
	l, err := net.FileListener(files[0])
	if err != nil {
		return nil, fmt.Errorf("take over the socket of systemd: %w; its socket unit must say ListenStream= and the path of a Unix socket", err)
	}
	if _, ok := l.(*net.UnixListener); !ok {
		return nil, errors.Join(fmt.Errorf("systemd has handed over the socket %s, and procpoold serves Unix sockets only: say ListenStream= and a path in its socket unit", l.Addr()),
			l.Close())
	}
	return l, nil
}

// compareSocket says what the configuration has of a socket and systemd, which holds it, has otherwise.
func compareSocket(addr string, cfg *config.Config, log hclog.Logger) {
	if addr != cfg.Addr {
		log.Warn("systemd holds the client socket, so it is not where the configuration says", "addr", addr, "configured", cfg.Addr)
	}
	info, err := os.Stat(addr)
	if err != nil || !cfg.System {
		return
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Gid != cfg.SocketGroup.GID {
		log.Warn("systemd holds the client socket, and its group is not socket_group: nobody can use it who is not in both; change SocketGroup= of the socket unit",
			"gid", st.Gid, "configured", cfg.SocketGroup.GID)
	}
}

// unit tells systemd how the daemon is doing. Where nobody listens, nothing is said.
type unit struct {
	log  hclog.Logger
	note atomic.Pointer[string] // what systemctl status shows before the numbers
	late atomic.Bool            // the daemon is ready, and systemd has not heard it
}

func newUnit(log hclog.Logger) *unit {
	u := &unit{log: log}
	u.remark("")
	return u
}

// remark changes the note.
func (u *unit) remark(note string) { u.note.Store(&note) }

func (u *unit) tell(news ...string) (heard bool) {
	err := notify(strings.Join(news, "\n"))
	if err != nil {
		u.log.Warn("systemd does not hear", "news", news[0], "reason", err)
	}
	return err == nil
}

// tellTime is how long news may take to be told. They wait for systemd to read what was told before: a dozen datagrams fill its socket.
const tellTime = time.Second

// notify is sd_notify(3), which must not wait for ever; that of the library would.
func notify(news string) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(tellTime)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(news))
	return err
}

func (u *unit) ready() { u.late.Store(!u.tell(daemon.SdNotifyReady)) }

// stopping is for a daemon that drains, and how long that may take: systemd waits for it longer than TimeoutStopSec, if need be.
func (u *unit) stopping(patience time.Duration) {
	u.remark("draining")
	u.late.Store(false)
	u.tell(daemon.SdNotifyStopping, "STATUS=draining", fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", patience.Microseconds()))
}

// reloading stands before a reload, reloaded after it, with what came of it.
func (u *unit) reloading() { u.tell(daemon.SdNotifyReloading, daemon.SdNotifyMonotonicUsec()) }

func (u *unit) reloaded(note string) {
	u.remark(note)
	u.tell(daemon.SdNotifyReady, "STATUS="+note)
}

// statusEvery is how often systemd gets new numbers where it does not ask for a sign of life more often.
const statusEvery = 10 * time.Second

// report is the answer to the watchdog, and what systemctl status shows. It is the owners of the pools who answer: if one of them hangs, nothing is said, and systemd
// ends the daemon. It returns when ctx is done.
func (u *unit) report(ctx context.Context, s *server.Server) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		u.log.Warn("nobody watches this daemon", "reason", err)
	}
	every := statusEvery
	if limit > 0 {
		every = min(every, limit/3)
	}
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
		u.pulse(ctx, s, limit)
		again.Reset(every)
	}
}

func (u *unit) pulse(ctx context.Context, s *server.Server, limit time.Duration) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit/3, errors.New("not in time"))
		defer cancel()
	}
	pulse, err := s.Pulse(ctx)
	switch {
	case errors.Is(err, context.Canceled):
	case err != nil:
		u.log.Error("the watchdog gets no answer", "reason", err)
	default:
		status := fmt.Sprintf("%d pools, %d workers, %d calls", pulse.Pools, pulse.Workers, pulse.Calls)
		if note := *u.note.Load(); note != "" {
			status = note + ": " + status
		}
		if u.late.Load() {
			u.ready()
		}
		u.tell(daemon.SdNotifyWatchdog, "STATUS="+status)
	}
}
