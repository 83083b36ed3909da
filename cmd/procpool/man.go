package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newManCommand is for packaging: it writes the manual.
func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages into a directory",
		Long:   "Man writes a manual page for each command and each page of help into a directory. SOURCE_DATE_EPOCH dates them.",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true
			for _, c := range root.Commands() {
				c.Long = manText(c.Long)
				c.Short = strings.TrimSuffix(c.Short, ".")
				if !c.Runnable() {
					c.Run = func(*cobra.Command, []string) {} // a page of help gets a page of its own, which cobra leaves out otherwise
				}
			}
			root.Long = manText(root.Long)
			if err := os.MkdirAll(args[0], 0o777); err != nil {
				return fmt.Errorf("write manual: %w", err)
			}
			if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "procpool", Manual: "procpool"}, args[0]); err != nil {
				return fmt.Errorf("write manual: %w", err)
			}
			return nil
		},
	}
}

// manText is a text as the writer of manuals wants it, which reads Markdown: lines that are indented are shown as they are.
func manText(s string) string {
	var b strings.Builder
	before := false
	for line := range strings.Lines(s) {
		indented := strings.HasPrefix(line, "  ")
		if indented != before && strings.TrimSpace(line) != "" {
			b.WriteByte('\n')
		}
		if indented {
			b.WriteString("    ")
		}
		b.WriteString(line)
		if strings.TrimSpace(line) != "" {
			before = indented
		}
	}
	return b.String()
}
