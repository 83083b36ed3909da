package server

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Pulse is what a daemon has in hand.
type Pulse struct{ Pools, Workers, Calls int }

// Pulse asks the owner of every pool and returns when all have answered. A watchdog learns by it that the daemon works, rather than that its process
// exists: an owner that hangs does not answer, and nobody else answers for it. ctx is how long that may take.
func (s *Server) Pulse(ctx context.Context) (Pulse, error) {
	var all Pulse
	for _, p := range s.allPools() {
		var workers, calls int
		err := p.ask(ctx, func(time.Time) { workers, calls = len(p.workers), len(p.calls) })
		if errors.Is(err, errPoolEnded) {
			continue
		}
		if err != nil {
			return all, fmt.Errorf("the owner of pool %s does not answer: %w", p.name, err)
		}
		all.Pools++
		all.Workers += workers
		all.Calls += calls
	}
	return all, nil
}
