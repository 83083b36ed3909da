package mapping

import (
	"context"
	"sync"
	"time"
)

// gate lets commands begin: no more than may be under way, not too soon after each other, while there is memory, and until it is closed.
type gate struct {
	slots     int                   // how many may be under way
	window    int                   // and how many may be there whose output has not been written; 0: any number
	delay     time.Duration         // between two beginnings
	memory    int64                 // that must be available; 0: any
	available func() (int64, error) // how much is
	waiting   func(available int64) // is told once each time that memory lacks

	mu        sync.Mutex
	under     int       // way
	unwritten int       // those, and those that have ended
	next      time.Time // when the next one may begin
	closed    bool
	changed   chan struct{} // has room for one: some count has become less, or the gate is closed
}

// memoryPoll is how often a command that waits for memory looks for it.
const memoryPoll = 250 * time.Millisecond

func newGate(slots int) *gate { return &gate{slots: slots, changed: make(chan struct{}, 1)} }

// enter waits until a command may begin, and counts it. False: none will any more. It is called by one goroutine.
func (g *gate) enter(ctx context.Context) (bool, error) {
	told := false
	for {
		wait := g.full()
		if wait == 0 && g.memory > 0 {
			free, err := g.available()
			if err != nil {
				return false, err
			}
			if free < g.memory {
				wait = memoryPoll
				if !told {
					told = true
					g.waiting(free)
				}
			}
		}
		if wait == 0 && g.begin() {
			return true, nil
		}
		if g.isClosed() {
			return false, nil
		}
		var timer *time.Timer
		var elapsed <-chan time.Time // never, unless there is something to wait for
		if wait > 0 {
			timer = time.NewTimer(wait)
			elapsed = timer.C
		}
		over := false
		select {
		case <-elapsed:
		case <-g.changed:
		case <-ctx.Done():
			over = true // whoever has ended it knows why
		}
		if timer != nil {
			timer.Stop()
		}
		if over {
			return false, nil
		}
	}
}

// full is how long it takes until a command may begin: 0 for now, less for when another one has ended.
func (g *gate) full() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.under >= g.slots || (g.window > 0 && g.unwritten >= g.window) {
		return -1
	}
	return max(time.Until(g.next), 0)
}

func (g *gate) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.under++
	g.unwritten++
	if g.delay > 0 {
		g.next = time.Now().Add(g.delay)
	}
	return true
}

// ended says that a command has ended.
func (g *gate) ended() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.under--
	g.wake()
}

// wrote says that the output of a command has been written.
func (g *gate) wrote() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unwritten--
	g.wake()
}

// shut lets no command begin any more.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.wake()
}

func (g *gate) isClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// drained says that the gate is closed and nothing is under way any more.
func (g *gate) drained() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed && g.under == 0
}

// wake is called with the lock held.
func (g *gate) wake() {
	select {
	case g.changed <- struct{}{}:
	default: // it will look anyway
	}
}
