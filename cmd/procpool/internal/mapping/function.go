package mapping

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/cmd/procpool/internal/exit"
	"github.com/procpool/procpool/cmd/procpool/internal/text"
	"github.com/procpool/procpool/proto/payload"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// poolFunction is a function of a pool as it looks from a shell: words in, bytes out.
type poolFunction struct{ name, encoding string }

// Name is the function's name.
func (f poolFunction) Name() string { return f.name }

// Encoding is what the pool says.
func (f poolFunction) Encoding() string { return f.encoding }

// AppendArg passes JSON on to a function that wants JSON, and makes a JSON string of anything else; other functions get the bytes.
func (f poolFunction) AppendArg(dst []byte, item string) ([]byte, error) {
	switch {
	case f.encoding != payload.NameJSON:
		return append(dst, item...), nil
	case json.Valid([]byte(item)):
		b := bytes.NewBuffer(dst)
		err := json.Compact(b, []byte(item))
		return b.Bytes(), err
	case !utf8.ValidString(item):
		return dst, errors.New("the item is not UTF-8, which JSON cannot hold")
	}
	b, err := json.Marshal(item)
	return append(dst, b...), err
}

// DecodeResult is the bytes; JSON on one line.
func (f poolFunction) DecodeResult(b []byte) ([]byte, error) {
	if f.encoding != payload.NameJSON {
		return bytes.Clone(b), nil
	}
	var line bytes.Buffer
	if err := json.Compact(&line, b); err != nil {
		return nil, err
	}
	return line.Bytes(), nil
}

// findFunction asks the pool how a function's items are encoded. A pool without a worker does not know yet; its first worker says so, or why
// it cannot start. A function that does not exist is left to the call, whose refusal says what does.
func findFunction(ctx context.Context, look func(context.Context) (*pb.Pool, error), name string) (poolFunction, error) {
	fn := poolFunction{name: name}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		info, err := look(ctx)
		if err != nil {
			return fn, err
		}
		for _, f := range info.GetFunctions() {
			if f.GetName() == name {
				fn.encoding = f.GetEncoding()
			}
		}
		up := info.GetIdle()+info.GetBusy() > 0 // a worker has introduced itself, if only to say that it has no function
		if up || len(info.GetFunctions()) > 0 || info.GetState() != pb.PoolState_POOL_STATE_OPEN {
			return fn, nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fn, context.Cause(ctx)
		}
	}
}

// callFunction is map with a pool of the daemon.
func (m *mapping) callFunction(ctx context.Context, dial Dial) error {
	c, err := dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	pool, err := c.Pool(ctx, m.options.pool)
	if err != nil {
		return err
	}
	fn, err := findFunction(ctx, pool.Info, m.options.function)
	if err != nil {
		return err
	}
	return m.call(ctx, pool, fn, '\n')
}

// call calls a function for every item. end is what a result ends with.
func (m *mapping) call(ctx context.Context, pool *client.Pool, fn poolFunction, end byte) error {
	inputs := func(yield func(string) bool) {
		for j := range m.in.jobs {
			m.progress.begin(j, time.Now())
			if !yield(j.Items[0]) {
				return
			}
		}
		m.progress.inputEnded()
	}
	w := newResultWriter(m.screen.Out(), m.options, fn.encoding)
	w.end = end
	return runAll(ctx, m, pool, fn, inputs, w, client.Label("procpool map"))
}

// resultWriter writes the results of a function, a line each. They come by the million: it gathers them, but never for long.
type resultWriter struct {
	json, tag, raw bool
	end            byte

	mu    sync.Mutex
	buf   *bufio.Writer
	line  []byte
	timer *time.Timer // runs while buf holds something
	late  error       // of a write by the timer
}

// flushAfter is how long a result may be held back in the hope of more.
const flushAfter = 20 * time.Millisecond

func newResultWriter(w io.Writer, o *mapOptions, encoding string) *resultWriter {
	return &resultWriter{json: o.json, tag: o.tag, raw: encoding != payload.NameJSON, buf: bufio.NewWriterSize(w, 64<<10)}
}

// resultObject is a result as --json shows it.
type resultObject struct {
	Index   int        `json:"index"`
	Item    text.Bytes `json:"item"`
	Outcome string     `json:"outcome"`
	Result  any        `json:"result,omitempty"`
	Error   string     `json:"error,omitempty"`
	Worker  string     `json:"worker,omitempty"`
	Attempt int        `json:"attempt"`
}

func (w *resultWriter) write(it *pendingItem, out client.Outcome[[]byte]) error {
	item := it.job.Items[0]
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.late != nil {
		return w.late
	}
	switch {
	case w.json:
		obj := resultObject{Index: out.Index, Item: text.Bytes(item), Outcome: outcomeName(out.Err), Attempt: out.Attempt}
		var t *client.TaskError
		switch {
		case errors.As(out.Err, &t):
			obj.Worker, obj.Error = t.Worker, reasonOf(out.Err)
		case w.raw:
			obj.Result = text.Bytes(out.Value)
		default:
			obj.Result = json.RawMessage(out.Value)
		}
		if err := text.WriteJSONLine(w.buf, obj); err != nil {
			return err
		}
	case out.Err != nil:
		return nil
	default:
		if w.tag {
			w.line = append(append(w.line, item...), '\t')
		}
		w.line = append(append(w.line, out.Value...), w.end)
		_, err := w.buf.Write(w.line)
		w.line = w.line[:0]
		if err != nil {
			return err
		}
	}
	if w.timer == nil && w.buf.Buffered() > 0 {
		w.timer = time.AfterFunc(flushAfter, w.flushLate)
	}
	return nil
}

func (w *resultWriter) flushLate() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = nil
	if err := w.buf.Flush(); err != nil {
		w.late = err
	}
}

func (w *resultWriter) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop() // one that is running finds nothing to write
	}
	return w.buf.Flush()
}

func newApplyCommand(dial Dial) *cobra.Command {
	var name string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "apply --pool POOL FUNCTION ITEM",
		Short: "Call a function of a pool once",
		Long: `Apply calls a function of a pool once and prints its result. An ITEM that is valid JSON is passed as that, another one
as a JSON string; a function with another encoding gets and gives bytes as they are.

Exit status: 0; 1: the task failed; 255: procpool itself failed; 130: interrupted (128 + signal).`,
		Example: `  procpool apply --pool counting count_chars $PWD/README.md
  procpool apply --pool thumbs make_thumb '{"file": "/tmp/a.png", "width": 80}'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("apply which function to which item? One of each, as in procpool apply --pool counting count_chars README.md; there are %d arguments", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, err := dial(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			pool, err := c.Pool(ctx, name)
			if err != nil {
				return err
			}
			fn, err := findFunction(ctx, pool.Info, args[0])
			if err != nil {
				return err
			}
			result, err := client.Apply(ctx, pool, fn, args[1], client.TaskTimeout(timeout), client.Label("procpool apply"))
			var failed *client.TaskError
			switch {
			case errors.As(err, &failed):
				fmt.Fprintln(cmd.ErrOrStderr(), "procpool:", err)
				return exit.StatusError(1)
			case err != nil:
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", result)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "pool", "", "the pool")
	f.DurationVar(&timeout, "timeout", 0, "how long it may run, as 1.5s or 2m")
	if err := cmd.MarkFlagRequired("pool"); err != nil {
		panic(err) // the flag stands two lines above
	}
	return cmd
}
