package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/cmd/procpool/internal/flags"
)

func newCreateCommand(g *globals) *cobra.Command {
	var workers, maxTasks, minWorkers, spares, maxProcesses int
	var maxAge, maxIdle time.Duration
	var drainMemory, maxMemory string
	var peer string
	var lines flags.Lines
	cmd := &cobra.Command{
		Use:   "create NAME [flags] -- PROGRAM [ARG...]",
		Short: "Make a pool that lives until it is closed or terminated",
		Long: `Create makes a pool whose workers run PROGRAM, in the current directory and with the current environment. The daemon starts
them; "procpool pools" shows whether they come up.

With --lines PROGRAM is one that reads an item per line and answers each with a line. The pool's function is called line: strings
in, strings out; or JSON values, with --json-lines.`,
		Example: `  procpool create counting -j 2 -- ./countchars
  procpool map --pool counting --func count_chars ::: $PWD/*.md
  procpool create count -j 4 --lines -- python3 count.py
  procpool create leaky -j 4 --max-tasks 1000 --drain-memory 500M --spares 1 -- ./leaky`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return errors.New("which name? For example: procpool create counting -j 2 -- ./countchars")
			case len(args) == 1:
				return fmt.Errorf("which program do the workers of %q run? It follows \"--\"", args[0])
			case cmd.ArgsLenAtDash() != 1:
				return fmt.Errorf("write \"--\" before the program: procpool create %s -- %s", args[0], strings.Join(args[1:], " "))
			}
			return nil
		},
		RunE: withClient(g, func(ctx context.Context, c *client.Client, args []string) error {
			match, ok := peerMatches[peer]
			if !ok {
				return fmt.Errorf("--peer %s: it is exact, group or cgroup", peer)
			}
			bytes, err := flags.ParseBytes(drainMemory)
			if err != nil {
				return fmt.Errorf("--drain-memory: %w", err)
			}
			most, err := flags.ParseBytes(maxMemory)
			if err != nil {
				return fmt.Errorf("--max-memory: %w", err)
			}
			opts := []client.PoolOption{
				client.Workers(workers), client.Peer(match), client.MaxTasksPerWorker(maxTasks), client.MinWorkers(minWorkers),
				client.Spares(spares), client.DrainMemory(bytes), client.MaxMemory(most), client.MaxProcesses(maxProcesses),
			}
			program, err := lines.Program(args[1:], bytes)
			if err != nil {
				return err
			}
			opts = append(opts, program)
			if maxAge != 0 {
				opts = append(opts, client.MaxWorkerAge(maxAge))
			}
			if maxIdle != 0 {
				opts = append(opts, client.MaxWorkerIdle(maxIdle))
			}
			_, err = c.CreatePool(ctx, args[0], opts...)
			return err
		}),
		DisableFlagsInUseLine: true,
	}
	f := cmd.Flags()
	f.IntVarP(&workers, "workers", "j", 0, "number of workers (default: usable CPUs)")
	f.IntVar(&maxTasks, "max-tasks", 0, "replace a worker after so many tasks, or up to a tenth less")
	f.DurationVar(&maxAge, "max-age", 0, "replace a worker after so long, give or take 10 %")
	f.DurationVar(&maxIdle, "max-idle", 0, "stop a worker that has had no task for so long, until tasks wait again")
	f.IntVar(&minWorkers, "min-workers", 0, "with --max-idle: so many workers stay")
	f.IntVar(&spares, "spares", 0, "workers kept ready beside the others, for those that leave or die")
	f.StringVar(&drainMemory, "drain-memory", "", "replace a worker with more memory than this, after its task: bytes, or with K, M or G")
	f.StringVar(&maxMemory, "max-memory", "", "kill a worker that wants more memory than this, with its children; sizes as above")
	f.IntVar(&maxProcesses, "max-processes", 0, "processes and threads that a worker may have, with its children; needs cgroups (procpool doctor)")
	lines.Register(cmd)
	lines.RegisterNull(cmd)
	f.StringVar(&peer, "peer", "exact", "which process may register as a worker: exact, the one that was started; group, one of its process group,\n"+
		"for wrappers that wait for it (go run, uv run); cgroup, one of its cgroup")
	return cmd
}

func newResizeCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "resize POOL WORKERS",
		Short: "Change the number of workers of a pool",
		Long: `Resize starts workers, or lets some stop: idle ones at once, busy ones after their task. It does not wait for either.
Nothing is dropped.`,
		Example: `  procpool resize counting 8`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return errors.New("resize which pool to which size? For example: procpool resize counting 8")
			}
			return nil
		},
		RunE: withClient(g, func(ctx context.Context, c *client.Client, args []string) error {
			workers, err := strconv.Atoi(args[1])
			if err != nil {
				return fmt.Errorf("%q is not a number of workers", args[1])
			}
			pool, err := c.Pool(ctx, args[0])
			if err != nil {
				return err
			}
			return pool.Resize(ctx, workers)
		}),
	}
}

func newRestartCommand(g *globals) *cobra.Command {
	var lines flags.Lines
	cmd := &cobra.Command{
		Use:   "restart POOL [flags] [-- PROGRAM [ARG...]]",
		Short: "Replace the workers of a pool, one after the other",
		Long: `Restart replaces all workers of a pool, perhaps by those of another PROGRAM, which then runs in the current directory and with the
current environment; if it answers lines, say so again (--lines, which does not go with a pool's --drain-memory). Without one, the new
workers run what lies at the path of the pool's program now. No task is interrupted: a new worker is ready before an old one stops,
after its task. If the first new worker does not come up, the pool goes on as before.

It waits until the last worker has been replaced. After the timeout, or when it is interrupted, the restart goes on without it.`,
		Example: `  go build -o bin/ ./examples/countchars && procpool restart counting
  procpool restart counting --timeout 1m -- ./countchars-v2
  procpool restart count --lines -- python3 count2.py`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch dash := cmd.ArgsLenAtDash(); {
			case len(args) == 0 || dash == 0:
				return errors.New("restart which pool? One name (`procpool pools` lists them)")
			case len(args) > 1 && dash != 1:
				return fmt.Errorf("write \"--\" before the program: procpool restart %s -- %s", args[0], strings.Join(args[1:], " "))
			case len(args) == 1 && (lines.Given() || lines.Null):
				return fmt.Errorf("which program answers lines? procpool restart %s --lines -- PROGRAM; without a program the new workers are as the old ones", args[0])
			}
			return nil
		},
		RunE: withClient(g, func(ctx context.Context, c *client.Client, args []string) error {
			var opts []client.PoolOption
			if len(args) > 1 {
				program, err := lines.Program(args[1:], 0)
				if err != nil {
					return err
				}
				opts = append(opts, program)
			}
			pool, err := c.Pool(ctx, args[0])
			if err != nil {
				return err
			}
			_, err = pool.Restart(ctx, opts...)
			return err
		}),
		DisableFlagsInUseLine: true,
	}
	lines.Register(cmd)
	lines.RegisterNull(cmd)
	return cmd
}

var peerMatches = map[string]client.PeerMatch{"exact": client.PeerExact, "group": client.PeerGroup, "cgroup": client.PeerCgroup}

func newCloseCommand(g *globals) *cobra.Command {
	return newEndCommand(g, "close", "Let a pool take no new calls; it ends when it is done",
		func(_ context.Context, p *client.Pool) error { return p.Close() })
}

func newJoinCommand(g *globals) *cobra.Command {
	return newEndCommand(g, "join", "Wait until a closed pool has ended",
		func(ctx context.Context, p *client.Pool) error { return p.Join(ctx) })
}

func newTerminateCommand(g *globals) *cobra.Command {
	return newEndCommand(g, "terminate", "Drop a pool's work and kill its workers",
		func(_ context.Context, p *client.Pool) error { return p.Terminate() })
}

// newEndCommand is a command that ends a pool, or waits for its end, but no longer than its context. A pool that has ended already is well.
func newEndCommand(g *globals, name, short string, end func(context.Context, *client.Pool) error) *cobra.Command {
	return &cobra.Command{
		Use:   name + " POOL",
		Short: short,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%s which pool? One name (`procpool pools` lists them)", name)
			}
			return nil
		},
		RunE: withClient(g, func(ctx context.Context, c *client.Client, args []string) error {
			pool, err := c.Pool(ctx, args[0])
			if errors.Is(err, client.ErrPoolClosed) || errors.Is(err, client.ErrPoolTerminated) {
				return nil
			}
			if err != nil {
				return err
			}
			done := make(chan error, 1) // room for one: nobody may be waiting any more
			go func() { done <- end(ctx, pool) }()
			select {
			case err := <-done:
				return err
			case <-ctx.Done(): // Close and Terminate do not heed it; they end with the program, if not before
				return context.Cause(ctx)
			}
		}),
	}
}

func newCancelCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel CALL [INDEX...]",
		Short: "End a call, or some of its tasks",
		Long: `Cancel ends a call; "procpool calls" has its id. With indexes it ends only these tasks. Waiting tasks end at once; running ones
are asked to return, then terminated after the grace, then killed. It does not wait for them.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("cancel which call? Its id (`procpool calls` lists them)")
			}
			return nil
		},
		RunE: withClient(g, func(ctx context.Context, c *client.Client, args []string) error {
			var indexes []uint64
			for _, a := range args[1:] {
				i, err := strconv.ParseUint(a, 10, 64)
				if err != nil {
					return fmt.Errorf("%q is not the index of a task", a)
				}
				indexes = append(indexes, i)
			}
			return c.Cancel(ctx, args[0], indexes...)
		}),
	}
}

func newAddrCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "addr",
		Short: "Print the socket of the daemon",
		Long: `Addr prints the path of the socket that the other commands use: --addr; else $PROCPOOL_ADDR; else the first of the usual places
where a daemon listens, or the first of them all if none does.`,
		Example: `  grpcurl -plaintext -unix "$(procpool addr)" list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), findAddr(cmd.Context(), g.addr))
			return err
		},
	}
}

func findAddr(ctx context.Context, given string) string {
	addrs := client.Addresses()
	if given != "" {
		addrs = []string{given}
	}
	first := ""
	for _, a := range addrs {
		path := client.SocketPath(a)
		if first == "" {
			first = path
		}
		if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path); err == nil {
			conn.Close()
			return path
		}
	}
	return first
}
