package main_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/procpool/procpool/client"
)

// chaos is what is done to the daemon of a soak, and what of it still goes on.
type chaos struct {
	did        map[string]int    // how often each action has succeeded, and what it asked for has come to its end
	paused     map[int]time.Time // processes that are stopped, and until when
	cancelled  map[string]bool   // calls that were cancelled and may not have ended yet
	cancels    int               // all of them
	cutting    int               // of these, before all their items had come
	size       int               // that the pool is being brought to; 0: it has it
	restarting bool
	restarted  chan error // the end of a restart; there is one at a time
}

const (
	killAWorker      = "kill a worker"
	terminateAWorker = "SIGTERM to a worker"
	killTheDaemon    = "kill the daemon"
	resizeThePool    = "resize the pool"
	restartThePool   = "restart the pool"
	cancelACall      = "cancel a call"
)

// action is what can be done. Do says whether it has been done; false: not, or settle will see its end.
type action struct {
	name   string
	weight int
	do     func() bool
}

func (s *soak) actions() []action { // a new one is a line
	return []action{
		{killAWorker, 20, func() bool { return s.aWorker(func(pid int) bool { return syscall.Kill(pid, syscall.SIGKILL) == nil }) }},
		{terminateAWorker, 5, func() bool { return s.aWorker(func(pid int) bool { return syscall.Kill(pid, syscall.SIGTERM) == nil }) }},
		{"stop a worker", 10, func() bool { return s.aWorker(s.pause) }},
		{"stop a client", 5, func() bool { return s.pause(s.aClient().cmd.Process.Pid) }},
		{"kill a client", 2, s.killClient},
		{cancelACall, 5, s.cancelCall},
		{resizeThePool, 2, func() bool { return s.resize(1 + rand.IntN(5)) }},
		{restartThePool, 1, s.restart},
	}
}

// wreak does things at random. The last third of the time belongs to the last daemon.
func (s *soak) wreak(length time.Duration) {
	s.t.Helper()
	actions := s.actions()
	var lots []int // an action's index, as often as its weight
	for i, a := range actions {
		for range a.weight {
			lots = append(lots, i)
		}
	}
	kills := max(1, int(length/(10*time.Second))) // of the daemon
	began := time.Now()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for now := range tick.C {
		past := now.Sub(began)
		if past > length {
			break
		}
		s.resume(now)
		s.settle()
		if killed := s.chaos.did[killTheDaemon]; killed < kills && past > length*2/3*time.Duration(killed+1)/time.Duration(kills) {
			s.killDaemon()
			continue
		}
		if a := actions[lots[rand.IntN(len(lots))]]; a.do() {
			s.chaos.did[a.name]++
		}
	}
	s.resume(time.Now().Add(time.Hour))
	s.awaitRestart()
}

// settle counts what was asked for and has come to its end.
func (s *soak) settle() {
	s.t.Helper()
	c := &s.chaos
	select {
	case err := <-c.restarted:
		s.countRestart(err)
	default:
	}
	if c.size > 0 {
		info, err := s.shared().Info(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		if int(info.Idle+info.Busy) == c.size && info.Starting == 0 {
			c.size = 0
			c.did[resizeThePool]++
		}
	}
	if len(c.cancelled) > 0 {
		calls, err := s.control.Calls(s.t.Context(), "")
		if err != nil {
			s.t.Fatal(err)
		}
		going := make(map[string]bool)
		for _, call := range calls {
			going[call.Id] = true
		}
		for id := range c.cancelled {
			if !going[id] {
				delete(c.cancelled, id)
				c.did[cancelACall]++
			}
		}
	}
}

// calm does once more, under load but with nothing else happening, what can fail while everything does: now it must succeed.
func (s *soak) calm() {
	s.t.Helper()
	s.resize(soakWorkers + 1)
	eventually(s.t, patience, func() string {
		if s.settle(); s.chaos.size > 0 {
			return fmt.Sprintf("the pool does not come to %d workers", s.chaos.size)
		}
		return ""
	})
	pool, work := s.shared(), client.Func[int, int]("work")
	eventually(s.t, patience, func() string { // a task of a client may kill the first new worker
		if _, err := pool.Restart(s.t.Context()); err != nil {
			return err.Error()
		}
		return ""
	})
	r := client.MapAsync(s.t.Context(), pool, work, []int{77}) // it hangs
	eventually(s.t, patience, func() string {
		calls, err := s.control.Calls(s.t.Context(), "shared")
		if err != nil {
			s.t.Fatal(err)
		}
		for _, call := range calls {
			if call.Pid == int64(os.Getpid()) && call.RunningTasks > 0 {
				if err := s.control.Cancel(s.t.Context(), call.Id); err != nil {
					s.t.Fatal(err)
				}
				return ""
			}
		}
		return "the task that hangs does not run"
	})
	if _, err := r.Get(s.t.Context()); !errors.Is(err, client.ErrCancelled) {
		s.t.Errorf("a task that was cancelled has %v", err)
	}
	if _, err := client.Apply(s.t.Context(), pool, work, 77, client.TaskTimeout(50*time.Millisecond)); !errors.Is(err, client.ErrTimeout) {
		s.t.Errorf("a task that hangs has %v after its timeout", err)
	}
}

func (s *soak) aClient() *soakClient { return s.clients[rand.IntN(len(s.clients))] }

// killClient kills a client; another one takes its place.
func (s *soak) killClient() bool {
	i := rand.IntN(len(s.clients))
	c := s.clients[i]
	c.cmd.Process.Kill()
	_ = c.cmd.Wait() // killed, as it should be, unless it has failed before
	if c.cmd.ProcessState.Exited() {
		s.t.Errorf("a client: %v\n%s", c.cmd.ProcessState, c.errs.String())
	}
	s.count(c)
	delete(s.chaos.paused, c.cmd.Process.Pid)
	s.clients[i] = s.newClient()
	return true
}

// aWorker does something to a worker of any pool.
func (s *soak) aWorker(do func(pid int) bool) bool {
	s.t.Helper()
	workers, err := s.control.Workers(s.t.Context(), "")
	if err != nil {
		s.t.Fatal(err)
	}
	if len(workers) == 0 {
		return false
	}
	pid := int(workers[rand.IntN(len(workers))].Pid)
	return pid > 0 && do(pid)
}

// cancelCall cancels a call, whoever has made it.
func (s *soak) cancelCall() bool {
	s.t.Helper()
	calls, err := s.control.Calls(s.t.Context(), "")
	if err != nil {
		s.t.Fatal(err)
	}
	if len(calls) == 0 {
		return false
	}
	call := calls[rand.IntN(len(calls))]
	switch err := s.control.Cancel(s.t.Context(), call.Id); {
	case err == nil:
		s.chaos.cancelled[call.Id] = true
		s.chaos.cancels++
		if !call.InputEnded {
			s.chaos.cutting++
		}
	case !errors.Is(err, client.ErrUnknownCall): // that one has ended meanwhile
		s.t.Error(err)
	}
	return false
}

// shared is the pool that all clients use.
func (s *soak) shared() *client.Pool {
	s.t.Helper()
	pool, err := s.control.Pool(s.t.Context(), "shared")
	if err != nil {
		s.t.Fatal(err)
	}
	return pool
}

func (s *soak) resize(workers int) bool {
	s.t.Helper()
	if err := s.shared().Resize(s.t.Context(), workers); err != nil {
		s.t.Error(err)
	}
	s.chaos.size = workers
	return false
}

// restart has the workers replaced one by one, unless they are being replaced. It does not wait for that.
func (s *soak) restart() bool {
	s.t.Helper()
	if s.chaos.restarting {
		return false
	}
	s.chaos.restarting = true
	pool := s.shared()
	go func() { // awaitRestart waits for it
		ctx, cancel := context.WithTimeout(s.t.Context(), patience)
		defer cancel()
		_, err := pool.Restart(ctx)
		s.chaos.restarted <- err // never blocks: there is one at a time
	}()
	return false
}

// countRestart counts a restart that has ended well. It fails when the first new worker is killed by what else happens.
func (s *soak) countRestart(err error) {
	s.t.Helper()
	s.chaos.restarting = false
	switch {
	case err == nil:
		s.chaos.did[restartThePool]++
	case !errors.Is(err, client.ErrBootFailure):
		s.t.Error(err)
	}
}

// awaitRestart waits for the end of a restart that goes on.
func (s *soak) awaitRestart() {
	s.t.Helper()
	if s.chaos.restarting {
		s.countRestart(<-s.chaos.restarted)
	}
}

// pause stops a process for a while.
func (s *soak) pause(pid int) bool {
	if syscall.Kill(pid, syscall.SIGSTOP) != nil {
		return false
	}
	s.chaos.paused[pid] = time.Now().Add(time.Duration(rand.IntN(400)) * time.Millisecond)
	return true
}

// resume lets those go on whose time has come.
func (s *soak) resume(now time.Time) {
	for pid, until := range s.chaos.paused {
		if now.After(until) {
			syscall.Kill(pid, syscall.SIGCONT)
			delete(s.chaos.paused, pid)
		}
	}
}

// killDaemon kills the daemon, waits until nothing of it is left, and starts the next one at the same place.
func (s *soak) killDaemon() {
	s.t.Helper()
	c := &s.chaos
	c.did[killTheDaemon]++
	for pid := range c.paused { // clients must see the end of the daemon; stopped workers have a guardian
		if s.isClient(pid) {
			syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	clear(c.paused)
	s.daemon.Process.Kill()
	_ = s.daemon.Wait() // killed, as it should be
	s.control.Close()
	if c.restarting { // it has ended with the daemon, if not before
		<-c.restarted
		c.restarting = false
	}
	clear(c.cancelled)
	c.size = 0
	s.gone()
	s.start()
}
