package mapping

import (
	"context"
	"fmt"
	"os"

	"github.com/procpool/procpool/cmd/procpool/internal/records"
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

// openBlocks cuts an input into jobs that read a block each. Like [readItems] it ends with ctx even while a read blocks.
func openBlocks(ctx context.Context, name string, c records.Cutter) (*items, error) {
	in := &items{total: -1, close: func() {}}
	c.In = os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read items: %w", err)
		}
		c.In, in.close = f, func() { f.Close() }
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
func cutBlocks(c *records.Cutter, yield func(*job) bool) error {
	for seq := 1; ; seq++ {
		file, err := newShared("a block of the input")
		if err != nil {
			return err
		}
		b := &block{shared: file}
		more, err := c.Next(b)
		if err != nil || !more {
			b.close()
			return err
		}
		if !yield(&job{Seq: seq, Block: b}) {
			return nil
		}
	}
}
