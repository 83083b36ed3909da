package lines

import "bytes"

// answers is what has been read and not been taken, cut into lines. A line that is too long is not kept: its length is.
type answers struct {
	end   byte
	limit int // of a line

	buf     []byte
	from    int // first byte that has not been taken
	seen    int // no end of a line between from and here
	dropped int // bytes of the line at from that have been thrown away
}

// room is where to read into.
func (a *answers) room() []byte {
	const least = 64 << 10
	switch {
	case a.from == len(a.buf):
		a.buf, a.from, a.seen = a.buf[:0], 0, 0
	case len(a.buf)-a.from > a.limit && a.seen == len(a.buf):
		// A line over the limit, whose end is not in sight.
		a.dropped += len(a.buf) - a.from
		a.buf, a.from, a.seen = a.buf[:0], 0, 0
	}
	if cap(a.buf)-len(a.buf) < least {
		n := copy(a.buf, a.buf[a.from:])
		a.buf = a.buf[:n]
		a.seen -= a.from
		a.from = 0
		if cap(a.buf)-n < least {
			grown := make([]byte, n, max(2*n, 2*least)+least)
			copy(grown, a.buf)
			a.buf = grown
		}
	}
	return a.buf[len(a.buf):cap(a.buf)]
}

// filled says that so many bytes have been read into room.
func (a *answers) filled(n int) { a.buf = a.buf[:len(a.buf)+n] }

// next takes the next line, without its end. It lies in memory that room uses again. size is how long it is: more than there is of it if it is too long.
func (a *answers) next() (line []byte, size int, ok bool) {
	i := bytes.IndexByte(a.buf[a.seen:], a.end)
	if i < 0 {
		a.seen = len(a.buf)
		return nil, 0, false
	}
	line = a.buf[a.from : a.seen+i]
	a.seen += i + 1
	a.from = a.seen
	size = a.dropped + len(line)
	a.dropped = 0
	return line, size, true
}

// rest is what has been read and not been taken.
func (a *answers) rest() []byte { return a.buf[a.from:] }

// partial is how much of a line has been read that has not ended.
func (a *answers) partial() int { return a.dropped + len(a.buf) - a.from }
