package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/cmd/procpool/internal/exit"
	"github.com/procpool/procpool/cmd/procpool/internal/screen"
	"github.com/procpool/procpool/proto/payload"
	"github.com/procpool/procpool/workerproc/lines"
)

// linesFlags are the flags for programs that answer lines.
type linesFlags struct{ text, json, null bool }

func (l *linesFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&l.text, "lines", false, "the program stays up, reads an item per line and answers each with a line")
	f.BoolVar(&l.json, "json-lines", false, "the same, with a JSON value per line")
}

func (l *linesFlags) registerNull(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&l.null, "null", "0", false, "with --lines: items and answers end with NUL, not with a newline")
}

func (l *linesFlags) set() bool { return l.text || l.json }

// checkMap finds the flags of map that do not go together with these.
func (l *linesFlags) checkMap(o *mapOptions) error {
	l.null = o.nul
	switch {
	case l.text && l.json:
		return errors.New("--lines and --json-lines exclude each other")
	case !l.set():
		return nil
	case o.pool != "" || o.function != "":
		return fmt.Errorf("--lines is for a command; a pool of line workers has the function %s: procpool map --pool POOL --func %s", lines.Function, lines.Function)
	}
	return nil
}

// spec is the line program for a command.
func (l *linesFlags) spec(command []string) lines.Spec {
	s := lines.Spec{Command: command, Form: lines.Strings, Null: l.null}
	if l.json {
		s.Form = lines.Values
	}
	return s
}

// program is the program of a pool: the command, or the adapter of a line program.
func (l *linesFlags) program(command []string, drainMemory int64) (client.PoolOption, error) {
	switch {
	case l.text && l.json:
		return nil, errors.New("--lines and --json-lines exclude each other")
	case l.null && !l.set():
		return nil, errors.New("--null is for --lines and --json-lines")
	case !l.set():
		return client.Program(command[0], command[1:]...), nil
	case drainMemory > 0:
		return nil, errors.New("--drain-memory looks at the worker's own process, which a line program is a child of: it does not go with --lines (--max-tasks does)")
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		return nil, err
	}
	return adapter(l.spec(command))
}

// adapter is this program as the adapter of a line program.
func adapter(s lines.Spec) (client.PoolOption, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program for its workers: %w", err)
	}
	return client.Program(self, s.Args()...), nil
}

// runLines is map with a pool of its own, whose workers are line programs.
func (m *mapping) runLines(ctx context.Context, command []string) error {
	spec := m.options.lines.spec(command)
	fn, end := poolFunction{lines.Function, payload.NameJSON}, byte('\n')
	if spec.Form == lines.Strings { // our own pool need not make JSON of it
		spec.Form, fn.encoding = lines.Bytes, payload.NameBytes
	}
	if spec.Null {
		end = 0
	}
	program, err := adapter(spec)
	if err != nil {
		return err
	}
	pool, err := local.OpenPool(ctx,
		program, client.Workers(m.workers), client.CancelGrace(2*commandGrace), client.KillDelay(commandGrace), client.Output(lineOutput(m.screen)))
	if err != nil {
		return err
	}
	err = m.call(ctx, pool, fn, end)
	var failed exit.StatusError
	if err == nil || errors.As(err, &failed) { // the programs see the end of their input
		err = errors.Join(err, pool.Close(), pool.Join(ctx))
	}
	return errors.Join(err, pool.Terminate())
}

// lineOutput shows what line programs write to stderr, as it comes; advice that several of them get is given once.
func lineOutput(s *screen.Screen) func(client.WorkerOutput) {
	var advice sync.Once
	return func(o client.WorkerOutput) {
		write := func() { fmt.Fprintf(s.Err(), "%s\n", o.Line) }
		if strings.HasPrefix(string(o.Line), lines.Advice) {
			advice.Do(write)
			return
		}
		write()
	}
}
