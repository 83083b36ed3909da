package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
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
	network, address, err := ParseAddr(addr)
	switch {
	case err != nil:
		return nil, fmt.Errorf("metrics: %w", err)
	case network == "unix":
		return server.Listen(address, 0o600)
	}
	return net.Listen(network, address)
}

// ParseAddr reads an address as Listen takes it.
func ParseAddr(addr string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok && path != "" {
		return "unix", path, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "", "", fmt.Errorf("address %q is neither unix:PATH nor 127.0.0.1:PORT", addr)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return "", "", fmt.Errorf("address %q is open to the whole network; write unix:PATH or 127.0.0.1:PORT, and let a proxy do the rest", addr)
	}
	return "tcp", addr, nil
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
