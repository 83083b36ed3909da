package mapping

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/procpool/procpool/cmd/procpool/internal/flags"
	"github.com/procpool/procpool/cmd/procpool/internal/records"
	"github.com/procpool/procpool/cmd/procpool/internal/screen"
)

const mapHelp = `Map runs a command once for every item, several at a time, in worker processes of its own. In the command {} stands for the item; without
it, the item is appended. Items follow ":::", or are the lines of a file (-a) or of stdin. No shell reads the command or the items.
With --lines it stays up and answers each line with one, which it must flush. --pool and --func call a function of a pool of the daemon.
More: procpool help items, map-output, map-control. Exit status: 0, or the number of items that failed up to 100 (101: more); 255: procpool
itself failed; 128 + signal: interrupted.`

const mapExamples = `  procpool map -- wc -m {} ::: README.md go.mod
  procpool map --joblog log --resume --retries 3 --timeout 30s -a hosts -- ping -c 1
  procpool map --lines -- python3 count.py ::: *.md
  procpool map --pool counting --func count_chars ::: $PWD/*.md`

// mapOptions are the flags of map.
type mapOptions struct {
	jobs        string
	workers     int // that is in numbers
	files       []string
	nul         bool
	delimiter   string
	perCommand  int // items; 0: not given
	pipe        bool
	block       string
	blockSize   int64
	recEnd      string
	recStart    string
	recEndGiven bool

	keepOrder  bool
	lineBuffer bool
	ungroup    bool
	tag        bool
	json       bool
	results    string
	dryRun     bool
	bar        bool

	joblog       string
	resume       bool
	resumeFailed bool
	halt         haltRule
	retries      int
	timeout      timeLimit
	delay        duration
	memFree      string
	memory       int64

	pool     string
	function string
	lines    flags.Lines
}

func newMapCommand(dial Dial) *cobra.Command {
	var o mapOptions
	cmd := &cobra.Command{
		Use:     "map [flags] -- COMMAND [ARG...] [::: ITEM...]\n  procpool map [flags] --pool POOL --func FUNCTION [::: ITEM...]",
		Short:   "Run a command, or a function of a pool, over many items",
		Long:    mapHelp,
		Example: mapExamples,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runMap(cmd.Context(), dial, &o, cmd.Flags().Changed, args)
		},
		DisableFlagsInUseLine: true,
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fmt.Errorf("%w (flags of the command stand after its name; procpool map --help lists those of map)", err)
	})
	f := cmd.Flags()
	f.SortFlags = false
	f.SetInterspersed(false) // what follows the command's name is the command's
	f.StringVarP(&o.jobs, "jobs", "j", "", "how many run at a time: `N`, N%, +N or -N of the CPUs, 0 for all (default: usable CPUs)")
	f.StringArrayVarP(&o.files, "arg-file", "a", nil, "read items from this `file`; - is stdin")
	f.BoolVarP(&o.nul, "null", "0", false, "items end with NUL, not with a newline")
	f.StringVarP(&o.delimiter, "delimiter", "d", "", "items end with this `byte`, as , or \\t")
	f.IntVarP(&o.perCommand, "max-args", "n", 0, "give a command up to `N` items; {1} is the first. With --pipe: N records")
	f.BoolVar(&o.pipe, "pipe", false, "cut stdin into blocks of records, and let each command read one")
	f.StringVar(&o.block, "block", "1M", "with --pipe: `size` of a block, as 64K or 10M")
	f.StringVar(&o.recEnd, "recend", "", "with --pipe: what ends a record (default: a newline)")
	f.StringVar(&o.recStart, "recstart", "", "with --pipe: what begins a record")
	f.BoolVarP(&o.keepOrder, "keep-order", "k", false, "write results in the order of the items")
	f.BoolVar(&o.lineBuffer, "line-buffer", false, "write output line by line, as it comes")
	f.BoolVarP(&o.ungroup, "ungroup", "u", false, "write output as it comes, lines may mix")
	f.BoolVar(&o.tag, "tag", false, "begin each line with its item and a tab")
	f.BoolVar(&o.json, "json", false, "write a JSON object per item; bytes that are no text as {\"base64\": ...}")
	f.StringVar(&o.results, "results", "", "write output to `DIR`/1/ITEM/stdout and stderr, or to a FILE.csv")
	f.BoolVar(&o.dryRun, "dry-run", false, "write the commands, run nothing")
	f.BoolVar(&o.bar, "bar", false, "show a progress bar also if results appear on the terminal")
	f.StringVar(&o.joblog, "joblog", "", "note the end of each command in this `file`, as GNU parallel does")
	f.BoolVar(&o.resume, "resume", false, "leave out the items that the joblog knows")
	f.BoolVar(&o.resumeFailed, "resume-failed", false, "leave out the items that have succeeded, as the joblog knows")
	f.Var(&o.halt, "halt", "begin no more, or end all, then: soon,fail=1 now,success=2 soon,done=10%")
	f.IntVar(&o.retries, "retries", 1, "run an item that fails up to `N` times in all")
	f.Var(&o.timeout, "timeout", "how long an item may take: 5, 1.5s, 2m; or in percent of the median: 300%")
	f.Var(&o.delay, "delay", "time between the beginnings of two commands")
	f.StringVar(&o.memFree, "memfree", "", "begin no command while less than this `size` of memory is available")
	f.StringVar(&o.pool, "pool", "", "call a function of this pool")
	f.StringVar(&o.function, "func", "", "the function to call")
	o.lines.Register(cmd)
	// What xargs and parallel call them.
	f.StringVarP(&o.jobs, "max-procs", "P", "", "")
	f.IntVarP(&o.perCommand, "max-replace-args", "N", 0, "")
	f.IntVarP(&o.perCommand, "max-lines", "L", 0, "")
	for _, name := range []string{"max-procs", "max-replace-args", "max-lines"} {
		f.Lookup(name).Hidden = true
	}
	return cmd
}

// forCommands are the flags that make no sense with a function: a pool has its own workers, and what is written of a command is not there.
var forCommands = append([]string{"jobs", "max-procs"}, forItems...)

// forItems are those of them that need a command for each item.
var forItems = []string{
	"max-args", "max-replace-args", "max-lines", "pipe", "line-buffer", "ungroup", "results", "dry-run",
	"joblog", "resume", "resume-failed", "halt", "delay", "memfree",
}

// check finds the flags that do not go together, and reads those that need it. changed says which flags are given.
func (o *mapOptions) check(command []string, changed func(string) bool) (err error) {
	if o.workers, err = parseJobs(o.jobs, runtime.GOMAXPROCS(0)); err != nil {
		return err
	}
	if o.blockSize, err = flags.ParseBytes(o.block); err != nil {
		return fmt.Errorf("--block: %w", err)
	}
	if o.memory, err = flags.ParseBytes(o.memFree); err != nil {
		return fmt.Errorf("--memfree: %w", err)
	}
	o.recEndGiven = changed("recend")
	byName := o.pool != "" || o.function != ""
	given := func(names ...string) string {
		for _, name := range names {
			if changed(name) {
				return "--" + name
			}
		}
		return ""
	}
	number := cmp.Or(given("max-args"), given("max-replace-args", "max-lines"))
	layouts := []string{given("keep-order"), given("line-buffer"), given("ungroup")}
	if err := o.checkLines(); err != nil {
		return err
	}
	layouts = slices.DeleteFunc(layouts, func(s string) bool { return s == "" })
	switch {
	case len(layouts) > 1:
		return fmt.Errorf("%s and %s exclude each other", layouts[0], layouts[1])
	case o.json && (o.lineBuffer || o.ungroup):
		return fmt.Errorf("--json and %s exclude each other: an object is written when its item has ended", layouts[0])
	case o.tag && (o.json || o.ungroup):
		return errors.New("--tag needs whole lines of text: it does not go with --json or --ungroup; --line-buffer is close to the latter")
	case o.results != "" && (o.json || o.tag || o.lineBuffer || o.ungroup):
		return errors.New("--results writes output to files as it is: --json, --tag, --line-buffer and --ungroup are for output on stdout")
	case number != "" && (o.perCommand < 1 || o.perCommand > 1<<20):
		return fmt.Errorf("%s %d: a command gets 1 to %d items", number, o.perCommand, 1<<20)
	case len(o.files) > 1:
		return fmt.Errorf("-a is given %d times, and procpool map takes one list of items. One file after the other: cat %s | procpool map ...; line by line: paste %[2]s",
			len(o.files), strings.Join(o.files, " "))
	case o.nul && o.delimiter != "":
		return errors.New("-0 and --delimiter exclude each other")
	case changed("delimiter") && o.delimiter == "":
		return errors.New("--delimiter is empty; for items that end with NUL say -0")
	case len(unescape(o.delimiter)) > 1:
		return fmt.Errorf("--delimiter %q is more than one byte", o.delimiter)
	case !o.pipe && given("block", "recend", "recstart") != "":
		return fmt.Errorf("%s is for --pipe: without it, items are lines", given("block", "recend", "recstart"))
	case o.pipe && o.nul && o.recEndGiven:
		return errors.New("-0 and --recend exclude each other: records end with NUL, or with what --recend says")
	case o.pipe && o.delimiter != "":
		return errors.New("--pipe cuts between records: say what ends one with --recend, not with --delimiter")
	case o.pipe && (o.blockSize < 1 || o.blockSize > 1<<30):
		return fmt.Errorf("--block %s: a block has 1 byte to 1G", o.block)
	case o.pipe && o.perCommand > 0 && o.recEndGiven && o.recEnd+o.recStart == "":
		return fmt.Errorf("%s counts records, and --recend '' says that there are none", number)
	case o.pipe && o.tag:
		return errors.New("--tag needs items, and with --pipe there are none")
	case (o.resume || o.resumeFailed) && o.joblog == "":
		return errors.New("--resume and --resume-failed need --joblog: the file of the run that they go on with")
	case changed("retries") && (o.retries < 1 || o.retries > 1000):
		return fmt.Errorf("--retries %d: it is how often an item is run at most, 1 to 1000", o.retries)
	case o.halt.percent > 0 && o.pipe:
		return errors.New("--halt with a percentage needs to know how many items there are, and with --pipe nobody does")
	case byName && o.timeout.percent > 0:
		return errors.New("--timeout in percent is for commands; a function takes a duration")
	case byName && o.pool == "":
		return errors.New("--func needs --pool: which pool's function? (`procpool pools` lists them)")
	case byName && o.function == "":
		return errors.New("--pool needs --func: which of its functions? (`procpool pools` lists them)")
	case byName && len(command) > 0:
		return fmt.Errorf("%q stands where no command can: with --func, items follow %q", command[0], separator)
	case o.lines.Given() && given(forItems...) != "":
		return fmt.Errorf("%s is for a command per item; with --lines, a command answers many", given(forItems...))
	case o.lines.Given() && o.timeout.percent > 0:
		return errors.New("--timeout in percent is for a command per item; with --lines it is a duration")
	case byName && given(forCommands...) != "":
		return fmt.Errorf("%s is for commands, and does not go with --func", given(forCommands...))
	case !byName && len(command) == 0:
		return errors.New("no command; for example: procpool map -- wc -m {} ::: README.md go.mod")
	}
	if o.memory > 0 {
		if _, err := availableMemory(); err != nil {
			return fmt.Errorf("--memfree: %w", err)
		}
	}
	return nil
}

// gate is what the commands of a run pass before they begin.
func (o *mapOptions) gate(workers int, s *screen.Screen) *gate {
	g := newGate(workers)
	switch {
	case o.halt.of != "" || o.delay > 0 || o.memory > 0 || o.timeout.percent > 0: // each begins when it is let in, and no sooner
	case o.pipe:
		g.slots = 2 * workers // each holds a block
	default:
		g.slots += aheadWindow
	}
	if o.keepOrder {
		g.window = orderWindow
	}
	g.delay, g.memory, g.available = time.Duration(o.delay), o.memory, availableMemory
	g.waiting = func(available int64) {
		s.Say("waiting for memory: %s available, --memfree %s", flags.FormatBytes(available), o.memFree)
	}
	return g
}

// open finds the items.
func (o *mapOptions) open(ctx context.Context, list []string, given bool, s *screen.Screen) (*items, error) {
	name := "-"
	if len(o.files) > 0 {
		name = o.files[0]
	}
	switch {
	case given && o.pipe:
		return nil, fmt.Errorf("--pipe reads stdin or -a, and not what stands after %q", separator)
	case given && len(o.files) > 0:
		return nil, fmt.Errorf("items come after %q or from -a, not from both", separator)
	case given && (o.nul && !o.lines.Given() || o.delimiter != ""):
		return nil, fmt.Errorf("-0 and --delimiter are for items from -a or stdin, not for those after %q", separator)
	case given:
		if len(list) == 0 {
			s.Say("no items after %s: nothing to do", separator)
		}
		return listItems(list).each(max(o.perCommand, 1)), nil
	}
	if name == "-" && screen.TerminalWidth(os.Stdin) > 0 {
		s.Say("reading items from the terminal, one per line; Ctrl-D ends them (or give them after %s)", separator)
	}
	if o.pipe {
		return openBlocks(ctx, name, o.cutter())
	}
	delim, isLines := byte('\n'), true
	switch {
	case o.nul:
		delim, isLines = 0, false
	case o.delimiter != "":
		delim, isLines = unescape(o.delimiter)[0], false
	}
	in, err := openItems(ctx, name, delim, isLines)
	if err != nil {
		return nil, err
	}
	if o.halt.percent > 0 {
		in.readAll()
	}
	return in.each(max(o.perCommand, 1)), nil
}

func (o *mapOptions) cutter() records.Cutter {
	c := records.Cutter{Size: int(o.blockSize), Records: o.perCommand, End: []byte(unescape(o.recEnd)), Start: []byte(unescape(o.recStart))}
	switch {
	case o.nul:
		c.End = []byte{0}
	case o.recEnd == "" && o.recStart == "" && !o.recEndGiven:
		c.End = []byte("\n")
	}
	return c
}

func runMap(ctx context.Context, dial Dial, o *mapOptions, changed func(string) bool, args []string) error {
	command, list, given, err := splitArgs(args)
	if err != nil {
		return err
	}
	if err := o.check(command, changed); err != nil {
		return err
	}
	s := screen.New()
	s.WantsBar = s.WantsBar || (o.bar && s.Width > 0)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if len(command) > 0 && !o.dryRun {
		if err := checkProgram(command); err != nil {
			return err
		}
		if hint := shellSyntax(command); hint != "" {
			s.Say("%s", hint)
		}
	}
	in, err := o.open(ctx, list, given, s)
	if err != nil {
		return err
	}
	defer in.close()
	switch {
	case in.total == 0:
		return in.err()
	case o.dryRun:
		return dryRun(command, in, o)
	}
	m := &mapping{screen: s, options: o, in: in, cancel: cancel}
	if len(command) == 0 {
		m.progress = newProgress(in.total, 0, time.Now())
		return m.callFunction(ctx, dial)
	}
	m.workers = o.workers
	if in.total > 0 {
		m.workers = min(m.workers, in.total) // no worker without an item
	}
	m.progress = newProgress(in.total, m.workers, time.Now())
	if o.lines.Given() {
		return m.runLines(ctx, command)
	}
	return m.runCommands(ctx, command)
}

// dryRun writes the commands that would run, as a shell would take them.
func dryRun(command []string, in *items, o *mapOptions) error {
	t := parseTemplate(command, o.perCommand > 0)
	jobs, mismatch := in.jobs, error(nil)
	if o.resume || o.resumeFailed {
		old, err := readJoblog(o.joblog)
		if err != nil {
			return err
		}
		jobs = old.filter(jobs, o.resumeFailed, func(j *job) string { return oneLineCommand(t.words(j)) }, func() {}, func(err error) { mismatch = err })
	}
	for j := range jobs {
		words := t.words(j)
		j.release()
		for i := range words {
			words[i] = quote(words[i])
		}
		if _, err := fmt.Println(strings.Join(words, " ")); err != nil {
			return err
		}
	}
	return cmp.Or(mismatch, in.err())
}
