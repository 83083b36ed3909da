package server

import (
	"sync"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// A feed keeps so many lines and exits, and so many bytes of lines, for its reader. Then the oldest goes.
const (
	feedSize  = 4096
	feedBytes = 4 << 20
)

// feed is news of a pool on its way to the client that opened it. Whoever writes never waits.
type feed struct {
	mu      sync.Mutex
	outputs []*pb.WorkerOutput
	bytes   int // of the lines in outputs
	exits   []*pb.WorkerExit
	last    pb.PoolState // newest, not yet read
	dropped uint64
	ended   bool
	awake   chan struct{} // one slot
}

func newFeed() *feed { return &feed{awake: make(chan struct{}, 1)} }

func (f *feed) wake() {
	select {
	case f.awake <- struct{}{}:
	default:
	}
}

// output adds a line that a worker wrote.
func (f *feed) output(o *pb.WorkerOutput) {
	f.mu.Lock()
	for len(f.outputs) == feedSize || (f.bytes+len(o.Line) > feedBytes && len(f.outputs) > 0) {
		f.bytes -= len(f.outputs[0].Line)
		f.outputs = f.outputs[1:]
		f.dropped++
	}
	f.outputs = append(f.outputs, o)
	f.bytes += len(o.Line)
	f.mu.Unlock()
	f.wake()
}

// exit adds the end of a worker.
func (f *feed) exit(e *pb.WorkerExit) {
	f.mu.Lock()
	if len(f.exits) == feedSize {
		f.exits = f.exits[1:]
		f.dropped++
	}
	f.exits = append(f.exits, e)
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

// take empties the feed into a message; nil if there is nothing. Lines are taken in portions, so that a message stays small.
func (f *feed) take() *pb.OpenPoolResponse {
	const portion = 256
	f.mu.Lock()
	defer f.mu.Unlock()
	m := &pb.OpenPoolResponse{State: f.last, Dropped: f.dropped}
	f.last, f.dropped = 0, 0
	n := min(len(f.outputs), portion)
	m.Outputs = f.outputs[:n:n]
	f.outputs = f.outputs[n:]
	for _, o := range m.Outputs {
		f.bytes -= len(o.Line)
	}
	if len(f.outputs) == 0 {
		f.outputs = nil
		m.Exits, f.exits = f.exits, nil
		m.Ended = f.ended
	}
	if m.State == 0 && m.Dropped == 0 && len(m.Outputs) == 0 && len(m.Exits) == 0 && !m.Ended {
		return nil
	}
	return m
}
