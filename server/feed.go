package server

import (
	"sync"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// What a feed keeps for its reader: lines, bytes of lines, and exits. Then the oldest goes.
const (
	feedSize  = 4096
	feedBytes = 4 << 20
)

// What a pool keeps for those who ask later.
const (
	recentSize  = 1000
	recentBytes = 1 << 20
)

// news is what the workers of a pool write and how they end, on its way to all who read it, each in a feed of its own. Whoever writes never waits.
type news struct {
	mu      sync.Mutex
	recent  *feed          // the last of it
	readers map[*feed]bool // true: the end of the pool is the end of the feed
	ended   bool
}

func newNews() *news {
	return &news{recent: newFeed(recentSize, recentBytes), readers: make(map[*feed]bool)}
}

// subscribe lets f have all that comes from now on, and before that the last tail lines, and the exits since the first of them. If ends, f ends with
// the pool.
func (n *news) subscribe(f *feed, tail int, ends bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.recent.copyTo(f, tail)
	if !n.ended {
		n.readers[f] = ends
	} else if ends {
		f.end()
	}
}

func (n *news) unsubscribe(f *feed) {
	n.mu.Lock()
	delete(n.readers, f)
	n.mu.Unlock()
}

func (n *news) tell(tell func(*feed)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	tell(n.recent)
	for f := range n.readers {
		tell(f)
	}
}

// output is a line that a worker wrote. It is shared by all readers and not changed any more.
// owner is whose it is, or nobody.
func (n *news) output(o *pb.WorkerOutput, owner int64) { n.tell(func(f *feed) { f.output(o, owner) }) }

// exit is the end of a worker.
func (n *news) exit(e *ending) { n.tell(func(f *feed) { f.exit(e) }) }

func (n *news) state(s pb.PoolState) { n.tell(func(f *feed) { f.state(s) }) }

// end is the last news.
func (n *news) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended = true
	for f, ends := range n.readers {
		if ends {
			f.end()
		}
	}
	clear(n.readers)
}

// feed is news on its way to one reader.
type feed struct {
	maxLines int
	maxBytes int
	sees     func(owner int64) bool // whose news its reader may have; nil: everybody's

	mu      sync.Mutex
	next    uint64 // number of the next line or exit
	outputs []numbered[*pb.WorkerOutput]
	bytes   int // of the lines in outputs
	exits   []numbered[*ending]
	last    pb.PoolState // newest, not yet read
	dropped uint64
	ended   bool
	awake   chan struct{} // one slot
}

// numbered is a line or an exit, with its place among both.
type numbered[T any] struct {
	seq   uint64
	what  T
	owner int64 // of a line
}

func newFeed(lines, bytes int) *feed {
	return &feed{maxLines: lines, maxBytes: bytes, awake: make(chan struct{}, 1)}
}

func (f *feed) wake() {
	select {
	case f.awake <- struct{}{}:
	default:
	}
}

// output adds a line, if the reader may have it.
func (f *feed) output(o *pb.WorkerOutput, owner int64) {
	if f.sees != nil && !f.sees(owner) {
		return
	}
	f.mu.Lock()
	for len(f.outputs) == f.maxLines || (f.bytes+len(o.Line) > f.maxBytes && len(f.outputs) > 0) {
		f.bytes -= len(f.outputs[0].what.Line)
		f.outputs = f.outputs[1:]
		f.dropped++
	}
	f.outputs = append(f.outputs, numbered[*pb.WorkerOutput]{f.next, o, owner})
	f.next++
	f.bytes += len(o.Line)
	f.mu.Unlock()
	f.wake()
}

// exit adds the end of a worker. Lines cannot push it out.
func (f *feed) exit(e *ending) {
	f.mu.Lock()
	if len(f.exits) == f.maxLines {
		f.exits = f.exits[1:]
		f.dropped++
	}
	f.exits = append(f.exits, numbered[*ending]{seq: f.next, what: e})
	f.next++
	f.mu.Unlock()
	f.wake()
}

func (f *feed) state(s pb.PoolState) {
	f.mu.Lock()
	f.last = s
	f.mu.Unlock()
	f.wake()
}

// end is the last news.
func (f *feed) end() {
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	f.wake()
}

// copyTo adds the last n lines to another feed, and the exits since the first of them; all exits if there are no more lines than that.
func (f *feed) copyTo(to *feed, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n == 0 {
		return
	}
	outputs, exits := f.outputs, f.exits
	if n < len(outputs) {
		outputs = outputs[len(outputs)-n:]
		for len(exits) > 0 && exits[0].seq < outputs[0].seq {
			exits = exits[1:]
		}
	}
	for len(outputs)+len(exits) > 0 {
		if len(exits) == 0 || (len(outputs) > 0 && outputs[0].seq < exits[0].seq) {
			to.output(outputs[0].what, outputs[0].owner)
			outputs = outputs[1:]
		} else {
			to.exit(exits[0].what)
			exits = exits[1:]
		}
	}
}

// take empties the feed into messages; nil if there is nothing. In each, the exits came after the lines. Lines are taken in portions, so that a
// message stays small.
func (f *feed) take() *pb.OpenPoolResponse {
	const portion = 256
	f.mu.Lock()
	defer f.mu.Unlock()
	m := &pb.OpenPoolResponse{State: f.last, Dropped: f.dropped}
	f.last, f.dropped = 0, 0
	for len(f.outputs) > 0 && len(m.Outputs) < portion && (len(f.exits) == 0 || f.outputs[0].seq < f.exits[0].seq) {
		m.Outputs = append(m.Outputs, f.outputs[0].what)
		f.bytes -= len(f.outputs[0].what.Line)
		f.outputs = f.outputs[1:]
	}
	for len(f.exits) > 0 && len(m.Exits) < portion && (len(f.outputs) == 0 || f.exits[0].seq < f.outputs[0].seq) {
		m.Exits = append(m.Exits, f.exits[0].what.seenBy(f.sees))
		f.exits = f.exits[1:]
	}
	if len(f.outputs)+len(f.exits) == 0 {
		f.outputs, f.exits = nil, nil // what they held is free
		m.Ended = f.ended
	}
	if m.State == 0 && m.Dropped == 0 && len(m.Outputs) == 0 && len(m.Exits) == 0 && !m.Ended {
		return nil
	}
	return m
}
