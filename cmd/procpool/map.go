package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

const mapHelp = `Map runs a command once for every item, several at a time, in worker processes of its own.

  {}  the item        {/}  its last element        {#}  its number, from 1
  {.} no extension    {//} its directory           {%}  the slot that runs it, from 1
  {/.} last element without extension              none of these: the item is appended

Items follow ":::", or come from a file (-a) or stdin, one per line: no quoting, empty lines are skipped. The command is not
read by a shell, and neither are items. If you want one: sh -c 'wc -m <"$1"' _ {}
Commands read nothing (/dev/null); what they write appears when they end.

With --lines the command runs once per worker and stays up: it reads an item per line and answers each with one line, which it
must flush. The oldest item without an answer is the one that is lost when it dies.

With --pool and --func it calls a function of a pool of the running daemon, instead: items that are valid JSON are passed as that,
others as JSON strings, and each result is a line of JSON. A function with another encoding gets and gives bytes as they are.

Exit status: 0; 1 to 100: so many items failed; 101: more; 255: procpool itself failed; 130: interrupted (128 + signal).`

const mapExamples = `  procpool map -- wc -m {} ::: README.md go.mod
  find . -name '*.png' -print0 | procpool map -0 -j 4 -- convert {} {.}.jpg
  procpool map -k --tag --timeout 5s -a hosts -- ping -c 1
  procpool map --lines -- python3 count.py ::: *.md
  procpool map --pool counting --func count_chars ::: $PWD/*.md`

// mapOptions are the flags of map.
type mapOptions struct {
	workers    int
	file       string
	nul        bool
	keepOrder  bool
	lineBuffer bool
	ungroup    bool
	tag        bool
	dryRun     bool
	json       bool
	timeout    time.Duration
	pool       string
	function   string
	lines      linesFlags
}

func newMapCommand(g *globals) *cobra.Command {
	var o mapOptions
	cmd := &cobra.Command{
		Use:     "map [flags] -- COMMAND [ARG...] [::: ITEM...]\n  procpool map [flags] --pool POOL --func FUNCTION [::: ITEM...]",
		Short:   "Run a command, or a function of a pool, over many items",
		Long:    mapHelp,
		Example: mapExamples,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runMap(cmd.Context(), g, &o, args)
		},
		DisableFlagsInUseLine: true,
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.SetInterspersed(false) // what follows the command's name is the command's
	f.IntVarP(&o.workers, "jobs", "j", 0, "how many commands run at a time (default: usable CPUs)")
	f.StringVarP(&o.file, "arg-file", "a", "", "read items from this file; - is stdin")
	f.BoolVarP(&o.nul, "null", "0", false, "items end with NUL, not with a newline")
	f.BoolVarP(&o.keepOrder, "keep-order", "k", false, "write results in the order of the items")
	f.BoolVar(&o.lineBuffer, "line-buffer", false, "write output line by line, as it comes")
	f.BoolVarP(&o.ungroup, "ungroup", "u", false, "write output as it comes, lines may mix")
	f.BoolVar(&o.tag, "tag", false, "begin each line with its item and a tab")
	f.BoolVar(&o.json, "json", false, "write a JSON object per item; bytes that are no text as {\"base64\": ...}")
	f.BoolVar(&o.dryRun, "dry-run", false, "write the commands, run nothing")
	f.DurationVar(&o.timeout, "timeout", 0, "how long an item may take, as 1.5s or 2m; then it is terminated")
	f.StringVar(&o.pool, "pool", "", "call a function of this pool")
	f.StringVar(&o.function, "func", "", "the function to call")
	o.lines.register(cmd)
	return cmd
}

// check finds the flags that do not go together.
func (o *mapOptions) check(command []string) error {
	var layouts []string
	for _, l := range []struct {
		name string
		set  bool
	}{{"--keep-order", o.keepOrder}, {"--line-buffer", o.lineBuffer}, {"--ungroup", o.ungroup}} {
		if l.set {
			layouts = append(layouts, l.name)
		}
	}
	byName := o.pool != "" || o.function != ""
	if err := o.lines.checkMap(o); err != nil {
		return err
	}
	switch {
	case len(layouts) > 1:
		return fmt.Errorf("%s and %s exclude each other", layouts[0], layouts[1])
	case o.json && (o.lineBuffer || o.ungroup):
		return fmt.Errorf("--json and %s exclude each other: an object is written when its item has ended", layouts[0])
	case o.tag && (o.json || o.ungroup):
		return errors.New("--tag needs whole lines of text: it does not go with --json or --ungroup; --line-buffer is close to the latter")
	case o.workers < 0 || o.workers > 4096:
		return fmt.Errorf("-j %d: the number of commands at a time is 1 to 4096, or 0 for the usable CPUs", o.workers)
	case o.timeout < 0:
		return fmt.Errorf("--timeout %v is negative", o.timeout)
	case byName && o.pool == "":
		return errors.New("--func needs --pool: which pool's function? (`procpool pools` lists them)")
	case byName && o.function == "":
		return errors.New("--pool needs --func: which of its functions? (`procpool pools` lists them)")
	case byName && len(command) > 0:
		return fmt.Errorf("%q stands where no command can: with --func, items follow %q", command[0], separator)
	case byName && (o.workers != 0 || o.lineBuffer || o.ungroup || o.dryRun):
		return errors.New("-j, --line-buffer, --ungroup and --dry-run are for commands; a pool has its own workers")
	case !byName && len(command) == 0:
		return errors.New("no command; for example: procpool map -- wc -m {} ::: README.md go.mod")
	}
	return nil
}

// checkProgram refuses what cannot be run, before a single worker starts.
func checkProgram(command []string) error {
	name := command[0]
	_, err := exec.LookPath(name)
	if err == nil {
		return nil
	}
	if strings.ContainsAny(name, " |&;<>$`\"'") {
		return fmt.Errorf("%q is not a program. procpool does not use a shell: give each argument as a word of its own, or ask for a shell with sh -c '...\"$1\"...' _ {}",
			name)
	}
	if at, _ := nextPlaceholder(name); at < len(name) {
		return nil // only the item tells
	}
	return err
}

// open finds the items.
func (o *mapOptions) open(ctx context.Context, list []string, given bool, s *screen) (*items, error) {
	delim := byte('\n')
	if o.nul {
		delim = 0
	}
	switch {
	case given && o.file != "":
		return nil, fmt.Errorf("items come after %q or from -a, not from both", separator)
	case given && o.nul && !o.lines.set():
		return nil, fmt.Errorf("-0 is for items from -a or stdin, not for those after %q", separator)
	case given:
		if len(list) == 0 {
			s.say("no items after %s: nothing to do", separator)
		}
		return listItems(list), nil
	}
	name := cmp.Or(o.file, "-")
	if name == "-" && terminalWidth(os.Stdin) > 0 {
		s.say("reading items from the terminal, one per line; Ctrl-D ends them (or give them after %s)", separator)
	}
	return openItems(ctx, name, delim)
}

func runMap(ctx context.Context, g *globals, o *mapOptions, args []string) error {
	command, list, given, err := splitArgs(args)
	if err != nil {
		return err
	}
	if err := o.check(command); err != nil {
		return err
	}
	s := newScreen()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if len(command) > 0 && !o.dryRun {
		if err := checkProgram(command); err != nil {
			return err
		}
	}
	in, err := o.open(ctx, list, given, s)
	if err != nil {
		return err
	}
	defer in.close()
	switch {
	case in.total == 0:
		return nil
	case o.dryRun:
		return dryRun(command, in)
	}
	m := &mapping{screen: s, options: o, in: in, cancel: cancel, progress: newProgress(in.total, time.Now())}
	if len(command) == 0 {
		return m.callFunction(ctx, g)
	}
	if o.lines.set() {
		return m.runLines(ctx, command)
	}
	return m.runCommands(ctx, command)
}

// dryRun writes the commands as a shell would take them.
func dryRun(command []string, in *items) error {
	t := parseTemplate(command)
	index := 0
	for item := range in.seq {
		argv, slots := t.expand(item, index)
		for _, p := range slices.Backward(slots) {
			argv[p.Arg] = slices.Insert(argv[p.Arg], p.Offset, []byte("{%}")...)
		}
		words := make([]string, len(argv))
		for i, a := range argv {
			words[i] = quote(string(a))
		}
		if _, err := fmt.Println(strings.Join(words, " ")); err != nil {
			return err
		}
		index++
	}
	return in.err()
}

// quote makes a word that a shell reads as s.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:=,+@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// mapping is one run of map.
type mapping struct {
	screen   *screen
	options  *mapOptions
	in       *items
	progress *progress
	cancel   context.CancelCauseFunc // ends the run; with outputError for output that cannot be written
	failures []string                // the first few, for the end
}

// outputError is the cause of an end because stdout or a spool file takes no more.
type outputError struct{ error }

func (e outputError) Unwrap() error { return e.error }

const (
	shownFailures = 10
	orderWindow   = 1024 // with -k, how many items may be ahead of the slowest: their output waits in memory
)

func (m *mapping) layout() layout {
	switch o := m.options; {
	case o.json:
		return &objects{blocks{screen: m.screen, pending: map[int]*spooled{}}}
	case o.lineBuffer || o.ungroup:
		return &live{screen: m.screen, tag: o.tag, lines: o.lineBuffer, pending: map[lineKey]*line{}}
	default:
		return &blocks{screen: m.screen, tag: o.tag, pending: map[int]*spooled{}}
	}
}

func (m *mapping) runCommands(ctx context.Context, argv []string) error {
	t := parseTemplate(argv)
	slotFile := ""
	if t.hasSlots {
		f, err := os.CreateTemp("", "procpool-slots-*")
		if err != nil {
			return fmt.Errorf("make a file for slots: %w", err)
		}
		f.Close()
		defer os.Remove(f.Name())
		slotFile = f.Name()
	}
	workers := m.options.workers
	if usable := cmp.Or(workers, runtime.GOMAXPROCS(0)); m.in.total > 0 && m.in.total < usable {
		workers = m.in.total // no worker without an item
	}
	pool, err := local.OpenPool(ctx,
		client.Workers(workers),
		client.CancelGrace(2*commandGrace),
		client.KillDelay(commandGrace),
		client.Output(m.workerOutput),
	)
	if err != nil {
		return err
	}
	out := m.layout()
	isLive := m.options.lineBuffer || m.options.ungroup
	inputs := func(yield func(command) bool) {
		for item := range m.in.seq {
			index := m.progress.begin(item, time.Now())
			args, slots := t.expand(item, index)
			if !yield(command{Argv: args, Live: isLive, Slots: slots, SlotFile: slotFile}) {
				return
			}
		}
		m.progress.inputEnded()
	}
	err = runAll(ctx, m, pool, runCommand, inputs, commandWriter{out}, client.ChunkSize(1), client.TaskOutput(m.pieces(out)), client.Label(shorten("map "+argv[0], 60)))
	return errors.Join(err, pool.Terminate())
}

// workerOutput shows what a worker itself writes: it is a crash, or ought not to be there.
func (m *mapping) workerOutput(o client.WorkerOutput) {
	fmt.Fprintf(m.screen.err(), "procpool: %s: %s\n", o.Worker, o.Line)
}

// pieces gives the output of running commands to out.
func (m *mapping) pieces(out layout) func(index, attempt, stream int, data []byte) {
	failed := false
	return func(index, attempt, stream int, data []byte) {
		switch {
		case failed:
		case stream == pidStream:
			m.progress.runs(index, string(data))
		case stream == 1 || stream == 2:
			if err := out.piece(index, attempt, stream, m.progress.item(index), data); err != nil {
				failed = true
				m.cancel(outputError{err})
			}
		}
	}
}

// writer writes the outcomes of a run.
type writer[R any] interface {
	write(item string, out client.Outcome[R]) error
	flush() error
}

// runAll calls fn for every input, writes the outcomes as they come, and says at the end what failed.
func runAll[A, R any](ctx context.Context, m *mapping, pool *client.Pool, fn client.Function[A, R], inputs iter.Seq[A], w writer[R], opts ...client.CallOption) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var watcher sync.WaitGroup
	if m.screen.width > 0 {
		watcher.Go(func() { m.progress.watch(watching, m.screen) })
	}
	opts = append(opts, client.TaskTimeout(m.options.timeout))
	verb := client.IMapUnordered[A, R]
	if m.options.keepOrder {
		verb = client.IMap[A, R]
		opts = append(opts, client.Window(orderWindow, 0))
	}
	var err error
	for out, end := range verb(ctx, pool, fn, inputs, opts...) {
		if end != nil {
			err = end
			break
		}
		item := m.progress.item(out.Index)
		m.progress.end(out.Index, out.Err == nil, time.Now())
		if out.Err != nil && len(m.failures) < shownFailures {
			m.failures = append(m.failures, fmt.Sprintf("item %d (%s): %s", out.Index+1, shorten(item, 60), reasonOf(out.Err)))
		}
		if err = w.write(item, out); err != nil {
			break
		}
	}
	if flushErr := w.flush(); err == nil {
		err = flushErr
	}
	stop()
	watcher.Wait()
	var output outputError
	if errors.As(context.Cause(ctx), &output) {
		err = output.error
	}
	return m.conclude(ctx, cmp.Or(err, m.in.err()))
}

// conclude says what failed.
func (m *mapping) conclude(ctx context.Context, err error) error {
	done, failed, total := m.progress.counts()
	if errors.Is(err, syscall.EPIPE) {
		return err // nobody reads on: nothing is left to say
	}
	for _, f := range m.failures {
		m.screen.say("%s", f)
	}
	var interrupted signalError
	switch {
	case errors.As(context.Cause(ctx), &interrupted):
		m.screen.say("%v: %d items done, %d of them failed", interrupted, done, failed)
	case failed > 0 && total >= 0:
		m.screen.say("%d of %d failed", failed, total)
	case failed > 0:
		m.screen.say("%d failed of %d done", failed, done)
	}
	if err != nil {
		return err
	}
	return failedItems(failed)
}

// reasonOf is why an item failed, without its index.
func reasonOf(err error) string {
	var t *client.TaskError
	if !errors.As(err, &t) {
		return err.Error()
	}
	_, reason, ok := strings.Cut(t.Error(), ": ")
	if !ok {
		return t.Error()
	}
	return reason
}

// outcomeName is the name that a task's end has in JSON.
func outcomeName(err error) string {
	outcome := pb.Outcome_OUTCOME_VALUE
	var t *client.TaskError
	if errors.As(err, &t) {
		outcome = t.Outcome
	}
	return strings.ToLower(strings.TrimPrefix(outcome.String(), "OUTCOME_"))
}

// commandWriter writes the ends of commands.
type commandWriter struct{ layout layout }

func (w commandWriter) write(item string, out client.Outcome[commandResult]) error {
	e := &ended{Index: out.Index, Item: item, Outcome: outcomeName(out.Err), Err: out.Err, Result: out.Value, Attempt: out.Attempt}
	var t *client.TaskError
	if errors.As(out.Err, &t) {
		e.Result.Worker = t.Worker
		if len(t.Detail) > 0 {
			if err := json.Unmarshal(t.Detail, &e.Result); err != nil {
				return fmt.Errorf("read the end of item %d: %w", out.Index, err)
			}
		}
	}
	return w.layout.end(e)
}

func (w commandWriter) flush() error { return nil }
