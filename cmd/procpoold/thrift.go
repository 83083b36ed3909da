package main

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/procpool/procpool/server"
)

// When an idle daemon gives memory back: after its last call, and then now and then, because being looked at makes garbage, too.
const (
	idleAfter = 5 * time.Second
	idleEvery = time.Minute
)

// giveBack gives memory back to the system when there is nothing to do, until ctx ends. With gcPercent the collector alone would leave an idle daemon with
// a multiple of what it needs.
func giveBack(ctx context.Context, s *server.Server) {
	ticker := time.NewTicker(idleAfter)
	defer ticker.Stop()
	var last time.Time // when it did
	var before, done uint64
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		open, ever := s.Calls()
		idle := open == 0 && ever == before // all the while
		before = ever
		if idle && (ever != done || time.Since(last) >= idleEvery) {
			debug.FreeOSMemory()
			last, done = time.Now(), ever
		}
	}
}
