// Procpool is the command line: it runs a command or a function over many items, in worker processes of its own or in a pool of a running
// daemon, and shows and steers what such a daemon does.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/cmd/procpool/internal/bench"
	"github.com/procpool/procpool/cmd/procpool/internal/exit"
	"github.com/procpool/procpool/cmd/procpool/internal/look"
	"github.com/procpool/procpool/cmd/procpool/internal/mapping"
	"github.com/procpool/procpool/cmd/procpool/internal/screen"
	"github.com/procpool/procpool/workerproc"
	"github.com/procpool/procpool/workerproc/lines"
)

func main() {
	lines.Main()
	workerproc.Main()
	os.Exit(run(os.Args[1:]))
}

// statusFailure is the exit status when procpool itself failed, or was called wrongly. The others are the number of failed items (exit.Failed), 124
// (statusTimeout), and 128 plus the number of a signal.
const statusFailure = 255

func run(args []string) int {
	ctx, stop := withSignals(context.Background())
	defer stop()
	root := newRootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)

	var interrupted exit.SignalError
	var status exit.StatusError
	switch {
	case errors.As(context.Cause(ctx), &interrupted):
		return 128 + int(interrupted.Signal)
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.Is(err, bench.ErrIncomplete):
		return 1
	case errors.Is(err, syscall.EPIPE):
		return 128 + int(syscall.SIGPIPE) // whoever read our output has enough, as head has
	}
	fmt.Fprintln(os.Stderr, "procpool:", oneLine(err))
	return statusFailure
}

// oneLine keeps a joined error on one line.
func oneLine(err error) string { return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ") }

// withSignals is a context that ends at the first SIGINT, SIGTERM or SIGHUP, with an exit.SignalError as its cause. The second one ends the process at
// once; its workers go with it.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2) // one to end, one to end at once
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // nohup means it
			signal.Notify(signals, s)
		}
	}
	// A closed stdout is an error of a write, not the end of the process. To ignore the signal would hand that down to the commands.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	done := make(chan struct{})
	go func() {
		select {
		case s := <-signals:
			cancel(exit.SignalError{Signal: s.(syscall.Signal)})
		case <-done:
			return
		}
		select {
		case s := <-signals:
			os.Exit(128 + int(s.(syscall.Signal)))
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

// globals are the flags that every command has.
type globals struct{ addr string }

func (g *globals) dial(ctx context.Context) (*client.Client, error) { return client.Dial(ctx, g.addr) }

// withClient is a command's function that talks to the daemon.
func withClient(g *globals, f func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := g.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer c.Close()
		return f(cmd.Context(), c, args)
	}
}

func newRootCommand() *cobra.Command {
	var g globals
	root := &cobra.Command{
		Use:   "procpool",
		Short: "Run commands and functions in pools of worker processes",
		Long: `procpool runs a command over many inputs, each in its turn and several at a time. That needs no daemon:

  procpool map -- wc -m {} ::: README.md go.mod

With a running procpoold it makes pools, runs their functions, and shows what goes on.`,
		Example: `  procpool map -j 4 --tag -- gzip -k {} ::: *.log
  procpool create counting -j 2 -- ./countchars
  procpool map --pool counting --func count_chars ::: $PWD/*.md
  procpool workers -o json`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q; to run it over items: procpool map -- %s", args[0], strings.Join(args, " "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("procpool {{.Version}}\n")
	root.PersistentFlags().StringVar(&g.addr, "addr", "", "socket of the daemon (default: see procpool addr)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w (%s --help tells more)", err, cmd.CommandPath())
	})
	root.AddCommand(
		withTimeout(newCreateCommand(&g)), withTimeout(newResizeCommand(&g)), withTimeout(newRestartCommand(&g)), newLogsCommand(&g),
		withTimeout(newCloseCommand(&g)), withTimeout(newJoinCommand(&g)), withTimeout(newTerminateCommand(&g)), withTimeout(newCancelCommand(&g)),
		newAddrCommand(&g), newDoctorCommand(&g), newVersionCommand(&g),
	)
	root.AddCommand(mapping.Commands(g.dial)...)
	root.AddCommand(look.Commands(g.dial)...)
	root.AddCommand(newBenchCommands(&g)...)
	root.AddCommand(newTopics()...)
	root.AddCommand(newManCommand())
	addCompletions(root, &g)
	return root
}

// newBenchCommands are those of bench, as a part of this program.
func newBenchCommands(g *globals) []*cobra.Command {
	return bench.Commands(func() bench.Host {
		s := screen.New()
		return bench.Host{
			Addr: g.addr,
			Say:  func(problem string) { s.Say("%s", problem) },
			Show: func(doing string) {
				if s.Width > 0 {
					s.Show(screen.Shorten(doing, s.Width-1))
				}
			},
		}
	})
}

// version is the module's version, and the toolchain's.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version + " " + info.GoVersion
}
