package server

import (
	"sync"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
)

// maxBatch is how many bytes of items or results go into one message, unless one alone has more.
const maxBatch = 1 << 20

// outbox is what waits for a worker's stream. The pool's owner puts things in and never waits; the stream's sender takes whatever is
// there when the stream can take it. The core bounds what is in it: a worker's credits.
type outbox struct {
	mu     sync.Mutex
	next   wire.AttachResponse
	spare  []wire.Chunk // memory of the message before the last one
	ready  bool         // there is something that must not wait
	closed bool
	awake  chan struct{} // one slot: ready or closed
}

func (o *outbox) init() { o.awake = make(chan struct{}, 1) }

func (o *outbox) chunk(c wire.Chunk) {
	o.mu.Lock()
	o.next.Chunks = append(o.next.Chunks, c)
	o.ready = true
	o.mu.Unlock()
}

// head changes the head of the next message.
func (o *outbox) head(f func(*pb.AttachResponse)) {
	o.mu.Lock()
	f(o.makeHead())
	o.ready = true
	o.mu.Unlock()
}

func (o *outbox) makeHead() *pb.AttachResponse {
	if o.next.Head == nil {
		o.next.Head = &pb.AttachResponse{}
	}
	return o.next.Head
}

// ack acknowledges results. It travels with the next message, unless the worker waits for it.
func (o *outbox) ack(chunk uint64, tasks uint32, now bool) {
	o.mu.Lock()
	h := o.makeHead()
	if h.Ack == nil {
		h.Ack = &pb.Ack{}
	}
	h.Ack.Chunk, h.Ack.Tasks = chunk, tasks
	o.ready = o.ready || now
	o.mu.Unlock()
	if now {
		o.flush()
	}
}

// hurry sends an acknowledgement that waits for company.
func (o *outbox) hurry() {
	o.mu.Lock()
	o.ready = o.ready || o.next.Head.GetAck() != nil
	o.mu.Unlock()
	o.flush()
}

// credit allows n more bytes of task output.
func (o *outbox) credit(n int) {
	o.head(func(h *pb.AttachResponse) { h.OutputCredit += uint64(n) })
}

// flush wakes the sender, if there is something for it.
func (o *outbox) flush() {
	o.mu.Lock()
	wake := o.ready || o.closed
	o.mu.Unlock()
	if wake {
		select {
		case o.awake <- struct{}{}:
		default:
		}
	}
}

func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.flush()
}

// take is the next message; nil if nothing is ready.
func (o *outbox) take() (m *wire.AttachResponse, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.ready {
		return nil, o.closed
	}
	m = &wire.AttachResponse{}
	n, bytes := 0, 0
	for n < len(o.next.Chunks) && (n == 0 || bytes+o.next.Chunks[n].Items.Total() <= maxBatch) {
		bytes += o.next.Chunks[n].Items.Total()
		n++
	}
	m.Chunks = o.next.Chunks[:n:n]
	o.next.Chunks = o.next.Chunks[n:]
	if len(o.next.Chunks) == 0 { // else the head waits: it may be about chunks that are still to come
		m.Head, o.next = o.next.Head, wire.AttachResponse{Chunks: o.spare}
		o.spare = nil
		o.ready = false
	}
	return m, o.closed
}

// sent gives back the memory of a message that take has returned and gRPC has encoded.
func (o *outbox) sent(m *wire.AttachResponse) {
	clear(m.Chunks)
	if cap(m.Chunks) <= maxSpare {
		o.mu.Lock()
		o.spare = m.Chunks[:0]
		o.mu.Unlock()
	}
}

// maxSpare is how many chunks' memory is kept: more come together seldom.
const maxSpare = 8192
