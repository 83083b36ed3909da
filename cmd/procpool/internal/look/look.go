// Package look shows what a daemon does: the pools, workers and calls that it has as lists, once or again and again, and live as top. It changes nothing.
package look

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/procpool/procpool/client"
)

// Dial connects to the daemon that is to be looked at.
type Dial func(context.Context) (*client.Client, error)

// Commands are top, and a list each of pools, workers and calls.
func Commands(dial Dial) []*cobra.Command {
	return []*cobra.Command{newTopCommand(dial), newPoolsCommand(dial), newWorkersCommand(dial), newCallsCommand(dial)}
}
