package mapping

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"

	"github.com/procpool/procpool/proto/wire"
)

// separator stands between a command and its items.
const separator = ":::"

// splitArgs splits the arguments of map into the command and the items after the separator. given says that there was one.
func splitArgs(args []string) (command, items []string, given bool, err error) {
	at := -1
	for i, word := range args {
		switch word {
		case separator:
			if at >= 0 {
				return nil, nil, false, fmt.Errorf("more than one %s; procpool map takes one list of items", separator)
			}
			at = i
		case separator + "+", "::::", "::::+": // GNU parallel has them
			return nil, nil, false, fmt.Errorf("%s: procpool map takes one list of items, after %s or from a file with -a FILE", word, separator)
		}
	}
	if at < 0 {
		return args, nil, false, nil
	}
	return args[:at], args[at+1:], true, nil
}

// items is an input of map.
type items struct {
	seq   iter.Seq[string]
	jobs  iter.Seq[*job] // made of them, or of blocks
	total int            // how many there are; -1 if that is not known before the end
	err   func() error   // why seq ended, when it has; nil at a proper end
	close func()
}

// each makes a job of every n items.
func (in *items) each(n int) *items {
	in.jobs = jobs(in.seq, n)
	if in.total > 0 {
		in.total = (in.total + n - 1) / n
	}
	return in
}

// readAll reads everything, for those who need to know how many there are.
func (in *items) readAll() {
	list := slices.Collect(in.seq)
	in.seq, in.total = slices.Values(list), len(list)
}

func listItems(list []string) *items {
	return &items{seq: slices.Values(list), total: len(list), err: func() error { return nil }, close: func() {}}
}

// openItems reads items from a file; "-" is stdin.
func openItems(ctx context.Context, name string, delim byte, skipEmpty bool) (*items, error) {
	if name == "-" {
		return readItems(ctx, os.Stdin, "stdin", delim, skipEmpty), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read items: %w", err)
	}
	it := readItems(ctx, f, name, delim, skipEmpty)
	it.close = func() { f.Close() }
	return it, nil
}

// readItems reads items that end with delim. With skipEmpty those that are empty do not count. The sequence can be used once. It ends with ctx
// even while a read blocks, and so cannot hold up an interrupt: the reading goroutine then ends with the program.
func readItems(ctx context.Context, r io.Reader, name string, delim byte, skipEmpty bool) *items {
	var failed error // written before the sequence ends, read after
	read := make(chan string)
	end := make(chan error, 1)
	start := func() {
		end <- scan(r, delim, skipEmpty, func(item string) bool {
			select {
			case read <- item:
				return true
			case <-ctx.Done():
				return false
			}
		})
	}
	seq := func(yield func(string) bool) {
		go start()
		for {
			select {
			case item := <-read:
				if !yield(item) {
					return
				}
			case err := <-end:
				if err != nil {
					failed = fmt.Errorf("read items from %s: %w", name, err)
				}
				return
			case <-ctx.Done():
				return
			}
		}
	}
	return &items{seq: seq, total: -1, err: func() error { return failed }, close: func() {}}
}

var errLongItem = errors.New("item is too large")

// scan calls yield for every item in r, until yield has enough.
func scan(r io.Reader, delim byte, skipEmpty bool, yield func(string) bool) error {
	in := bufio.NewReaderSize(r, 64<<10)
	var item []byte
	for {
		piece, err := in.ReadSlice(delim)
		item = append(item, piece...)
		atEnd := errors.Is(err, io.EOF)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && len(item) <= wire.MaxItem:
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("%w: over %d bytes without an end", errLongItem, wire.MaxItem)
		case err != nil && !atEnd:
			return err
		case !atEnd:
			item = item[:len(item)-1]
		}
		if skip := len(item) == 0 && (atEnd || skipEmpty); !skip && !yield(string(item)) {
			return nil
		}
		if atEnd {
			return nil
		}
		item = item[:0]
	}
}
