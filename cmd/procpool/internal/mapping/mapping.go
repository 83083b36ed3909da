package mapping

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/cmd/procpool/internal/exit"
	"github.com/procpool/procpool/cmd/procpool/internal/screen"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// mapping is one run of map.
type mapping struct {
	screen   *screen.Screen
	options  *mapOptions
	in       *items
	progress *progress
	cancel   context.CancelCauseFunc // ends the run; with an outputError or a haltedError as its cause
	failures []failure               // the first few, for the end
	halted   bool                    // by the rule

	// Of commands only:
	workers int
	gate    *gate
	log     *joblog
	resumed *resumed
	limit   *medianLimit
	lost    atomic.Pointer[outputError] // why output of a running command could not be written: no end is noted after that
}

// failure is an item that failed, and why.
type failure struct {
	seq  int
	text string
}

// outputError is the cause of an end because stdout or a file takes no more.
type outputError struct{ error }

func (e outputError) Unwrap() error { return e.error }

const (
	shownFailures = 10
	orderWindow   = 1024 // with -k, how many items may be ahead of the slowest
	aheadWindow   = 256  // how many items may wait beside those that run, when nothing has to be decided before each

	// commandLinger is how long the end of a command may be on its way while its worker runs others. Nobody sees it, and a message for each end would
	// cost a short command a tenth of its time.
	commandLinger = 10 * time.Millisecond
)

// runCommands is map with a command.
func (m *mapping) runCommands(ctx context.Context, argv []string) (err error) {
	o := m.options
	t := parseTemplate(argv, o.perCommand > 0)
	var files commandFiles
	defer files.close()
	if t.hasSlots {
		if files.slots, err = files.add("slots"); err != nil {
			return err
		}
	}
	if o.timeout.percent > 0 {
		if files.limit, err = files.add("time limits"); err != nil {
			return err
		}
		m.limit = &medianLimit{percent: o.timeout.percent, file: files.limit.file}
	}
	m.gate = o.gate(m.workers, m.screen)
	if o.joblog != "" {
		if m.log, m.resumed, err = openJoblog(o.joblog, o.resume || o.resumeFailed); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.log.close()) }()
	}
	out, flush, err := m.outputs(&t)
	if err != nil {
		return err
	}
	pool, err := local.OpenPool(ctx,
		client.Workers(m.workers),
		client.CancelGrace(3*commandGrace), // one before SIGKILL, one for output that is held by what the command has left; and one to say so
		client.KillDelay(commandGrace),
		client.Output(m.workerOutput),
	)
	if err != nil {
		return err
	}
	isLive := (o.lineBuffer || o.ungroup) && o.results == ""
	inputs := func(yield func(command) bool) {
		for j := range m.remaining(&t) {
			index, ok := m.begin(ctx, j)
			if !ok {
				return
			}
			c := t.expand(j)
			c.Live, c.SlotFile, c.LimitFile = isLive, files.slots.path, files.limit.path
			if j.Block != nil {
				c.Stdin = j.Block.path
			}
			if !yield(c) {
				m.progress.forget(index)
				return
			}
		}
		m.progress.inputEnded()
	}
	w := commandWriter{mapping: m, layout: out, closeAll: flush}
	err = runAll(ctx, m, pool, runCommand, inputs, w, client.ChunkSize(1), client.Linger(commandLinger), client.TaskOutput(m.pieces(out)), client.Label(screen.Shorten("map "+argv[0], 60)))
	return errors.Join(err, pool.Terminate())
}

// remaining are the jobs of the input without those that the joblog knows.
func (m *mapping) remaining(t *template) iter.Seq[*job] {
	if m.resumed == nil {
		return m.in.jobs
	}
	return m.resumed.filter(m.in.jobs, m.options.resumeFailed,
		func(j *job) string { return oneLineCommand(t.words(j)) },
		m.progress.skip,
		func(err error) { m.cancel(outputError{err}) })
}

// begin waits until a job may begin, and counts it.
func (m *mapping) begin(ctx context.Context, j *job) (index int, ok bool) {
	ok, err := m.gate.enter(ctx)
	if err != nil {
		m.cancel(outputError{err})
	}
	if !ok {
		j.release()
		return 0, false
	}
	return m.progress.begin(j, time.Now()), true
}

// commandFiles are what all commands of a run share.
type commandFiles struct {
	slots, limit shared // the zero value where there is no need of it
	opened       []shared
}

func (c *commandFiles) add(what string) (shared, error) {
	f, err := newShared(what)
	if err == nil {
		c.opened = append(c.opened, f)
	}
	return f, err
}

func (c *commandFiles) close() {
	for _, f := range c.opened {
		f.close()
	}
}

// outputs is where goes what commands write, and what is noted of their ends, last of all in the joblog: an item that is in there has been
// written. flush writes and closes what is left at the end.
func (m *mapping) outputs(t *template) (out layout, flush func() error, err error) {
	o := m.options
	commandLine := func(e *ended) string { return oneLineCommand(t.words(e.Job)) }
	closeMain := func() error { return nil }
	var main layout
	switch {
	case isTable(o.results):
		table, err := newResultTable(o.results, o.resume || o.resumeFailed, max(o.perCommand, 1), commandLine)
		if err != nil {
			return nil, nil, err
		}
		main, closeMain = table, table.flush
	case o.results != "":
		dir, err := newResultDir(o.results)
		if err != nil {
			return nil, nil, err
		}
		main, closeMain = dir, dir.flush
	case o.json:
		main = &objects{blocks{screen: m.screen, pending: map[int]*spooled{}}}
	case o.lineBuffer || o.ungroup:
		main = &live{screen: m.screen, tag: o.tag, lines: o.lineBuffer, pending: map[lineKey]*line{}}
	default:
		main = &blocks{screen: m.screen, tag: o.tag, pending: map[int]*spooled{}}
	}
	all := outputs{main}
	if m.log != nil {
		m.log.command = commandLine
		all = append(all, m.log)
	}
	out = written{layout: all, tell: m.gate.wrote}
	if !o.keepOrder {
		return out, closeMain, nil
	}
	inOrder := newOrdered(out)
	return inOrder, func() error { return errors.Join(inOrder.flush(), closeMain()) }, nil
}

// workerOutput shows what a worker itself writes: it is a crash, or ought not to be there.
func (m *mapping) workerOutput(o client.WorkerOutput) {
	fmt.Fprintf(m.screen.Err(), "procpool: %s: %s\n", o.Worker, o.Line)
}

// pieces gives the output of running commands to out.
func (m *mapping) pieces(out layout) func(index, attempt, stream int, data []byte) {
	return func(index, attempt, stream int, data []byte) {
		switch {
		case m.lost.Load() != nil:
		case stream == pidStream:
			m.progress.runs(index, string(data))
		case stream == 1 || stream == 2:
			if err := out.piece(index, attempt, stream, m.progress.job(index), data); err != nil {
				m.lost.Store(&outputError{err})
				m.cancel(outputError{err})
			}
		}
	}
}

// writer writes the outcomes of a run.
type writer[R any] interface {
	write(it *pendingItem, out client.Outcome[R]) error
	flush() error
}

// runAll calls fn for every input, writes the outcomes as they come, and says at the end what failed.
func runAll[A, R any](ctx context.Context, m *mapping, pool *client.Pool, fn client.Function[A, R], inputs iter.Seq[A], w writer[R], opts ...client.CallOption) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var watcher sync.WaitGroup
	if m.screen.Width > 0 {
		watcher.Go(func() { m.progress.watch(watching, m.screen) })
	}
	opts = append(opts, client.TaskTimeout(m.options.timeout.fixed), client.MaxAttempts(max(m.options.retries, 1)),
		client.RetryOn(client.ErrTask, client.ErrTimeout, client.ErrWorkerLost))
	verb := client.IMapUnordered[A, R]
	if m.gate == nil && m.options.keepOrder {
		verb = client.IMap[A, R]
		opts = append(opts, client.Window(orderWindow, 0))
	}
	var err error
	for out, end := range verb(ctx, pool, fn, inputs, opts...) {
		if end != nil {
			err = end
			break
		}
		it := m.progress.end(out.Index, out.Err == nil, time.Now())
		if out.Err != nil && len(m.failures) < shownFailures {
			m.failures = append(m.failures, failure{it.job.Seq, fmt.Sprintf("%s: %s", it, reasonOf(out.Err))})
		}
		err = w.write(it, out)
		it.job.release()
		if err != nil || m.stops() {
			break
		}
	}
	if flushErr := w.flush(); err == nil {
		err = flushErr
	}
	m.progress.releaseAll()
	stop()
	watcher.Wait()
	var output outputError
	if errors.As(context.Cause(ctx), &output) {
		err = output.error
	}
	return m.conclude(ctx, cmp.Or(err, m.in.err()))
}

// stops is told that an item has ended, and says whether none is to be awaited any more.
func (m *mapping) stops() bool {
	if m.gate == nil {
		return false
	}
	rule := m.options.halt
	if !m.halted && rule.met(m.progress.counts()) {
		m.halted = true
		m.gate.shut() // before there is a place for the next one
		if rule.now {
			m.cancel(haltedError{rule})
			return true
		}
	}
	m.gate.ended()
	return m.gate.drained()
}

// conclude says what failed.
func (m *mapping) conclude(ctx context.Context, err error) error {
	done, failed, total := m.progress.counts()
	if errors.Is(err, syscall.EPIPE) {
		return err // nobody reads on: nothing is left to say
	}
	slices.SortFunc(m.failures, func(a, b failure) int { return a.seq - b.seq })
	for _, f := range m.failures {
		m.screen.Say("%s", f.text)
	}
	var interrupted exit.SignalError
	switch {
	case errors.As(context.Cause(ctx), &interrupted):
		m.screen.Say("%v: %d items done, %d of them failed", interrupted, done, failed)
	case m.halted:
		m.screen.Say("%v: %d items done, %d of them failed", haltedError{m.options.halt}, done, failed)
	case failed > 0 && total >= 0:
		m.screen.Say("%d of %d failed", failed, total)
	case failed > 0:
		m.screen.Say("%d failed of %d done", failed, done)
	}
	switch {
	case err != nil:
		return err
	case m.halted && m.options.halt.of == "success":
		return nil
	}
	return exit.Failed(failed)
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
type commandWriter struct {
	mapping  *mapping
	layout   layout
	closeAll func() error
}

func (w commandWriter) write(it *pendingItem, out client.Outcome[commandResult]) error {
	if lost := w.mapping.lost.Load(); lost != nil { // perhaps its own output, which came before this
		return *lost
	}
	e := &ended{Index: out.Index, Job: it.job, Outcome: outcomeName(out.Err), Err: out.Err, Result: out.Value, Attempt: out.Attempt, Start: it.begun}
	var t *client.TaskError
	if errors.As(out.Err, &t) {
		e.Result.Worker = t.Worker
		if len(t.Detail) > 0 {
			if err := json.Unmarshal(t.Detail, &e.Result); err != nil {
				return fmt.Errorf("read the end of item %d: %w", it.job.Seq, err)
			}
		}
	}
	if e.Result.Late {
		e.Outcome = "timeout"
	}
	if ms := e.Result.StartMS; ms > 0 {
		e.Start = time.UnixMilli(ms)
	}
	if w.mapping.limit != nil && out.Err == nil {
		if err := w.mapping.limit.add(time.Duration(e.Result.Seconds * float64(time.Second))); err != nil {
			return err
		}
	}
	return w.layout.end(e)
}

func (w commandWriter) flush() error { return w.closeAll() }
