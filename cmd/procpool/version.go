package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// versionPatience is how long `procpool version` waits for a daemon.
const versionPatience = 5 * time.Second

func newVersionCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program and of the daemon",
		Long: `Version prints the version of procpool, then that of the daemon that it would use and where that is, or that there is none.

Programs of neighbouring minor versions work together: the daemon with the one before it and the one after it, and with their workers.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.OutOrStdout(), "procpool ", version()) // the daemon's line tells whether anybody reads
			ctx, cancel := context.WithTimeout(cmd.Context(), versionPatience)
			defer cancel()
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "procpoold", g.daemonVersion(ctx))
			return err
		},
	}
}

func (g *globals) daemonVersion(ctx context.Context) string {
	c, err := g.dial(ctx)
	if err != nil {
		return fmt.Sprintf("- (%s)", oneLine(err))
	}
	defer c.Close()
	d, err := c.Describe(ctx)
	if err != nil {
		return fmt.Sprintf("- (%s)", oneLine(err))
	}
	return fmt.Sprintf("%s at %s", d.GetVersion(), d.GetSocket())
}
