package manual

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"
)

func TestPage(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "0")
	root := &cobra.Command{Use: "tool", Short: "Do things."}
	cmd := &cobra.Command{
		Use: "run [flags] ITEM...\n  tool run --all", DisableFlagsInUseLine: true, Short: "Run it", Run: func(*cobra.Command, []string) {},
		Long:    "Run runs:\n  a  -x\n\n  b\n.not a request\n\n'nor this \\ either",
		Example: "  tool run x\n  tool run --all",
	}
	cmd.Flags().IntP("jobs", "j", 2, "how many `N` at a time")
	cmd.Flags().Bool("secret", false, "")
	if err := cmd.Flags().MarkHidden("secret"); err != nil {
		t.Fatal(err)
	}
	topic := &cobra.Command{Use: "items", Short: "Where items come from", Long: "From you."}
	hidden := &cobra.Command{Use: "inner", Hidden: true, Run: cmd.Run}
	root.AddCommand(cmd, topic, hidden)
	dir := filepath.Join(t.TempDir(), "man")
	if err := Write(root, "1", dir); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(pages) != 3 {
		t.Errorf("got the pages %q (%v), want those of tool, tool run and tool items", pages, err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "tool-run.1"))
	if err != nil {
		t.Fatal(err)
	}
	want := `.nh
.ad l
.TH "TOOL\-RUN" "1" "Jan 1970" "procpool" "procpool"
.SH NAME
tool\-run \- Run it
.SH SYNOPSIS
\fBtool run [flags] ITEM...\fR
.br
\fBtool run \-\-all\fR
.br
.SH DESCRIPTION
Run runs:
.PP
.nf
  a  \-x

  b
.fi
.PP
\&.not a request
.PP
\&'nor this \e either
.SH OPTIONS
.TP
\fB\-h\fR, \fB\-\-help\fR
help for run
.TP
\fB\-j\fR, \fB\-\-jobs\fR \fIN\fR
how many N at a time (default 2)
.SH EXAMPLE
.PP
.nf
  tool run x
  tool run \-\-all
.fi
.SH SEE ALSO
\fBtool(1)\fR
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
