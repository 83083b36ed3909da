package server

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// visitor connects to a porch and returns both ends.
func visitor(t *testing.T, p *porch) (*visit, net.Conn) {
	t.Helper()
	path := filepath.Join(shortDir(t), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	near, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	v := p.enter(near)
	t.Cleanup(func() { v.Close() })
	return v, far
}

// shownOut tells whether the other end is closed within limit.
func shownOut(conn net.Conn, limit time.Duration) bool {
	conn.SetReadDeadline(time.Now().Add(limit))
	_, err := conn.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

func TestASilentConnectionIsShownOut(t *testing.T) {
	t.Parallel()
	p := &porch{room: 10, patience: time.Second, expected: func() int { return 0 }}
	_, silent := visitor(t, p)
	known, admitted := visitor(t, p)
	known.admit()
	if !shownOut(silent, time.Minute) {
		t.Error("a connection that says nothing is still there")
	}
	if shownOut(admitted, 2*time.Second) {
		t.Error("a connection that has presented its token was shown out")
	}
}

func TestTooManyConnectionsCostTheOldest(t *testing.T) {
	t.Parallel()
	expected := 1
	p := &porch{room: 2, patience: time.Minute, expected: func() int { return expected }}
	_, first := visitor(t, p)
	left, _ := visitor(t, p)
	left.Close() // one that has gone by itself takes no room
	visitor(t, p)
	visitor(t, p)
	if shownOut(first, 50*time.Millisecond) {
		t.Error("the first was shown out while there was room")
	}
	_, last := visitor(t, p)
	if !shownOut(first, 5*time.Second) {
		t.Error("the oldest did not make room")
	}
	if shownOut(last, 50*time.Millisecond) {
		t.Error("the newest had to go")
	}
}
