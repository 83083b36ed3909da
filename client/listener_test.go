package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestASilentListenerIsWaitedForOnlySoLong: one that takes what it is sent and says nothing.
func TestASilentListenerIsWaitedForOnlySoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		_, err := DialFunc(context.Background(), func(context.Context) (net.Conn, error) {
			here, there := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, there) }() // ends with here
			return here, nil
		})
		if silent := (*silentError)(nil); !errors.As(err, &silent) || time.Since(begin) != dialPatience {
			t.Errorf("got %v after %v, want to hear of the silence after %v", err, time.Since(begin), dialPatience)
		}
	})
}

// TestDialSaysWhoDoesNotAnswer, with the caller's deadline: a listener that nobody serves, as that of a stopped daemon.
func TestDialSaysWhoDoesNotAnswer(t *testing.T) {
	dir, err := os.MkdirTemp("", "p") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = Dial(ctx, path)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), path+": it listens") || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v, want the end of the context, and that %s listens and does not answer", err, path)
	}
	if who := listenerOf(dialed(t, path)); who.pid != 0 && !strings.Contains(err.Error(), fmt.Sprintf("process %d, ", os.Getpid())) {
		t.Errorf("got %v, want the process that listens, %d", err, os.Getpid())
	}
}

func dialed(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestSystemdIsWaitedForLonger(t *testing.T) {
	for _, c := range []struct {
		listener
		want time.Duration
	}{
		{listener{}, dialPatience},
		{listener{77, "nc"}, dialPatience},
		{listener{1, "procpoold"}, dialPatience},
		{listener{1, "systemd"}, redialWait},
		{listener{812, "systemd"}, redialWait}, // the user's
		{listener{1, ""}, redialWait},          // whose name is hidden
	} {
		if got := c.patience(); got != c.want {
			t.Errorf("patience with%s: %v, want %v", c.listener, got, c.want)
		}
	}
}
