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
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/procpool/procpool/cmd/procpoold/internal/config"
	"github.com/procpool/procpool/server"
	"github.com/procpool/procpool/workerproc/lines"
	"github.com/spf13/cobra"
)

// Exit statuses.
const (
	exitFailure = 1 // it could not serve
	exitUsage   = 2 // the command line or the configuration is wrong
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

func run() int {
	status := 0
	if err := newCommand(&status).Execute(); err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(os.Stderr, "procpoold:", strings.TrimSuffix(line, "\n"))
		}
		if status == 0 {
			fmt.Fprintln(os.Stderr, "procpoold --help tells more")
			return exitUsage
		}
	}
	return status
}

// newCommand is the command line. What it runs leaves its exit status in status.
func newCommand(status *int) *cobra.Command {
	var check, show bool
	cmd := &cobra.Command{
		Use:   "procpoold",
		Short: "Keep pools of worker processes for other programs",
		Long: `procpoold starts worker processes, hands them the tasks of its clients and streams the results back.

It runs in the foreground. In user mode it serves the user who started it: programs find it by $PROCPOOL_ADDR, or at the default address
($XDG_RUNTIME_DIR/procpool/api.sock); "procpool create" makes a pool, "procpool map --pool" uses it. In system mode (--mode system) it has a
user of its own and serves the members of a group, and its pools come from files of the administrator.

Each flag can also be set in the environment, --log-level as $PROCPOOLD_LOG_LEVEL, and in the configuration file, as log_level. A flag wins
over the environment, and that over the file. Pools are in conf.d/NAME.toml beside that file. docs/configuration.md has all keys.

SIGTERM and SIGINT stop it: no new calls, the accepted ones end (at most --drain-timeout), workers stop. A second signal ends it
at once; no worker survives it either way. SIGHUP reads the configuration again: pools are made, drained, resized and restarted worker by
worker, and the log level changes.

Exit status: 0 stopped as told, 1 could not serve, 2 wrong command line or configuration, 3 did not stop in time.`,
		Example: `  procpoold &
  procpool create counting -j 4 -- /usr/local/bin/my-worker
  procpool map --pool counting --func count_chars ::: README.md go.mod

  procpoold --mode system --check-config`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
	}
	cmd.SetVersionTemplate("procpoold {{.Version}}\n")
	f := cmd.Flags()
	f.SortFlags = false
	file := f.String("config", "", "configuration `FILE` (default procpool/procpoold.toml in the user's configuration directory, in system mode in /etc; if it exists)")
	for _, k := range config.Keys() {
		f.Var(&text{kind: k.Placeholder}, strings.TrimPrefix(config.Flag(k.Name), "--"), fmt.Sprintf("%s (default %s)", k.Help, k.Default))
	}
	f.BoolVar(&check, "check-config", false, "say what is wrong with the configuration, and exit")
	f.BoolVar(&show, "print-config", false, "print the values that hold and where each comes from, and exit")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		load := func() (*config.Config, error) {
			given := make(map[string]string)
			for _, k := range config.Keys() {
				if flag := f.Lookup(strings.TrimPrefix(config.Flag(k.Name), "--")); flag.Changed {
					given[k.Name] = flag.Value.String()
				}
			}
			return config.Load(config.Source{Flags: given, Env: os.Environ(), File: *file})
		}
		cfg, err := load()
		switch {
		case err != nil:
			*status = exitUsage
			return err
		case show:
			return cfg.Print(cmd.OutOrStdout())
		case check:
			fmt.Fprintf(cmd.OutOrStdout(), "the configuration is right: %s\n", cfg)
			return nil
		}
		*status, err = serve(cmd.Context(), cfg, load)
		return err
	}
	return cmd
}

// text is the value of a flag, as it was given: what is wrong with it the configuration says.
type text struct{ value, kind string }

func (t *text) String() string     { return t.value }
func (t *text) Set(v string) error { t.value = v; return nil }
func (t *text) Type() string       { return t.kind }

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// serve runs the daemon until a signal. load reads the configuration again.
func serve(ctx context.Context, cfg *config.Config, load func() (*config.Config, error)) (status int, err error) {
	again := make(chan os.Signal, 1) // one slot: two reloads that nobody has begun are one
	signal.Notify(again, syscall.SIGHUP)
	defer signal.Stop(again)
	// A log that nobody reads any more is a write that fails, not the end of the daemon. To ignore the signal would hand that down to the workers.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	log := newLogger(hclog.LevelFromString(cfg.LogLevel), cfg.LogFormat == "json")
	if err := keepDescriptors(); err != nil {
		log.Warn("workers get what this process was started with", "reason", err)
	}
	system, err := systemMode(cfg)
	if err != nil {
		return exitFailure, err
	}
	held, err := inherited()
	if err != nil {
		return exitFailure, err
	}
	if held != nil {
		compareSocket(held.Addr().String(), cfg, log)
	}
	s, err := server.New(server.Config{
		Dir: filepath.Dir(cfg.Addr), Addr: cfg.Addr, Listener: held, SocketMode: cfg.SocketMode, System: system, Cgroup: cfg.Cgroup, PerUser: cfg.Limits(), DrainTimeout: cfg.DrainTimeout, Logger: log,
		Services: inspection,
	})
	switch {
	case errors.Is(err, server.ErrDirInUse):
		return exitUsage, err
	case err != nil:
		return exitFailure, err
	}
	stopMetrics, err := serveMetrics(cfg.Metrics, s, log)
	if err != nil {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		return exitFailure, errors.Join(err, s.Run(ended)) // which takes the sockets away
	}
	defer stopMetrics()
	unit := newUnit(log)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, func() {
		stop() // a second signal has its usual effect: the daemon dies, and no worker survives it
		time.AfterFunc(cfg.DrainTimeout+stopMargin, func() {
			log.Error("did not stop in time")
			os.Exit(exitTimeout)
		})
		unit.stopping(cfg.DrainTimeout + stopMargin)
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wrong := s.Configure(pools(cfg))
	if wrong != nil {
		cancel() // half of a configuration is none: what has been started ends below
	} else {
		unit.ready()
	}
	rested := make(chan struct{})
	go func() { // ends with ctx, and serve waits for it
		defer close(rested)
		giveBack(ctx, s)
	}()
	reloaded := make(chan struct{})
	go func() { // ends with ctx, and serve waits for it
		defer close(reloaded)
		for {
			select {
			case <-again:
				unit.reloading()
				unit.reloaded(reload(s, log, cfg, load))
			case <-ctx.Done():
				return
			}
		}
	}()
	watched, unwatch := context.WithCancel(context.WithoutCancel(ctx)) // while it drains, too
	reported := make(chan struct{})
	go func() { // ends with watched, and serve waits for it
		defer close(reported)
		unit.report(watched, s)
	}()
	err = s.Run(ctx)
	cancel()
	<-reloaded
	<-rested
	unwatch()
	<-reported
	switch {
	case wrong != nil:
		return exitUsage, errors.New(config.Explain(wrong))
	case err != nil && !errors.Is(err, context.Canceled):
		return exitFailure, err
	}
	return 0, nil
}

// stopMargin is how long stopping may take beyond the drain timeout: killing workers and ending streams.
const stopMargin = 20 * time.Second

// systemMode makes the process fit for system mode, if that is the mode.
func systemMode(cfg *config.Config) (*server.System, error) {
	if !cfg.System {
		return nil, nil
	}
	if os.Getuid() == 0 {
		return nil, errors.New("in system mode procpoold and its workers have a user of their own, and this is root: " +
			"name one with User= in its unit, or start it by setpriv --reuid=procpool --regid=procpool --init-groups procpoold --mode system")
	}
	if err := undumpable(); err != nil {
		return nil, err
	}
	system := &server.System{Clients: cfg.SocketGroup.GID}
	if cfg.AdminGroup.Name != "" {
		system.Admins = &cfg.AdminGroup.GID
	}
	return system, nil
}

func pools(cfg *config.Config) (list []server.PoolConfig) {
	for i := range cfg.Pools {
		list = append(list, cfg.Pools[i].Config())
	}
	return list
}

// reload reads the configuration again, makes of it what can be made while the daemon runs, and says what cannot. A configuration that is wrong changes
// nothing. first is the one that the daemon was started with. What came of it is returned in a few words, empty if all is well.
func reload(s *server.Server, log hclog.Logger, first *config.Config, load func() (*config.Config, error)) (note string) {
	next, err := load()
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			log.Error("the configuration is wrong, so nothing has changed", "problem", strings.TrimSuffix(line, "\n"))
		}
		return "the new configuration is wrong, see the log"
	}
	if names := first.Unchangeable(next); len(names) > 0 {
		log.Warn("the daemon must be restarted for some of its new configuration", "keys", strings.Join(names, " "))
		note = "to be restarted for its new configuration"
	}
	log.SetLevel(hclog.LevelFromString(next.LogLevel))
	if err := s.Configure(pools(next)); err != nil {
		for line := range strings.Lines(config.Explain(err)) {
			log.Warn("some of the new configuration does not hold", "reason", strings.TrimSuffix(line, "\n"))
		}
		note = "some of the new configuration does not hold, see the log"
	}
	log.Info("reloaded", "pools", len(next.Pools))
	return note
}
