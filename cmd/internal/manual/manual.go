// Package manual makes manual pages of a command's own help, so that the two cannot differ. It is for the packaging of both programs; `procpool man` has it, too,
// and therefore it is small: cobra's writer reads Markdown, and what that brings was a tenth of the start of procpool.
package manual

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Write writes a page for a command, and for each command and page of help below it that is not hidden, into a directory that it makes.
// SOURCE_DATE_EPOCH dates them.
func Write(root *cobra.Command, section, dir string) error {
	date := time.Now()
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return fmt.Errorf("write manual: SOURCE_DATE_EPOCH: %w", err)
		}
		date = time.Unix(seconds, 0)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("write manual: %w", err)
	}
	return writeTree(root, section, date.UTC().Format("Jan 2006"), dir)
}

func writeTree(cmd *cobra.Command, section, date, dir string) error {
	file := filepath.Join(dir, name(cmd)+"."+section)
	var errs []error
	if err := os.WriteFile(file, page(cmd, section, date), 0o666); err != nil {
		errs = append(errs, fmt.Errorf("write manual: %w", err))
	}
	for _, c := range below(cmd) {
		errs = append(errs, writeTree(c, section, date, dir))
	}
	return errors.Join(errs...)
}

// below is the commands and pages of help of a command that have pages of their own.
func below(cmd *cobra.Command) (list []*cobra.Command) {
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
			list = append(list, c)
		}
	}
	return list
}

// name is the name of a command's page, without its section.
func name(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// page is a command's page.
func page(cmd *cobra.Command, section, date string) []byte {
	cmd.InitDefaultHelpFlag()
	var b bytes.Buffer
	fmt.Fprintf(&b, ".nh\n.ad l\n.TH \"%s\" \"%s\" \"%s\" \"procpool\" \"procpool\"\n", escape(strings.ToUpper(name(cmd))), section, date)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", escape(name(cmd)), escape(strings.TrimSuffix(cmd.Short, ".")))
	if cmd.Runnable() {
		b.WriteString(".SH SYNOPSIS\n")
		for line := range strings.SplitSeq(cmd.UseLine(), "\n") {
			fmt.Fprintf(&b, "%s\n.br\n", bold(strings.TrimSpace(line)))
		}
	}
	b.WriteString(".SH DESCRIPTION\n")
	prose(&b, cmp.Or(cmd.Long, cmd.Short))
	if cmd.Runnable() {
		options(&b, "OPTIONS", cmd.NonInheritedFlags())
		options(&b, "OPTIONS OF EVERY COMMAND", cmd.InheritedFlags())
	}
	if cmd.Example != "" {
		b.WriteString(".SH EXAMPLE\n")
		verbatim(&b, strings.Split(strings.Trim(cmd.Example, "\n"), "\n"))
	}
	var also []string
	if cmd.HasParent() {
		also = append(also, bold(name(cmd.Parent())+"("+section+")"))
	}
	for _, c := range below(cmd) {
		also = append(also, bold(name(c)+"("+section+")"))
	}
	if len(also) > 0 {
		fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", strings.Join(also, ", "))
	}
	return b.Bytes()
}

// options lists flags, as help does.
func options(b *bytes.Buffer, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		b.WriteString(".TP\n")
		if f.Shorthand != "" && f.ShorthandDeprecated == "" {
			b.WriteString(bold("-"+f.Shorthand) + ", ")
		}
		b.WriteString(bold("--" + f.Name))
		switch {
		case value != "" && f.NoOptDefVal != "":
			b.WriteString("[=" + italic(value) + "]")
		case value != "":
			b.WriteString(" " + italic(value))
		}
		fmt.Fprintf(b, "\n%s", escape(usage))
		switch f.DefValue {
		case "", "0", "0s", "false", "[]": // help does not show these, either
		default:
			fmt.Fprintf(b, " (default %s)", escape(f.DefValue))
		}
		b.WriteByte('\n')
	})
}

// prose writes a text of help: paragraphs, which are filled, and lines that are indented, which are shown as they are.
func prose(b *bytes.Buffer, text string) {
	var shown []string // indented lines, with the empty ones between them
	empty := false
	for line := range strings.SplitSeq(strings.Trim(text, "\n"), "\n") {
		switch {
		case strings.TrimSpace(line) == "":
			empty = true
			continue
		case strings.HasPrefix(line, "  "):
			if empty && len(shown) > 0 {
				shown = append(shown, "")
			}
			shown = append(shown, line)
		default:
			if len(shown) > 0 {
				verbatim(b, shown)
				shown = nil
				empty = true
			}
			if empty {
				b.WriteString(".PP\n")
			}
			b.WriteString(escape(line) + "\n")
		}
		empty = false
	}
	if len(shown) > 0 {
		verbatim(b, shown)
	}
}

// verbatim writes lines as they are.
func verbatim(b *bytes.Buffer, lines []string) {
	b.WriteString(".PP\n.nf\n")
	for _, line := range lines {
		b.WriteString(escape(line) + "\n")
	}
	b.WriteString(".fi\n")
}

func bold(s string) string   { return `\fB` + escape(s) + `\fR` }
func italic(s string) string { return `\fI` + escape(s) + `\fR` }

var special = strings.NewReplacer(`\`, `\e`, `-`, `\-`)

// escape is a line of text as roff reads it. A point or an apostrophe at its beginning would be a request.
func escape(s string) string {
	s = special.Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
