// Package records cuts a stream into blocks of whole records.
package records

import (
	"bytes"
	"errors"
	"io"
	"slices"
)

// Cutter cuts an input into blocks that end between two records. No byte is lost or added, whatever the input is: the blocks in a row are the input.
type Cutter struct {
	In      io.Reader
	Size    int    // of a block: it ends at the last end of a record that fits, or at the first one if none does
	Records int    // if not 0, how many make a block, instead of the size
	End     []byte // ends a record
	Start   []byte // begins one; with both, records meet where the one follows the other. With neither, they do anywhere.

	buf []byte // read, and in no block yet
	eof bool
}

// Next writes the next block to w, in one piece or several. False: there is none. What In or w say is returned as it is.
func (c *Cutter) Next(w io.Writer) (bool, error) {
	mark := append(bytes.Clone(c.End), c.Start...)
	left := max(c.Records, 1) // records to go
	begun := false            // a part of the block has been written
	long := false             // no record ends in what fits
	from := 0                 // where the next mark may begin; what is before it is in this block
	if len(c.End) == 0 {
		from = 1 // the block's own beginning
	}
	fits := c.Size + len(c.Start) // where the next record must have begun
	for {
		for c.Records == 0 && !c.eof && len(c.buf) <= fits {
			if err := c.read(); err != nil {
				return false, err
			}
		}
		at := -1
		switch {
		case len(mark) == 0:
			at = min(len(c.buf), c.Size)
		case c.Records == 0 && !long && len(c.buf) <= c.Size: // the rest of the input fits
		case c.Records == 0 && !long:
			if i := bytes.LastIndex(c.buf[:min(len(c.buf), fits)], mark); i >= from {
				at = i + len(c.End)
			}
		default:
			for left > 0 {
				i := index(c.buf, mark, from)
				if i < 0 {
					break
				}
				left--
				at = i + len(c.End)
				from = at
				if len(c.End) == 0 {
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
		if from > c.Size || c.Records == 0 {
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
func (c *Cutter) read() error {
	const least = 64 << 10
	if cap(c.buf)-len(c.buf) < least {
		c.buf = slices.Grow(c.buf, max(c.Size-len(c.buf), least))
	}
	free := c.buf[len(c.buf):cap(c.buf)]
	if room := c.Size + len(c.Start) + 1 - len(c.buf); c.Records == 0 && room > 0 && room < len(free) {
		free = free[:room]
	}
	n, err := c.In.Read(free)
	c.buf = c.buf[:len(c.buf)+n]
	if errors.Is(err, io.EOF) {
		c.eof = true
		return nil
	}
	return err
}
