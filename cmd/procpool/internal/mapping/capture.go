package mapping

import (
	"io"
	"slices"
	"sync"

	"github.com/procpool/procpool/cmd/procpool/internal/text"
)

// captureSize is how much output of a stream travels with the result.
const captureSize = 64 << 10

var captureBuffers = sync.Pool{New: func() any { return new([captureSize]byte) }}

// capture takes one stream of a command's output. What fits stays here for the result; when it is full, and after every read if it
// is live, it is passed on as task output, which waits while the reader at the other end is slow.
type capture struct {
	out  io.Writer
	live bool
	buf  *[captureSize]byte
	n    int
}

func newCapture(out io.Writer, live bool) *capture {
	return &capture{out: out, live: live, buf: captureBuffers.Get().(*[captureSize]byte)}
}

// room is where the next output belongs. It is never empty. An error says that the task has been cancelled.
func (c *capture) room() ([]byte, error) {
	if c.n == captureSize || (c.live && c.n > 0) {
		if _, err := c.out.Write(c.buf[:c.n]); err != nil {
			return nil, err
		}
		c.n = 0
	}
	return c.buf[c.n:], nil
}

// filled says that n bytes of room are output now.
func (c *capture) filled(n int) error {
	c.n += n
	if !c.live {
		return nil
	}
	_, err := c.room()
	return err
}

// rest is what has not been passed on.
func (c *capture) rest() text.Bytes { return slices.Clone(c.buf[:c.n]) }

func (c *capture) release() { captureBuffers.Put(c.buf) }
