package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// perlLines is a line program: body is run for each line, which is in $_ without its end.
func perlLines(t *testing.T, body string) []string {
	t.Helper()
	if _, err := exec.LookPath("perl"); err != nil {
		t.Skip("NOT TESTED: line workers in Perl, which is not installed (apt-get install perl)")
	}
	return []string{"perl", "-e", `$| = 1; while (<STDIN>) { chomp; ` + body + ` }`}
}

func TestMapLines(t *testing.T) {
	t.Parallel()
	mark := filepath.Join(t.TempDir(), "mark")
	for _, c := range []struct {
		name, body string
		flags      []string
		items      []string
		want       result // stderr: how it begins
	}{
		{"answers", `print "<$_>\n"`, nil, []string{"a", "b c", "caf\xe9"}, result{"<a>\n<b c>\n<caf\xe9>\n", "", 0}},
		{"tags", `print "<$_>\n"`, []string{"--tag"}, []string{"a"}, result{"a\t<a>\n", "", 0}},
		{"deaths", `exit 3 if $_ eq "b"; print "<$_>\n"`, nil, []string{"a", "b", "c"}, result{"<a>\n<c>\n", "procpool: item 2 (b): worker lost: exit status 3", 1}},
		{"items with a newline", `print "<$_>\n"`, nil, []string{"a", "b\nc", "d"}, result{"<a>\n<d>\n", "procpool: item 2 (b?c): the item has a newline in it", 1}},
		{"what programs write to stderr", `print STDERR "note $_\n"; print "<$_>\n"`, nil, []string{"a"}, result{"<a>\n", "note a\n", 0}},
		{"JSON", `print $_ + 1, "\n"`, []string{"--json-lines"}, []string{"1", "41"}, result{"2\n42\n", "", 0}},
		{"answers that are not JSON", `print "<$_>\n"`, []string{"--json-lines"}, []string{"1"}, result{"", "procpool: item 1 (1): the answer is not one JSON value", 1}},
		{
			"objects", `print "<$_>\n"`, []string{"--json"}, []string{"a"},
			result{`{"index":0,"item":"a","outcome":"value","result":"<a>","attempt":1}` + "\n", "", 0},
		},
		{"retries", `unless (-e $_) { open F, ">", $_; exit 3 } print "again\n"`, []string{"--retries", "2"}, []string{mark}, result{"again\n", "", 0}},
		{"time limits", `sleep 1000 if $_ eq "b"; print "<$_>\n"`, []string{"--timeout", "3s"}, []string{"a", "b", "c"}, result{"<a>\n<c>\n", "procpool: item 2 (b): timeout", 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if !slices.Contains(c.flags, "--json-lines") {
				c.flags = append(c.flags, "--lines")
			}
			r := finish(t, procpool(t, slices.Concat([]string{"map", "-k"}, c.flags, []string{"--"}, perlLines(t, c.body), []string{":::"}, c.items)...))
			if r.stdout != c.want.stdout || r.status != c.want.status || !strings.HasPrefix(r.stderr, c.want.stderr) || c.want.status == 0 && r.stderr != c.want.stderr {
				t.Errorf("got  %#v\nwant %#v, or more on stderr", r, c.want)
			}
		})
	}
}

func TestMapLinesWithNull(t *testing.T) {
	t.Parallel()
	program := append(perlLines(t, "")[:2:2], `$| = 1; $/ = "\0"; while (<STDIN>) { chomp; print "<$_>\0" }`)
	cmd := procpool(t, slices.Concat([]string{"map", "-k", "-0", "--lines", "--"}, program)...)
	cmd.Stdin = strings.NewReader("two\nlines\x00b\x00")
	if r := finish(t, cmd); r.stdout != "<two\nlines>\x00<b>\x00" || r.status != 0 {
		t.Errorf("got %#v, want two items, each with a NUL at its end", r)
	}
	if got := run0(t, slices.Concat([]string{"map", "-k", "-0", "--lines", "--"}, program, []string{":::", "a\nb"})...); got != "<a\nb>\x00" {
		t.Errorf("got %q", got)
	}
}

func TestMapLinesPassesMany(t *testing.T) {
	t.Parallel()
	const n = 100_000
	var in, want strings.Builder
	for i := range n {
		fmt.Fprintf(&in, "%d\n", i)
		fmt.Fprintf(&want, "=%d\n", i)
	}
	cmd := procpool(t, slices.Concat([]string{"map", "-k", "--lines", "--"}, perlLines(t, `print "=$_\n"`))...)
	cmd.Stdin = strings.NewReader(in.String())
	if r := finish(t, cmd); r.stdout != want.String() || r.status != 0 {
		t.Errorf("got %d lines, status %d, want %d in order\n%s", strings.Count(r.stdout, "\n"), r.status, n, r.stderr)
	}
}

func TestMapLinesLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	cmd := procpool(t, slices.Concat([]string{"map", "-j", "1", "--lines", "--"}, []string{"sh", "-c", `sleep 1000 & echo $$ $! >>pids; while read -r line; do echo "$line"; done`},
		[]string{":::", "a", "b"})...)
	if r := finish(t, cmd); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	pids := pidsIn(t, filepath.Join(cmd.Dir, "pids"), 2)
	eventually(t, func() string { return gone(pids) }) // they have been killed, which takes a moment
}

func TestPoolOfLineWorkers(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	run0(t, slices.Concat(addr, []string{"create", "count", "-j", "2", "--lines", "--"}, perlLines(t, `print "<$_>\n"`))...)
	run0(t, slices.Concat(addr, []string{"create", "sum", "-j", "2", "--json-lines", "--"}, perlLines(t, `my $n = 0; $n += $_ for /\d+/g; print "{\"sum\": $n}\n"`))...)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"map", "-k", "--pool", "count", "--func", "line", ":::", "a b", "7"}, "\"<a b>\"\n\"<7>\"\n"},
		{[]string{"apply", "--pool", "count", "line", "x"}, "\"<x>\"\n"},
		{[]string{"apply", "--pool", "sum", "line", "[1, 2, 39]"}, "{\"sum\":42}\n"},
	} {
		if got := run0(t, append(slices.Clone(addr), c.args...)...); got != c.want {
			t.Errorf("%q: got %q, want %q", c.args, got, c.want)
		}
	}
	run0(t, slices.Concat(addr, []string{"restart", "count", "--lines", "--"}, perlLines(t, `print "($_)\n"`))...)
	if got := run0(t, append(addr, "apply", "--pool", "count", "line", "x")...); got != "\"(x)\"\n" {
		t.Errorf("after a restart: got %q", got)
	}
}

func TestLinesRefuseWhatCannotWork(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"map --lines --json-lines -- true ::: a", "exclude each other"},
		{"map --lines -u -- true ::: a", "--ungroup"},
		{"map --lines --dry-run -- true ::: a", "--dry-run"},
		{"map --lines --pool p --func f ::: a", "--func line"},
		{"map --lines -- no-such-program ::: a", "no-such-program"},
		{"create p --null --addr none -- true", "procpoold"},
	} {
		r := finish(t, procpool(t, strings.Fields(c.args)...))
		if r.status != statusFailure || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%s: got %+v; want status %d and %q", c.args, r, statusFailure, c.want)
		}
	}
	addr := newDaemon(t)
	for _, c := range []struct{ args, want string }{
		{"create p --null -- true", "--lines"},
		{"create p --lines --json-lines -- true", "exclude"},
		{"create p --lines --drain-memory 100M -- true", "--max-tasks"},
		{"create p --lines -- no-such-program", "no-such-program"},
	} {
		r := finish(t, procpool(t, append(slices.Clone(addr), strings.Fields(c.args)...)...))
		if r.status != statusFailure || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%s: got %+v; want status %d and %q", c.args, r, statusFailure, c.want)
		}
	}
}
