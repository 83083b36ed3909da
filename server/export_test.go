package server

import (
	"runtime"
	"time"

	"github.com/procpool/procpool/proto/wire"
	"github.com/procpool/procpool/server/internal/sched"
)

// Crash has the owner of a pool panic while the process of one more worker is being started, or has been and the owner has not heard of it. Before that it waits
// until something else has been posted, which it will never apply.
func (s *Server) Crash(pool string, workers int, born bool) error {
	p, err := s.pool(pool)
	if err != nil {
		return err
	}
	p.post(func(now time.Time) {
		p.core.Resize(now, workers)
		p.perform(p.core.Settle(now))
		for _, w := range p.workers {
			if born {
				<-w.born
			}
		}
		for posted := false; !posted; runtime.Gosched() {
			p.mu.Lock()
			posted = len(p.inbox) > 0
			p.mu.Unlock()
		}
		panic("so long")
	})
	return nil
}

// AddRuin adds a pool that has no owner, and nothing else that a handler relies on. The func that it returns takes it out again.
func (s *Server) AddRuin(name string) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pools[name] = &pool{name: name}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.pools, name)
	}
}

// Garble gives the calls of a pool a result that no worker could have sent: its sizes do not add up.
func (s *Server) Garble(pool string) error {
	p, err := s.pool(pool)
	if err != nil {
		return err
	}
	p.post(func(time.Time) {
		for _, c := range p.calls {
			c.mu.Lock()
			c.next.Results = append(c.next.Results, wire.Results{Values: wire.Batch{Sizes: []uint32{1000}}})
			c.waiting = true
			c.mu.Unlock()
			c.flush()
		}
	})
	return nil
}

// Cut cancels the calls of a pool, or terminates it, and returns meanwhile: the owner goes on when so many events wait that have been posted since.
func (s *Server) Cut(pool string, terminate bool, waiting int) error {
	p, err := s.pool(pool)
	if err != nil {
		return err
	}
	cut := make(chan struct{}) // closed when what is posted is no longer applied together with this
	p.post(func(now time.Time) {
		if terminate {
			p.core.Terminate(now, sched.NoReason)
		} else {
			for _, c := range p.calls {
				p.cancelAll(now, c, "a test", sched.CallCancelled)
			}
		}
		close(cut)
		for n := 0; n < waiting; runtime.Gosched() {
			p.mu.Lock()
			n = len(p.inbox)
			p.mu.Unlock()
		}
	})
	<-cut
	return nil
}
