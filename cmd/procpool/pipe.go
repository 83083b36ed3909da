package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// block is a piece of the input, for one command to read.
type block struct {
	shared
	size int64
}

// Write adds to the block.
func (b *block) Write(p []byte) (int, error) {
	n, err := b.file.Write(p)
	b.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("spool a block of the input: %w", err)
	}
	return n, nil
}

// cutter cuts an input into blocks that end between two records. No byte is lost or added, whatever the input is: the blocks in a row are the input.
type cutter struct {
	in      io.Reader
	size    int    // of a block: it ends at the last end of a record that fits, or at the first one if none does
	records int    // if not 0, how many make a block, instead of the size
	end     []byte // ends a record
	start   []byte // begins one; with both, records meet where the one follows the other. With neither, they do anywhere.

	buf []byte // read, and in no block yet
	eof bool
}

// next writes the next block to w. False: there is none.
func (c *cutter) next(w io.Writer) (bool, error) {
	mark := append(bytes.Clone(c.end), c.start...)
	left := max(c.records, 1) // records to go
	begun := false            // a part of the block has been written
	long := false             // no record ends in what fits
	from := 0                 // where the next mark may begin; what is before it is in this block
	if len(c.end) == 0 {
		from = 1 // the block's own beginning
	}
	fits := c.size + len(c.start) // where the next record must have begun
	for {
		for c.records == 0 && !c.eof && len(c.buf) <= fits {
			if err := c.read(); err != nil {
				return false, err
			}
		}
		at := -1
		switch {
		case len(mark) == 0:
			at = min(len(c.buf), c.size)
		case c.records == 0 && !long && len(c.buf) <= c.size: // the rest of the input fits
		case c.records == 0 && !long:
			if i := bytes.LastIndex(c.buf[:min(len(c.buf), fits)], mark); i >= from {
				at = i + len(c.end)
			}
		default:
			for left > 0 {
				i := index(c.buf, mark, from)
				if i < 0 {
					break
				}
				left--
				at = i + len(c.end)
				from = at
				if len(c.end) == 0 {
					from++
				}
			}
			if left > 0 {
				at = -1
			}
		}
		if at < 0 && c.eof {
			at = len(c.buf)
		}
		if at >= 0 {
			_, err := w.Write(c.buf[:at])
			c.buf = c.buf[:copy(c.buf, c.buf[at:])]
			return begun || at > 0, err
		}
		from = max(from, len(c.buf)-len(mark)+1)
		long = true
		if from > c.size || c.records == 0 {
			n := min(from, len(c.buf))
			if _, err := w.Write(c.buf[:n]); err != nil {
				return false, err
			}
			c.buf = c.buf[:copy(c.buf, c.buf[n:])]
			from -= n
			begun = begun || n > 0
		}
		if err := c.read(); err != nil {
			return false, err
		}
	}
}

// index is where mark begins in b, not before from; -1 for nowhere.
func index(b, mark []byte, from int) int {
	if from > len(b) {
		return -1
	}
	i := bytes.Index(b[from:], mark)
	if i < 0 {
		return -1
	}
	return from + i
}

// read reads once.
func (c *cutter) read() error {
	const least = 64 << 10
	if cap(c.buf)-len(c.buf) < least {
		c.buf = slices.Grow(c.buf, max(c.size-len(c.buf), least))
	}
	free := c.buf[len(c.buf):cap(c.buf)]
	if room := c.size + len(c.start) + 1 - len(c.buf); c.records == 0 && room > 0 && room < len(free) {
		free = free[:room]
	}
	n, err := c.in.Read(free)
	c.buf = c.buf[:len(c.buf)+n]
	if errors.Is(err, io.EOF) {
		c.eof = true
		return nil
	}
	return err
}

// openBlocks cuts an input into jobs that read a block each. Like [readItems] it ends with ctx even while a read blocks.
func openBlocks(ctx context.Context, name string, c cutter) (*items, error) {
	in := &items{total: -1, close: func() {}}
	c.in = os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read items: %w", err)
		}
		c.in, in.close = f, func() { f.Close() }
	}
	var failed error // written before the sequence ends, read after
	in.err = func() error { return failed }
	in.jobs = func(yield func(*job) bool) {
		cut := make(chan *job)
		end := make(chan error, 1)
		go func() {
			end <- cutBlocks(&c, func(j *job) bool {
				select {
				case cut <- j:
					return true
				case <-ctx.Done():
					j.release()
					return false
				}
			})
		}()
		for {
			select {
			case j := <-cut:
				if !yield(j) {
					return
				}
			case failed = <-end:
				return
			case <-ctx.Done():
				return
			}
		}
	}
	return in, nil
}

// cutBlocks calls yield for each block, until it has enough.
func cutBlocks(c *cutter, yield func(*job) bool) error {
	for seq := 1; ; seq++ {
		file, err := newShared("a block of the input")
		if err != nil {
			return err
		}
		b := &block{shared: file}
		more, err := c.next(b)
		if err != nil || !more {
			b.close()
			return err
		}
		if !yield(&job{Seq: seq, Block: b}) {
			return nil
		}
	}
}
