package mapping

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/cmd/procpool/internal/exit"
	"github.com/procpool/procpool/cmd/procpool/internal/flags"
	"github.com/procpool/procpool/cmd/procpool/internal/screen"
	"github.com/procpool/procpool/proto/payload"
	"github.com/procpool/procpool/workerproc/lines"
)

// checkLines finds the flags that do not go together with those for programs that answer lines.
func (o *mapOptions) checkLines() error {
	o.lines.Null = o.nul
	if err := o.lines.Check(); err != nil {
		return err
	}
	if o.lines.Given() && (o.pool != "" || o.function != "") {
		return fmt.Errorf("--lines is for a command; a pool of line workers has the function %s: procpool map --pool POOL --func %s", lines.Function, lines.Function)
	}
	return nil
}

// runLines is map with a pool of its own, whose workers are line programs.
func (m *mapping) runLines(ctx context.Context, command []string) error {
	if path, err := findProgram(command[0]); err == nil && !filepath.IsAbs(path) {
		command[0] = path // which the adapter would not look for in a relative directory
	}
	spec := m.options.lines.Spec(command)
	fn, end := poolFunction{lines.Function, payload.NameJSON}, byte('\n')
	if spec.Form == lines.Strings { // our own pool need not make JSON of it
		spec.Form, fn.encoding = lines.Bytes, payload.NameBytes
	}
	if spec.Null {
		end = 0
	}
	program, err := flags.Adapter(spec)
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
