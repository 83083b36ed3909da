package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/procpool/procpool/cmd/procpool/internal/exit"
)

// statusTimeout is the exit status of a command that steers when its --timeout has run out, as that of timeout(1).
const statusTimeout = 124

// errTimeout is why a context ends then.
var errTimeout = errors.New("the timeout has run out")

// withTimeout gives a command that steers a limit for its wait.
func withTimeout(cmd *cobra.Command) *cobra.Command {
	var timeout time.Duration
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "wait no longer than this, then exit with status 124; what has begun goes on (default: as long as it takes)")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if timeout < 0 {
			return fmt.Errorf("--timeout %v: it must be more than 0", timeout)
		}
		if timeout == 0 {
			return run(cmd, args)
		}
		// Not a deadline: that would travel with the RPC, and the daemon might be a moment ahead of us in ending it, for a reason that does not say so.
		ctx, cancel := context.WithCancelCause(cmd.Context())
		defer cancel(nil)
		timer := time.AfterFunc(timeout, func() { cancel(errTimeout) })
		defer timer.Stop()
		cmd.SetContext(ctx)
		err := run(cmd, args)
		if err != nil && errors.Is(context.Cause(ctx), errTimeout) {
			fmt.Fprintf(os.Stderr, "procpool: %s: not done within %v\n", cmd.Name(), timeout)
			return exit.StatusError(statusTimeout)
		}
		return err
	}
	return cmd
}
