package main

import (
	"github.com/spf13/cobra"

	"github.com/procpool/procpool/cmd/internal/manual"
)

// newManCommand is for packaging: it writes the manual.
func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages into a directory",
		Long:   "Man writes a manual page for each command and each page of help into a directory. SOURCE_DATE_EPOCH dates them.",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(cmd *cobra.Command, args []string) error { return manual.Write(cmd.Root(), "1", args[0]) },
	}
}
