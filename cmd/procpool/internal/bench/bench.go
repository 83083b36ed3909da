// Package bench is `procpool bench`: it lets procpool, and whoever it is compared with, do the same work in turns, each in a process of its own, and
// reports figures and their ratios.
//
// [Commands] is its only door. Behind it: measures.go says what is measured, and side.go who does it. Procpool's side is ours.go, with what it does in
// work.go, lines.go, fair.go and cost.go; the others are bench.py and floor.go. report.go writes what came of it. The functions that are measured are
// registered when the program starts, as a worker needs them.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

const help = `Bench measures this machine's procpool: typed Go functions, the default encoding, the public SDK, as your programs use them. A MEASURE is one of
--list, or the beginning of several ("map", "argument"), or "all". Without one it takes all, but with --compare those that have something to compare
with.

  --compare python   the same work in Python's multiprocessing.Pool and ProcessPoolExecutor
  --compare xargs    the same commands under xargs -P and GNU parallel -j
  --compare floor    the same bytes through a bare relay, over gRPC and over sockets; for commands fork and exec alone. No pool can be
                     faster than what it is built of: this says how near procpool is

Both sides take turns in one run, with the same items and as many workers, after a round each to warm up; both check their results. The ratio
says how many times better procpool is. Machines differ and are noisy: the ratio lasts, figures do not.

Each measure has a process of its own. The daemon is embedded in it; --daemon starts a procpoold beside it, the one next to this program or in
$PATH, and --addr uses one that runs.

Exit status: 0; 1: something could not be measured or compared, and stderr says what; 255: bench itself failed.`

// options are the flags of bench.
type options struct {
	compare  []string
	runs     int
	atLeast  time.Duration
	workers  int
	daemon   bool
	list     bool
	json     bool
	markdown bool
	python   string
}

// Host is what bench has of the program that it is a command of.
type Host struct {
	Addr string               // of the daemon that is to be used; empty: one of its own
	Say  func(problem string) // tells at once what could not be measured or compared
	Show func(doing string)   // shows what is being done, if there is a place for it; empty: nothing any more
}

// ErrIncomplete ends bench when something could not be measured or compared, after the report. The host has been told what.
var ErrIncomplete = errors.New("something could not be measured or compared")

// Commands are bench itself, and two hidden ones that it starts its own program with, for sides that need a process. The host is asked for when one of
// them runs.
func Commands(host func() Host) []*cobra.Command {
	return []*cobra.Command{newCommand(host), newSideCommand(host), newFloorCommand()}
}

func newCommand(host func() Host) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "bench [MEASURE...]",
		Short: "Measure procpool, alone or against other pools",
		Long:  help,
		Example: `  procpool bench map apply
  procpool bench --compare python --markdown
  procpool bench --compare xargs command`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), host(), args, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringSliceVar(&o.compare, "compare", nil, "python, xargs, floor, or several with commas")
	f.IntVar(&o.runs, "runs", 5, "how often each side has its turn")
	f.DurationVar(&o.atLeast, "time", fullRound, "a turn repeats its work at least so long")
	f.IntVarP(&o.workers, "workers", "j", 2, "workers on each side")
	f.BoolVar(&o.daemon, "daemon", false, "use a procpoold in a process of its own")
	f.StringVar(&o.python, "python", "python3", "the Python to compare with")
	f.BoolVar(&o.json, "json", false, "write JSON, in seconds, bytes and items")
	f.BoolVar(&o.markdown, "markdown", false, "write a table for Markdown")
	f.BoolVar(&o.list, "list", false, "list the measures")
	return cmd
}

// check finds what is wrong with the flags.
func (o *options) check(addr string) error {
	switch {
	case o.runs < 1:
		return fmt.Errorf("--runs %d: it must be at least 1", o.runs)
	case o.atLeast < 0 || o.atLeast > time.Minute:
		return fmt.Errorf("--time %v: it must be 0 to 1m", o.atLeast)
	case o.workers < 1 || o.workers > 4096:
		return fmt.Errorf("-j %d: the number of workers is 1 to 4096", o.workers)
	case o.json && o.markdown:
		return errors.New("--json and --markdown exclude each other")
	case o.daemon && addr != "":
		return errors.New("--daemon starts a daemon, --addr names one that runs: not both")
	}
	return nil
}

// peers are who is compared with.
func (o *options) peers() (peers []string, err error) {
	for _, c := range o.compare {
		p, ok := comparisons[c]
		if !ok {
			return nil, fmt.Errorf("--compare %s: it is python, xargs or floor", c)
		}
		peers = append(peers, p...)
	}
	return peers, nil
}

// bench is one run of it.
type bench struct {
	options *options
	host    Host
	dir     string // for the script and for sockets, and removed at the end
	daemon  string // the program; empty: embedded
	missing map[string]string
	report  report
}

func (o *options) run(ctx context.Context, host Host, words []string, out io.Writer) error {
	peers, err := o.peers()
	if err == nil {
		err = o.check(host.Addr)
	}
	if err != nil {
		return err
	}
	chosen, err := selectMeasures(words, peers)
	if err != nil {
		return err
	}
	if o.list {
		return listMeasures(out, chosen)
	}
	b := &bench{options: o, host: host, missing: map[string]string{}}
	if o.daemon {
		if b.daemon, err = findDaemon(); err != nil {
			return err
		}
	}
	if b.dir, err = os.MkdirTemp("", "pp-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.report = report{
		Machine: thisMachine(), Mode: "embedded", Workers: o.workers, Runs: o.runs, Seconds: o.atLeast.Seconds(),
		Measures: []*measureReport{}, Problems: []string{},
	}
	switch {
	case o.daemon:
		b.report.Mode = "daemon"
	case host.Addr != "":
		b.report.Mode = host.Addr
	}
	if slices.Contains(peers, peerPool) {
		b.report.Machine.Python = pythonVersion(ctx, o.python)
	}
	for _, m := range chosen {
		if ctx.Err() != nil {
			break
		}
		b.measure(ctx, m, peers, len(words) > 0)
	}
	write := b.report.writeText
	switch {
	case o.json:
		write = b.report.writeJSON
	case o.markdown:
		write = b.report.writeMarkdown
	}
	if err := write(out); err != nil {
		return err
	}
	if len(b.report.Problems) > 0 {
		return ErrIncomplete
	}
	return context.Cause(ctx)
}

func listMeasures(out io.Writer, list []measure) error {
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tMEASURES\tCOMPARES WITH") // the table keeps an error for Flush
	for _, m := range list {
		peers := strings.Join(m.peers, ", ")
		if peers == "" {
			peers = "–"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", m.name, m.what, peers)
	}
	return table.Flush()
}

// findDaemon is the procpoold that belongs to this program: the one beside it, else the first in $PATH.
func findDaemon() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	beside := filepath.Join(filepath.Dir(self), "procpoold")
	if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
		return beside, nil
	}
	found, err := exec.LookPath("procpoold")
	if err != nil {
		return "", fmt.Errorf("--daemon: there is no procpoold beside %s nor in $PATH (go build -o bin/ ./cmd/... makes both)", self)
	}
	return found, nil
}

// problem is something that could not be measured or compared. It is said once.
func (b *bench) problem(format string, args ...any) {
	p := fmt.Sprintf(format, args...)
	if !slices.Contains(b.report.Problems, p) {
		b.report.Problems = append(b.report.Problems, p)
		b.host.Say(p)
	}
}

// measure lets the sides take turns. A side that fails is out for the rest of the measure.
func (b *bench) measure(ctx context.Context, m measure, peers []string, named bool) {
	defer b.host.Show("")
	if m.own && b.host.Addr != "" {
		if named {
			b.problem("%s: it looks into the daemon's process, which --addr does not give; use --daemon", m.name)
		}
		return
	}
	var sides []side
	var runs []*sideRuns
	defer func() {
		for _, s := range sides {
			if s != nil {
				s.close()
			}
		}
	}()
	w := m.work
	w.Workers = b.options.workers
	w.Seconds = b.options.atLeast.Seconds() / 5 // to warm up
	out := func(i int, err error) {
		sides[i].close()
		sides[i] = nil
		if ctx.Err() == nil {
			b.problem("%s: %s: %v", m.name, runs[i].side, err)
		}
	}
	for _, name := range slices.Concat([]string{""}, m.peers) {
		if (name != "" && !slices.Contains(peers, name)) || b.missing[name] != "" {
			continue
		}
		b.host.Show(fmt.Sprintf("%s: %s warms up", m.name, sideName(name)))
		s, err := b.start(ctx, m, name)
		if err != nil {
			if ctx.Err() == nil {
				b.missing[name] = err.Error()
				b.problem("%s cannot be compared with: %v", sideName(name), err)
			}
			if name == "" {
				return
			}
			continue
		}
		sides, runs = append(sides, s), append(runs, &sideRuns{side: sideName(name), answers: make([]*answer, b.options.runs)})
		if _, err := s.round(ctx, w); err != nil {
			out(len(sides)-1, err)
		}
	}
	w.Seconds = b.options.atLeast.Seconds()
	for run := range b.options.runs {
		for i, s := range sides {
			if s == nil || ctx.Err() != nil {
				continue
			}
			b.host.Show(fmt.Sprintf("%s: run %d of %d, %s", m.name, run+1, b.options.runs, runs[i].side))
			var err error
			if runs[i].answers[run], err = s.round(ctx, w); err != nil {
				out(i, err)
			}
		}
	}
	b.report.Measures = append(b.report.Measures, newMeasureReport(m, runs))
}

// machine is where figures were taken.
type machine struct {
	CPUs   int    `json:"cpus"`
	Load   string `json:"load,omitempty"` // of the last minute, before the first measure
	System string `json:"system"`
	Go     string `json:"go"`
	Python string `json:"python,omitempty"`
}

func (m machine) String() string {
	s := fmt.Sprintf("%s, %s, %s", plural(m.CPUs, "CPU"), m.System, m.Go)
	if m.Python != "" {
		s += ", " + m.Python
	}
	if m.Load != "" {
		s += ", load " + m.Load
	}
	return s
}

func thisMachine() machine {
	m := machine{CPUs: runtime.GOMAXPROCS(0), System: runtime.GOOS, Go: runtime.Version()}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(load), " ")
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.System = unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:])
	}
	return m
}

// pythonVersion is "Python 3.11.7", or empty if there is none; starting it says why.
func pythonVersion(ctx context.Context, python string) string {
	out, err := exec.CommandContext(ctx, python, "--version").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
