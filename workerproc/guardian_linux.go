package workerproc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/procpool/procpool/workerproc/internal/guard"
	"golang.org/x/sys/unix"
)

const (
	guardDelay   = 50 * time.Millisecond  // after the first worker: it shall not compete with that for the CPU, nor exist for a program that has ended by then
	guardTries   = 3                      // guardians that end before they are ready, until no more are started
	guardPause   = 100 * time.Millisecond // before the next one is started, doubled every time up to…
	guardMaxWait = 30 * time.Second       // …this; but from the beginning again after one that has stood for so long
	guardWrite   = 5 * time.Second        // a guardian that takes nothing for so long is replaced
)

// run has one guardian after the other, should they end. It returns when the Guardian is closed.
func (g *Guardian) run() {
	defer close(g.done)
	if g.wait(time.After(guardDelay)) {
		return
	}
	failures, pause := 0, guardPause
	for {
		begun := time.Now()
		ready, err := g.stand()
		if err == nil {
			return // closed
		}
		err = fmt.Errorf("the guardian: %w", err)
		g.set(0, err)
		g.report(err)
		switch {
		case ready:
			failures = 0
		case errors.Is(err, errors.ErrUnsupported):
			failures = guardTries
		default:
			failures++
		}
		if time.Since(begun) > guardMaxWait {
			pause = guardPause
		}
		var again <-chan time.Time // nil: never
		if failures < guardTries {
			again = time.After(pause)
			pause = min(2*pause, guardMaxWait)
		}
		if g.wait(again) {
			return
		}
	}
}

// wait waits until then, and reports whether the Guardian was closed before.
func (g *Guardian) wait(then <-chan time.Time) (closed bool) {
	for {
		select {
		case <-then:
			return false
		case <-g.awake:
			if _, closed := g.take(false); closed {
				return true
			}
		}
	}
}

// stand starts a process, tells it of the workers, and returns when it has been reaped: nil if the Guardian was closed. ready says whether it ever stood there.
func (g *Guardian) stand() (ready bool, err error) {
	proc, conn, err := g.start()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	over := make(chan error, 1) // one slot: the waiter never waits
	go func() {                 // ends with the process
		state, err := proc.Wait()
		if err == nil {
			err = fmt.Errorf("process %d has ended: %v", proc.Pid, state)
		}
		over <- err
	}()
	first := make(chan error, 1) // one slot, likewise
	go func() {                  // ends with the connection
		b := make([]byte, len(guard.Ready))
		n, err := conn.Read(b)
		if err == nil && string(b[:n]) != guard.Ready {
			err = errors.New("it says something else than a guardian")
		}
		first <- err
	}()
	end := func() error { // it has nobody to guard, or is of no use
		proc.Kill()
		return <-over
	}

	news, closed := g.take(true)
	for {
		if closed {
			_ = end() // killed, as it should be
			g.set(0, nil)
			return ready, nil
		}
		for _, n := range news {
			if err := n.tell(conn); err != nil {
				return ready, fmt.Errorf("%w, and %w", err, end())
			}
		}
		select {
		case err := <-over:
			return ready, err
		case err := <-first:
			if err == nil {
				ready = true
				g.set(proc.Pid, nil)
			} // else the process ends, or has ended
			first = nil
		case <-g.awake:
		}
		news, closed = g.take(false)
	}
}

// guardable says why this process cannot have a guardian.
func guardable() error {
	if os.Getenv(guard.Mark) != "" {
		return fmt.Errorf("this process was started as one and has become something else: %w", errors.ErrUnsupported)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-buildmode" && s.Value != "exe" && s.Value != "pie" {
				return fmt.Errorf("this program is not a Go program (buildmode %s), so that it cannot be started as one: %w", s.Value, errors.ErrUnsupported)
			}
		}
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("it needs a pidfd (Linux 5.4): %w: %w", err, errors.ErrUnsupported)
	}
	return unix.Close(self)
}

// start starts this program once more, as a guardian: in a session of its own, where no terminal's signals reach it, with nothing of ours but the socket.
// What is sent before it has started waits there.
func (g *Guardian) start() (*os.Process, *net.UnixConn, error) {
	if err := guardable(); err != nil {
		return nil, nil, err
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(self)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "guardian"), os.NewFile(uintptr(pair[1]), "guardian")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket: %w", err)
	}
	socket := conn.(*net.UnixConn)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		defer null.Close()
		err = say(socket, guard.OpDaemon, 0, 0, self)
	}
	if err == nil && g.cgroups != nil {
		if kill, missing := g.cgroups.KillFile(); missing == nil { // else workers are killed one by one
			err = say(socket, guard.OpCgroup, 0, 0, int(kill.Fd()))
			kill.Close()
		}
	}
	var proc *os.Process
	if err == nil {
		proc, err = os.StartProcess("/proc/self/exe", []string{"procpool-guardian", "of", strconv.Itoa(os.Getpid())}, &os.ProcAttr{
			Dir: "/", Env: []string{guard.Mark + "=" + guard.MarkValue, "GOMAXPROCS=1"}, Files: []*os.File{null, null, null, theirs}, Sys: &syscall.SysProcAttr{Setsid: true},
		})
	}
	if err != nil {
		socket.Close()
		return nil, nil, fmt.Errorf("start it: %w", err)
	}
	return proc, socket, nil
}

// tell sends a change.
func (c change) tell(conn *net.UnixConn) error {
	if c.proc == nil {
		return say(conn, guard.OpForget, c.id, 0, -1)
	}
	fd, err := -1, error(nil)
	if !c.proc.Hold(func(_, pidfd int) { fd, err = unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 0) }) {
		return nil // it has been reaped meanwhile
	}
	if err != nil {
		return fmt.Errorf("pidfd of a worker: %w", err)
	}
	defer unix.Close(fd)
	return say(conn, guard.OpGuard, c.id, c.proc.Pid(), fd)
}

// say sends a message, with a descriptor if fd is one.
func say(conn *net.UnixConn, op byte, id uint32, pid, fd int) error {
	b := make([]byte, guard.Size)
	b[0] = op
	binary.LittleEndian.PutUint32(b[4:], id)
	binary.LittleEndian.PutUint32(b[8:], uint32(pid))
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(guardWrite)); err != nil {
		return err
	}
	if _, _, err := conn.WriteMsgUnix(b, rights, nil); err != nil {
		return fmt.Errorf("tell it of a worker: %w", err)
	}
	return nil
}
