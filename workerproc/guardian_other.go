//go:build !linux

package workerproc

import (
	"errors"
	"fmt"
)

// run has no guardian to offer.
func (g *Guardian) run() {
	defer close(g.done)
	err := fmt.Errorf("the guardian: this system has no pidfd: %w", errors.ErrUnsupported)
	g.set(0, err)
	g.report(err)
	for range g.awake {
		if _, closed := g.take(false); closed {
			return
		}
	}
}
