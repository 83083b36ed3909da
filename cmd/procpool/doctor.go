package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/cmd/procpool/internal/exit"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

func newDoctorCommand(g *globals) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Tell which guarantees hold here, and what to do about the others",
		Long: `Doctor looks which of procpool's guarantees hold on this machine. Without --addr it asks a daemon inside this program, as "procpool map"
uses one, and starts a worker to see it at work; with --addr the daemon that serves there.

Exit status: 0, or 1 if something is missing without which procpool should not be used.`,
		Example: `  procpool doctor
  procpool doctor --addr "$(procpool addr)"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("-o %s: the output is table or json", output)
			}
			examine := examineEmbedded
			if g.addr != "" {
				examine = g.examine
			}
			d, err := examine(cmd.Context())
			if err != nil {
				return err
			}
			write := writeDiagnosis
			if output == "json" {
				write = writeDiagnosisJSON
			}
			if err := write(cmd.OutOrStdout(), d); err != nil {
				return err
			}
			for _, g := range d.GetGuarantees() {
				if g.GetEssential() && !g.GetActive() {
					return exit.StatusError(1)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

// examine asks a running daemon.
func (g *globals) examine(ctx context.Context) (*pb.DescribeResponse, error) {
	c, err := g.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Describe(ctx)
}

// How long doctor waits for its worker, and then for the guardian.
const (
	workerPatience   = 15 * time.Second
	guardianPatience = 2 * time.Second
)

// examineEmbedded asks a daemon of its own when it is at work, and adds whether it is.
func examineEmbedded(ctx context.Context) (d *pb.DescribeResponse, err error) {
	pool, err := local.OpenPool(ctx, client.Workers(1))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pool.Terminate()) }()
	begun := time.Now()
	var info *pb.Pool
	if err := until(ctx, workerPatience, func() (done bool, err error) {
		info, err = pool.Info(ctx)
		return info.GetIdle() > 0 || info.GetState() == pb.PoolState_POOL_STATE_DEGRADED, err
	}); err != nil {
		return nil, err
	}
	starts := &pb.Guarantee{Name: "workers start", Essential: true, Active: info.GetIdle() > 0}
	switch {
	case starts.Active:
		starts.How = fmt.Sprintf("the first one was ready after %v", time.Since(begun).Round(time.Millisecond))
	case info.GetLastExit() != nil:
		starts.How = info.GetLastExit().GetReason()
	default:
		starts.How = fmt.Sprintf("the first one was not ready after %v", workerPatience)
	}
	if err := until(ctx, guardianPatience, func() (done bool, err error) {
		d, err = pool.Daemon(ctx)
		for _, g := range d.GetGuarantees() {
			if g.GetName() == "guardian" && !g.GetActive() {
				return false, err // it may be starting
			}
		}
		return true, err
	}); err != nil {
		return nil, err
	}
	d.Guarantees = append([]*pb.Guarantee{starts}, d.GetGuarantees()...)
	return d, nil
}

// until asks again and again, until it is done or the patience is over.
func until(ctx context.Context, patience time.Duration, ask func() (done bool, err error)) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	over := time.After(patience)
	for {
		if done, err := ask(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-over:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func writeDiagnosis(w io.Writer, d *pb.DescribeResponse) error {
	kind := "daemon"
	if d.GetEmbedded() {
		kind = "embedded daemon"
	}
	fmt.Fprintf(w, "%s %s, process %d of uid %d, up %s, on %s\n\n", kind, d.GetVersion(), d.GetPid(), d.GetUid(), time.Since(d.GetStarted().AsTime()).Round(time.Second), d.GetSocket())
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, g := range d.GetGuarantees() {
		mark := "ok"
		switch {
		case g.GetActive():
		case g.GetEssential():
			mark = "MISSING"
		default:
			mark = "no"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", mark, g.GetName(), g.GetHow()) // the table keeps an error for Flush
		if !g.GetActive() && g.GetAdvice() != "" {
			fmt.Fprintf(table, "\t\t→ %s\n", g.GetAdvice())
		}
	}
	return table.Flush()
}

func writeDiagnosisJSON(w io.Writer, d *pb.DescribeResponse) error {
	b, err := protojson.MarshalOptions{Multiline: true, EmitDefaultValues: true}.Marshal(d)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, string(b))
	return err
}
