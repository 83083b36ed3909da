package main

import (
	"context"
	"runtime/debug"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/procpool/procpool/server"
	"github.com/procpool/procpool/server/metrics"
)

// serveMetrics serves the metrics of s at an address, unless that is empty, until stop is called. The daemon goes on without them if something breaks.
func serveMetrics(addr string, s *server.Server, log hclog.Logger) (stop func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	l, err := metrics.Listen(addr)
	if err != nil {
		return nil, err
	}
	log.Info("serving metrics", "addr", addr)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // waited for by stop
		defer close(done)
		if err := metrics.Serve(ctx, l, metrics.New(&thrifty{Server: s}, version())); err != nil {
			log.Error("metrics", "error", err)
		}
	}()
	return func() {
		cancel()
		<-done
	}, nil
}

// thrifty gives memory back when nothing has been done since the last scrape. With gcPercent, the garbage of scrapes alone would otherwise grow to a
// multiple of what an idle daemon needs.
type thrifty struct {
	*server.Server
	work atomic.Uint64 // as of the last scrape
}

// Stats is that of the server.
func (t *thrifty) Stats(ctx context.Context) (*server.Stats, error) {
	stats, err := t.Server.Stats(ctx)
	if err != nil {
		return nil, err
	}
	work := uint64(1) // so that the first one does not look idle
	for i := range stats.Pools {
		work += stats.Pools[i].Dispatched + stats.Pools[i].Pending + stats.Pools[i].Starts
	}
	if t.work.Swap(work) == work {
		debug.FreeOSMemory()
	}
	return stats, nil
}
