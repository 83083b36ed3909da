package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/procpool/procpool/server"
)

// Listen binds the address of the metrics: "unix:PATH", a socket of mode 0600; or a loopback address with a port, "127.0.0.1:9464". Any other is refused:
// the metrics name pools, functions and what they do, and who asks is not known.
func Listen(addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return server.Listen(path, 0o600)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("the address of the metrics is %q; write unix:PATH or 127.0.0.1:PORT", addr)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("the metrics would be there for everybody on the network at %q; write unix:PATH or 127.0.0.1:PORT, and let a proxy do the rest", addr)
	}
	return net.Listen("tcp", net.JoinHostPort(host, port))
}

// Serve answers GET /metrics until ctx is done: the daemon's numbers, and those of its own process and Go runtime. It closes the listener.
func Serve(ctx context.Context, l net.Listener, c *Collector) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "the metrics of procpoold are at /metrics\n")
	})
	h := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: 64 << 10}
	stop := context.AfterFunc(ctx, func() { h.Close() })
	defer stop()
	if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the metrics: %w", err)
	}
	return nil
}
