package look

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

func newPoolsCommand(dial Dial) *cobra.Command {
	head := []string{"NAME", "STATE", "WORKERS", "BUSY", "CALLS", "PENDING", "DONE", "FUNCTIONS", "COMMAND"}
	wide := []string{"STARTING", "IDLE", "SPARES", "GENERATION"}
	return newListCommand(dial, "pools", "List the pools", head, wide, cobra.NoArgs,
		func(ctx context.Context, c *client.Client, _ string) ([]*pb.Pool, error) { return c.Pools(ctx) },
		func(p *pb.Pool, _ time.Time) []any {
			var functions []string
			for _, f := range p.GetFunctions() {
				functions = append(functions, f.GetName())
			}
			state := enumName(p.GetState().String(), "POOL_STATE_")
			if exit := p.GetLastExit(); exit != nil && p.GetState() == pb.PoolState_POOL_STATE_DEGRADED {
				state += " (" + exit.GetReason() + ")"
			}
			return []any{p.GetName(), state, p.GetWorkers(), p.GetBusy(), p.GetCalls(), p.GetPendingTasks(), p.GetDoneTasks(),
				strings.Join(functions, ","), ansi.Truncate(printable(strings.Join(p.GetCommand(), " ")), 60, "…"),
				p.GetStarting(), p.GetIdle(), p.GetSpares(), p.GetGeneration()}
		})
}

func newWorkersCommand(dial Dial) *cobra.Command {
	head := []string{"NAME", "PID", "STATE", "AGE", "DONE", "CALL", "INDEX", "SINCE"}
	wide := []string{"MEMORY", "GENERATION", "IDENTITY"}
	return newListCommand(dial, "workers [POOL]", "List the workers, of one pool or of all", head, wide, cobra.MaximumNArgs(1),
		func(ctx context.Context, c *client.Client, pool string) ([]*pb.Worker, error) {
			return c.Workers(ctx, pool)
		},
		func(w *pb.Worker, now time.Time) []any {
			row := []any{w.GetName(), w.GetPid(), enumName(w.GetState().String(), "WORKER_STATE_"), since(w.GetStarted(), now), w.GetDoneTasks()}
			if w.GetCallId() == "" {
				row = append(row, "-", "-", "-")
			} else {
				row = append(row, w.GetCallId(), w.GetIndex(), since(w.GetSince(), now))
			}
			memory := "-" // not known
			if m := w.GetMemory(); m > 0 {
				memory = fmt.Sprintf("%dM", m>>20)
			}
			return append(row, memory, w.GetGeneration(), w.GetIdentity())
		})
}

func newCallsCommand(dial Dial) *cobra.Command {
	head := []string{"ID", "POOL", "FUNCTION", "UID", "PID", "PROGRAM", "LABEL", "AGE", "ACCEPTED", "RUNNING", "DONE", "FAILED", "OLDEST"}
	return newListCommand(dial, "calls [POOL]", "List the calls that run, of one pool or of all", head, nil, cobra.MaximumNArgs(1),
		func(ctx context.Context, c *client.Client, pool string) ([]*pb.Call, error) {
			return c.Calls(ctx, pool)
		},
		func(c *pb.Call, now time.Time) []any {
			oldest := "-"
			if c.GetOldestSince() != nil {
				oldest = fmt.Sprintf("%d for %s", c.GetOldestIndex(), since(c.GetOldestSince(), now))
			}
			return []any{c.GetId(), c.GetPool(), c.GetFunction(), c.GetUid(), c.GetPid(), c.GetProgram(), c.GetLabel(), since(c.GetStarted(), now),
				c.GetAcceptedTasks(), c.GetRunningTasks(), c.GetDoneTasks(), c.GetFailedTasks(), oldest}
		})
}

// newListCommand is a command that lists messages, as a table or as JSON. A row has cells for the columns of head and for those of wide.
func newListCommand[M proto.Message](dial Dial, use, short string, head, wide []string, args cobra.PositionalArgs,
	list func(ctx context.Context, c *client.Client, pool string) ([]M, error), row func(m M, now time.Time) []any,
) *cobra.Command {
	var output string
	var watch bool
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  args,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if output != "table" && output != "wide" && output != "json" {
			return fmt.Errorf("-o %s: the output is table, wide or json", output)
		}
		ctx, out := cmd.Context(), cmd.OutOrStdout()
		c, err := dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		columns := head
		if output == "wide" {
			columns = slices.Concat(head, wide)
		}
		look := func(ctx context.Context) ([]M, error) { return list(ctx, c, strings.Join(args, "")) }
		table := func(w io.Writer, messages []M) error { return writeTable(w, columns, messages, row) }
		if watch {
			terminal := watchTerminal(out)
			if output == "json" {
				terminal = nil
			}
			return watchList(ctx, out, terminal, look, table)
		}
		messages, err := look(ctx)
		if err != nil {
			return err
		}
		if output == "json" {
			return writeJSONList(out, messages)
		}
		return table(out, messages)
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table, wide (with more columns) or json")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "look again every second: the table is written anew on a terminal, else each row that has changed is a line of JSON")
	return cmd
}

func writeTable[M proto.Message](w io.Writer, head []string, messages []M, row func(M, time.Time) []any) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, strings.Join(head, "\t")) // the table keeps an error for Flush
	now := time.Now()
	for _, m := range messages {
		for i, c := range row(m, now)[:len(head)] {
			if i > 0 {
				fmt.Fprint(table, "\t")
			}
			s := printable(fmt.Sprint(c))
			if s == "" {
				s = "-"
			}
			fmt.Fprint(table, s)
		}
		fmt.Fprintln(table)
	}
	return table.Flush()
}

// writeJSONList writes one JSON list, its messages in the form that grpcurl shows.
func writeJSONList[M proto.Message](w io.Writer, messages []M) error {
	var b strings.Builder
	b.WriteString("[")
	for i, m := range messages {
		if i > 0 {
			b.WriteString(",")
		}
		j, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
		if err != nil {
			return err
		}
		b.WriteString("\n")
		b.Write(j)
	}
	b.WriteString("]\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func enumName(s, prefix string) string { return strings.ToLower(strings.TrimPrefix(s, prefix)) }

// since is how long ago t was, coarsely.
func since(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return "-"
	}
	d := now.Sub(t.AsTime())
	switch {
	case d < 10*time.Second:
		return max(d, 0).Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	}
	return d.Round(time.Minute).String()
}
