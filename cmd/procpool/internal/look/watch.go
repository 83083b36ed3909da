package look

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// watchInterval is how often --watch looks.
const watchInterval = time.Second

// watchTerminal is the terminal that --watch writes its table to; nil if stdout is none.
func watchTerminal(w io.Writer) *os.File {
	if f, ok := w.(*os.File); ok && term.IsTerminal(f.Fd()) {
		return f
	}
	return nil
}

// watchList shows a list again and again until ctx ends: as a table in place of the last one, or, without a terminal, each row as a line of JSON when it is new
// or has changed.
func watchList[M proto.Message](ctx context.Context, w io.Writer, terminal *os.File, list func(context.Context) ([]M, error), table func(io.Writer, []M) error) error {
	seen := make(map[string]bool)
	for {
		messages, err := list(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case terminal != nil:
			err = rewrite(terminal, messages, table)
		default:
			seen, err = writeChanged(w, messages, seen)
		}
		if err != nil {
			return err
		}
		select {
		case <-time.After(watchInterval):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// rewrite draws the table over the last one. What does not fit on the screen is said and not shown.
func rewrite[M proto.Message](terminal *os.File, messages []M, table func(io.Writer, []M) error) error {
	width, height, err := term.GetSize(terminal.Fd())
	if err != nil {
		return fmt.Errorf("size of the terminal: %w", err)
	}
	var text bytes.Buffer
	if err := table(&text, messages); err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	lines = append([]string{time.Now().Format(time.TimeOnly)}, lines...)
	if len(lines) > height-1 && height > 3 {
		more := len(lines) - (height - 2)
		lines = append(lines[:height-2], fmt.Sprintf("… and %d more", more))
	}
	var screen strings.Builder
	screen.WriteString(ansi.CursorHomePosition)
	for _, l := range lines {
		screen.WriteString(ansi.Truncate(l, width, "…") + ansi.EraseLineRight + "\n")
	}
	screen.WriteString(ansi.EraseScreenBelow)
	_, err = io.WriteString(terminal, screen.String())
	return err
}

// writeChanged writes the rows that were not there, or not so, the last time.
func writeChanged[M proto.Message](w io.Writer, messages []M, before map[string]bool) (now map[string]bool, err error) {
	now = make(map[string]bool, len(messages))
	for _, m := range messages {
		j, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
		if err != nil {
			return nil, err
		}
		key, err := proto.MarshalOptions{Deterministic: true}.Marshal(m) // the JSON has spaces at random
		if err != nil {
			return nil, err
		}
		if now[string(key)] = true; before[string(key)] {
			continue
		}
		var line bytes.Buffer
		if err := errors.Join(json.Compact(&line, j), line.WriteByte('\n')); err != nil {
			return nil, err
		}
		if _, err := w.Write(line.Bytes()); err != nil {
			return nil, err
		}
	}
	return now, nil
}
