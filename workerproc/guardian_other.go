//go:build !linux

package workerproc

import (
	"errors"
	"fmt"
)

func guardable() error { return fmt.Errorf("this system has no pidfd: %w", errors.ErrUnsupported) }

// run has no guardian to offer.
func (g *Guardian) run() {
	defer close(g.done)
	err := fmt.Errorf("the guardian: %w", guardable())
	g.set(0, err)
	g.report(err)
	for range g.awake {
		if _, closed := g.take(false); closed {
			return
		}
	}
}
