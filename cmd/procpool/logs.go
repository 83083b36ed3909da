package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/cmd/procpool/internal/text"
)

func newLogsCommand(g *globals) *cobra.Command {
	var (
		follow bool
		tail   int
		output string
	)
	cmd := &cobra.Command{
		Use:   "logs [POOL]",
		Short: "Show what workers wrote and how they ended, of one pool or of all",
		Long: `Logs shows the last lines that workers wrote to stdout and stderr, and how workers ended. The daemon keeps 1,000 lines of each
pool, or 1 MiB. A worker that writes faster than 1,000 lines or 1 MiB a second loses lines; a line of its own says how many.

With -f it goes on until the pool has ended or, without a pool, the daemon stops; pools that are made meanwhile are shown too.

-o wide adds process ids, and what a worker that died wrote last.`,
		Example: `  procpool logs -f counting
  procpool logs -n 1000 -o json | jq 'select(.exit)'`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		write, ok := map[string]func(io.Writer, *client.News) error{"table": writeNews, "wide": writeNewsWide, "json": writeNewsJSON}[output]
		if !ok {
			return fmt.Errorf("-o %s: the output is table, wide or json", output)
		}
		if tail < 0 {
			return fmt.Errorf("-n %d: it must be 0 or more", tail)
		}
		return withClient(g, func(ctx context.Context, c *client.Client, args []string) error {
			logs := c.Logs
			if follow {
				logs = c.FollowLogs
			}
			for n, err := range logs(ctx, strings.Join(args, ""), tail) {
				if err == nil {
					err = write(cmd.OutOrStdout(), &n)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})(cmd, args)
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	f.BoolVar(&follow, "watch", false, "the same")
	f.IntVarP(&tail, "lines", "n", 100, "how many of each pool's last lines")
	f.StringVarP(&output, "output", "o", "table", "table, wide, or json: an object per line")
	return cmd
}

// streamNames are the streams of a worker. A stream that a later daemon has has none.
var streamNames = map[int]string{1: "stdout", 2: "stderr"}

const newsTime = "2006-01-02 15:04:05.000"

func writeNews(w io.Writer, n *client.News) error { return writeLines(w, n, false) }

func writeNewsWide(w io.Writer, n *client.News) error { return writeLines(w, n, true) }

// writeLines writes a line or, if wide, all that is known.
func writeLines(w io.Writer, n *client.News, wide bool) error {
	var b strings.Builder
	begin := func(at time.Time, worker string, pid int) {
		fmt.Fprintf(&b, "%s %s ", at.Local().Format(newsTime), worker)
		if wide {
			fmt.Fprintf(&b, "%d ", pid)
		}
	}
	switch {
	case n.Output != nil:
		o := n.Output
		begin(o.Time, o.Worker, o.Pid)
		fmt.Fprintf(&b, "%s: %s", streamNames[o.Stream], o.Line)
		if o.Truncated {
			b.WriteString(" … (the line is longer)")
		}
		b.WriteByte('\n')
	case n.Exit != nil:
		e := n.Exit
		begin(e.Time, e.Worker, e.Pid)
		fmt.Fprintf(&b, "ended: %s\n", e.Reason)
		if wide {
			for _, line := range e.CrashReport {
				fmt.Fprintf(&b, "\t%s\n", line)
			}
		}
	default:
		fmt.Fprintf(&b, "procpool: %d lines were not read in time and are missing here\n", n.Dropped)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// newsJSON is news for a script: a line, an exit, or how many of them are missing.
type newsJSON struct {
	Time      *time.Time  `json:"time,omitempty"`
	Worker    string      `json:"worker,omitempty"`
	Pid       int         `json:"pid,omitempty"`
	Stream    string      `json:"stream,omitempty"`
	Line      *text.Bytes `json:"line,omitempty"`
	Truncated bool        `json:"truncated,omitempty"`
	Partial   bool        `json:"partial,omitempty"`
	Exit      *exitJSON   `json:"exit,omitempty"`
	Dropped   int         `json:"dropped,omitempty"`
}

type exitJSON struct {
	ExitCode    int      `json:"exit_code"`
	Signal      string   `json:"signal,omitempty"`
	OOMKilled   bool     `json:"oom_killed,omitempty"`
	PeakMemory  int64    `json:"peak_memory,omitempty"`
	Reason      string   `json:"reason"`
	CrashReport []string `json:"crash_report,omitempty"`
}

func writeNewsJSON(w io.Writer, n *client.News) error {
	j := newsJSON{Dropped: n.Dropped}
	if o := n.Output; o != nil {
		line := text.Bytes(o.Line)
		j.Time, j.Worker, j.Pid, j.Stream, j.Line = &o.Time, o.Worker, o.Pid, streamNames[o.Stream], &line
		j.Truncated, j.Partial = o.Truncated, o.Partial
	}
	if e := n.Exit; e != nil {
		j.Time, j.Worker, j.Pid = &e.Time, e.Worker, e.Pid
		j.Exit = &exitJSON{ExitCode: e.ExitCode, Signal: e.Signal, OOMKilled: e.OOMKilled, PeakMemory: e.PeakMemory, Reason: e.Reason, CrashReport: e.CrashReport}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(j)
}
