// Package mapping is `procpool map` and `procpool apply`: a command, a line program or a function of a pool, run for many items or for one.
//
// [Commands] is its only door. Behind it: map.go has the flags and starts a run, which is in mapping.go. Items come from items.go and pipe.go, become
// jobs, and what template.go makes of them is run by command.go in a worker; function.go and lines.go call functions instead. What has ended goes
// through a layout: layout.go, order.go and results.go, with joblog.go as the last. Whether another one begins is decided by gate.go and halt.go.
// The function of the workers is registered when the program starts.
package mapping

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/procpool/procpool/client"
)

// Dial connects to the daemon whose pools are meant.
type Dial func(context.Context) (*client.Client, error)

// Commands are map and apply. A run in which items failed ends with an exit.StatusError, after it has said so.
func Commands(dial Dial) []*cobra.Command {
	return []*cobra.Command{newMapCommand(dial), newApplyCommand(dial)}
}
