package main

import (
	"context"

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
		if err := metrics.Serve(ctx, l, metrics.New(s, version())); err != nil {
			log.Error("metrics", "error", err)
		}
	}()
	return func() {
		cancel()
		<-done
	}, nil
}
