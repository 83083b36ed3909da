package workerproc

import (
	"errors"
	"sync"
)

// Guardian sees to it that no worker survives this process, and no child of one in its group, however this process ends: it has a small process beside it
// that outlives it for the moment this takes. A worker that can run code then ends by itself; the guardian is for those that are stopped, hang in C code, or
// were made without this package.
//
// It starts a moment after the first worker, and nobody waits for it. Where it cannot be had, workers have their lifeline alone, and State says so.
type Guardian struct {
	report  func(error)
	cgroups *Cgroups // all that is in there ends as well; nil: there are none

	mu      sync.Mutex
	workers map[*Process]uint32 // those that live, with the numbers they have there
	last    uint32
	news    []change
	running bool
	closed  bool
	pid     int           // of its process, once that has said that it is ready
	err     error         // why there is none
	awake   chan struct{} // one slot: there are news, or it is closed
	done    chan struct{} // closed when run has returned
}

// change is a worker that has come or gone.
type change struct {
	id   uint32
	proc *Process // nil: it has gone
}

// NewGuardian makes a guardian of workers and of what else is in their cgroups, if there are some, that reports its misfortunes. Close ends it.
func NewGuardian(cgroups *Cgroups, report func(error)) *Guardian {
	return &Guardian{report: report, cgroups: cgroups, workers: make(map[*Process]uint32), awake: make(chan struct{}, 1), done: make(chan struct{})}
}

var errStarting = errors.New("it is being started")

// State is the process id of the guardian; 0 if there has been no worker yet. An error says why there is none, or would be none.
func (g *Guardian) State() (pid int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !g.running:
		return 0, guardable()
	case g.pid == 0 && g.err == nil:
		return 0, errStarting
	default:
		return g.pid, g.err
	}
}

// Close ends the guardian. All workers must have been reaped.
func (g *Guardian) Close() {
	g.mu.Lock()
	running := g.running
	g.closed = true
	g.mu.Unlock()
	if running {
		g.wake()
		<-g.done
	}
}

// guard takes care of a new worker.
func (g *Guardian) guard(p *Process) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.last++
	g.workers[p] = g.last
	g.news = append(g.news, change{g.last, p})
	if !g.running {
		g.running = true
		go g.run()
	}
	g.wake()
}

// forget leaves a worker alone that has been reaped.
func (g *Guardian) forget(p *Process) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if id, ok := g.workers[p]; ok {
		delete(g.workers, p)
		g.news = append(g.news, change{id: id})
		g.wake()
	}
}

func (g *Guardian) wake() {
	select {
	case g.awake <- struct{}{}:
	default:
	}
}

func (g *Guardian) set(pid int, err error) {
	g.mu.Lock()
	g.pid, g.err = pid, err
	g.mu.Unlock()
}

// take is what has happened since the last time. A new guardian must be told of all workers.
func (g *Guardian) take(all bool) (news []change, closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	news, g.news = g.news, nil
	if all {
		news = nil
		for p, id := range g.workers {
			news = append(news, change{id, p})
		}
	}
	return news, g.closed
}
