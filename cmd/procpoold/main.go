// Procpoold is the procpool daemon: it keeps pools of worker processes for other programs.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/server"
	"github.com/procpool/procpool/workerproc/lines"
	"github.com/spf13/cobra"
)

// Exit statuses.
const (
	exitFailure = 1 // it could not serve
	exitUsage   = 2 // the command line is wrong
	exitTimeout = 3 // it did not stop in time and was cut off
)

func main() {
	lines.Main() // for pools of line workers, whose adapter is this program
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(run())
}

// gcPercent is how much garbage there may be beside what lives. What lives in a daemon is a few megabytes, and what comes through it is many
// times that: with Go's 100 the collector would run all the time. $GOGC says otherwise.
const gcPercent = 400

// options are the flags.
type options struct {
	addr         string
	cgroup       string
	logLevel     string
	logFormat    string
	drainTimeout time.Duration
}

func run() int {
	var opts options
	status := 0
	cmd := &cobra.Command{
		Use:   "procpoold",
		Short: "Keep pools of worker processes for other programs",
		Long: `procpoold starts worker processes, hands them the tasks of its clients and streams the results back.

It runs in the foreground and serves the user who started it. Programs find it by $PROCPOOL_ADDR, or at the default address
($XDG_RUNTIME_DIR/procpool/api.sock). "procpool create" makes a pool, "procpool map --pool" uses it.

SIGTERM and SIGINT stop it: no new calls, the accepted ones end (at most --drain-timeout), workers stop. A second signal ends it
at once; no worker survives it either way.

Exit status: 0 stopped as told, 1 could not serve, 2 wrong command line, 3 did not stop in time.`,
		Example: `  procpoold &
  procpool create counting -j 4 -- /usr/local/bin/my-worker
  procpool map --pool counting --func count_chars ::: README.md go.mod`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			status, err = serve(cmd.Context(), opts)
			return err
		},
	}
	cmd.SetVersionTemplate("procpoold {{.Version}}\n")
	f := cmd.Flags()
	f.StringVar(&opts.addr, "addr", "", "path of the client socket (default the user's: see procpool addr)")
	f.StringVar(&opts.cgroup, "cgroup", "auto", "where workers have cgroups of their own: auto, below the daemon's if it has been delegated;\noff; or the directory of one, which is made if it is not there")
	f.StringVar(&opts.logLevel, "log-level", "info", "trace, debug, info, warn or error")
	f.StringVar(&opts.logFormat, "log-format", "text", "text or json")
	f.DurationVar(&opts.drainTimeout, "drain-timeout", 60*time.Second, "how long accepted calls may go on after SIGTERM")
	if err := cmd.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "procpoold:", err)
		if status == 0 {
			fmt.Fprintln(os.Stderr, "procpoold --help tells more")
			return exitUsage
		}
	}
	return status
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// serve runs the daemon until a signal.
func serve(ctx context.Context, opts options) (status int, err error) {
	level := hclog.LevelFromString(opts.logLevel)
	if level == hclog.NoLevel {
		return 0, fmt.Errorf("--log-level is %q; it must be trace, debug, info, warn or error", opts.logLevel)
	}
	if opts.logFormat != "text" && opts.logFormat != "json" {
		return 0, fmt.Errorf("--log-format is %q; it must be text or json", opts.logFormat)
	}
	if opts.drainTimeout <= 0 {
		return 0, fmt.Errorf("--drain-timeout is %v; it must be more than 0", opts.drainTimeout)
	}
	log := hclog.New(&hclog.LoggerOptions{Name: "procpoold", Level: level, JSONFormat: opts.logFormat == "json", Output: os.Stderr})
	if opts.addr == "" {
		opts.addr = client.Addresses()[0]
	}
	if opts.addr, err = filepath.Abs(opts.addr); err != nil {
		return exitFailure, err
	}
	s, err := server.New(server.Config{Dir: filepath.Dir(opts.addr), Addr: opts.addr, Cgroup: opts.cgroup, DrainTimeout: opts.drainTimeout, Logger: log})
	if err != nil {
		return exitFailure, err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, func() {
		stop() // a second signal has its usual effect: the daemon dies, and no worker survives it
		time.AfterFunc(opts.drainTimeout+stopMargin, func() {
			log.Error("did not stop in time")
			os.Exit(exitTimeout)
		})
	})
	if err := s.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return exitFailure, err
	}
	return 0, nil
}

// stopMargin is how long stopping may take beyond the drain timeout: killing workers and ending streams.
const stopMargin = 20 * time.Second
