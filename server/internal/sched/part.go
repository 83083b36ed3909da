package sched

import "slices"

// batch is what one Add has brought. Every Part of it points here.
type batch struct {
	small    []byte   // size of each item; or
	sizes    []uint32 // size of each item; or, if both are nil, itemSize
	itemSize int
	added    moment
}

// take cuts the first n tasks off p.
func (p *Part) take(n int) Part {
	if n == p.N {
		first := *p
		p.N, p.Bytes = 0, 0
		return first
	}
	return p.cut(n, p.batch.size(p.From, n))
}

// takeWithin cuts tasks off p, at most n of them and at most limit bytes, but at least one if must.
func (p *Part) takeWithin(n, limit int, must bool) Part {
	n = min(n, p.N)
	if n == p.N && p.Bytes <= limit {
		return p.take(n)
	}
	if !p.batch.varied() {
		size := p.batch.itemSize
		if size > 0 {
			n = min(n, max(limit, 0)/size)
		}
		if n == 0 && must {
			n = 1
		}
		return p.cut(n, n*size)
	}
	count, bytes := 0, 0
	for count < n {
		s := p.batch.size(p.From+count, 1)
		if bytes+s > limit && (count > 0 || !must) {
			break
		}
		count++
		bytes += s
	}
	return p.cut(count, bytes)
}

// cut cuts off the first n tasks, whose items have bytes together.
func (p *Part) cut(n, bytes int) Part {
	first := *p
	first.N, first.Bytes = n, bytes
	p.Seq += uint64(n)
	p.From += n
	p.N -= n
	p.Off += bytes
	p.Bytes -= bytes
	return first
}

func (b *batch) varied() bool { return b.small != nil || b.sizes != nil }

// size is the size of n items from place from on.
func (b *batch) size(from, n int) (bytes int) {
	switch {
	case b.small != nil:
		for _, s := range b.small[from : from+n] {
			bytes += int(s)
		}
	case b.sizes != nil:
		for _, s := range b.sizes[from : from+n] {
			bytes += int(s)
		}
	default:
		bytes = n * b.itemSize
	}
	return bytes
}

// largest is the size of the largest of n items.
func (b *batch) largest(n int) int {
	switch {
	case b.small != nil:
		return int(slices.Max(b.small[:n]))
	case b.sizes != nil:
		return int(slices.Max(b.sizes[:n]))
	default:
		return b.itemSize
	}
}

// sift hands the tasks of p, in runs, to hit or to miss, depending on whether their numbers are in seqs, which ascends.
func sift(p Part, seqs []uint64, hit, miss func(Part)) {
	i, _ := slices.BinarySearch(seqs, p.Seq)
	for p.N > 0 {
		if i == len(seqs) || seqs[i]-p.Seq >= uint64(p.N) {
			miss(p)
			return
		}
		if gap := int(seqs[i] - p.Seq); gap > 0 {
			miss(p.take(gap))
		}
		hit(p.take(1))
		i++
	}
}

// cursor walks over the tasks of a chunk. It leaves the parts as they are.
type cursor struct {
	parts []Part // from the current one on
	taken int    // tasks of the current one that have been passed…
	off   int    // …and their bytes
}

// left is what is left of the current part.
func (c *cursor) left() Part {
	p := c.parts[0]
	if c.taken > 0 {
		p.cut(c.taken, c.off)
	}
	return p
}

// next is the number of the next task.
func (c *cursor) next() uint64 { return c.parts[0].Seq + uint64(c.taken) }

// take appends the next n tasks to dst and says how many bytes they have.
func (c *cursor) take(dst []Part, n int) ([]Part, int) {
	bytes := 0
	for n > 0 {
		p := c.left()
		if n < p.N {
			p = p.take(n)
			c.taken += n
			c.off += p.Bytes
		} else {
			c.parts, c.taken, c.off = c.parts[1:], 0, 0
		}
		dst = append(dst, p)
		n -= p.N
		bytes += p.Bytes
	}
	return dst, bytes
}

// skip passes over the next n tasks.
func (c *cursor) skip(n int) {
	for n > 0 {
		if left := c.parts[0].N - c.taken; n >= left {
			c.parts, c.taken, c.off = c.parts[1:], 0, 0
			n -= left
			continue
		}
		p := &c.parts[0]
		c.off += p.batch.size(p.From+c.taken, n)
		c.taken += n
		return
	}
}

// run is tasks that wait in the queue of their call, all with the same past.
type run struct {
	Part
	past
}

// past is what has become of a task so far. An interruption is no attempt, but whoever asks must not hear that nothing has been done.
type past struct {
	attempts int  // made so far
	cut      bool // one more was interrupted by us; see cut
}

// told is the number of attempts in the outcome of a task that has no further one. 0: it has never begun, and may be sent again.
func (t past) told() int {
	if t.cut {
		return max(1, t.attempts)
	}
	return t.attempts
}

// queue is the runs of a call that wait, as a ring.
type queue struct {
	ring  []run // the length is zero or a power of two
	front int
	n     int
}

func (q *queue) at(i int) *run { return &q.ring[(q.front+i)&(len(q.ring)-1)] }

func (q *queue) pushBack(r run) {
	q.grow()
	q.n++
	*q.at(q.n - 1) = r
}

func (q *queue) pushFront(r run) {
	q.grow()
	q.n++
	q.front = (q.front - 1) & (len(q.ring) - 1)
	q.ring[q.front] = r
}

func (q *queue) popFront() run {
	r := *q.at(0)
	*q.at(0) = run{}
	q.front = (q.front + 1) & (len(q.ring) - 1)
	q.n--
	return r
}

func (q *queue) grow() {
	if q.n < len(q.ring) {
		return
	}
	ring := make([]run, max(1, 2*len(q.ring)))
	for i := range q.n {
		ring[i] = *q.at(i)
	}
	q.ring, q.front = ring, 0
}
