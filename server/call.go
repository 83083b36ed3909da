package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"github.com/procpool/procpool/server/internal/sched"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// call is a Map, ApplyAsync or Apply on its way. Three parties share it: the pool's owner delivers outcomes, the RPC's handler
// sends them, and a receiver takes items in. What they share is under mu.
type call struct {
	id      string // 32 hex digits
	key     sched.CallID
	spec    sched.CallSpec
	label   string
	peer    peerInfo
	started time.Time
	json    bool // items came as JSON, and results go back as such

	// Owned by the pool's owner.
	cancelledBy string // who has cancelled it, or tasks of it
	cancelled   bool   // all of it
	items       uint64 // that have come
	inputEnded  bool   // there will be no more
	outcomes    uint64 // that its tasks have had
	failures    uint64 // of these: the ones without a result
	tally       *FunctionTally

	mu      sync.Mutex
	next    wire.CallResponse // outcomes that wait for the handler
	tasks   int               // in next
	bytes   int               // of results in next
	credits []outputCredit    // for task output in next
	lent    []outputCredit    // for task output that the handler is sending
	gone    bool              // the handler has ended
	waiting bool              // next has something
	done    bool              // nothing more will come
	refused *refusal          // why there was nothing
	awake   chan struct{}     // one slot: waiting or done

	// The window: what has been accepted and not yet been written back to the client. The receiver reads no more while it is full.
	heldItems int
	heldBytes int
	user      *usage   // what it counts against, beside its window
	callers   *callers // those of its pool, under the budget's mu
	charged   struct {
		items, bytes int
		closed       bool
	}
	room chan struct{} // one slot: the window has room again

	added uint64     // items so far; owned by the receiver
	named []*segment // segments with ids that have tasks without outcome, oldest first
}

// outputCredit is task output whose worker may send as much again once the client has it.
type outputCredit struct {
	worker *worker
	n      int
}

func newCall(id string, spec sched.CallSpec, label string, peer peerInfo) *call {
	return &call{
		id: id, spec: spec, label: label, peer: peer, started: time.Now(),
		awake: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
}

// newCallID makes an id for a call whose client has not chosen one.
func newCallID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// The following are called by the pool's owner.

// accepted says that the call has begun.
func (c *call) accepted(encoding string) {
	c.tell(func(a *pb.CallAccepted) { a.Encoding = encoding })
}

// heard says that all items have come.
func (c *call) heard() {
	c.tell(func(a *pb.CallAccepted) { a.InputEnded = true })
}

// tell adds news of the call itself.
func (c *call) tell(news func(*pb.CallAccepted)) {
	c.mu.Lock()
	if c.next.Accepted == nil {
		c.next.Accepted = &pb.CallAccepted{CallId: c.id}
	}
	news(c.next.Accepted)
	c.waiting = true
	c.mu.Unlock()
	c.flush()
}

// deliver adds outcomes.
func (c *call) deliver(p *pool, d *sched.Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = true
	c.tasks += d.N
	c.bytes += d.Bytes
	gone := 0
	for i := range d.Parts {
		part := &d.Parts[i]
		gone += part.Bytes
		seg := part.Ref.(*segment)
		seg.left -= part.N
		if seg.left == 0 {
			seg.batch.Free() // none of its tasks will be sent to a worker again
		}
	}
	c.heldBytes -= gone
	c.charge(0, d.Bytes-gone)
	for len(c.named) > 0 && c.named[0].left == 0 {
		c.named = c.named[1:]
	}
	if d.Outcome == sched.Value {
		c.deliverReport(p, d)
		return
	}
	f := pb.Failure{Outcome: pb.Outcome(d.Outcome), Attempts: uint32(d.Attempts)}
	if d.Worker != 0 {
		f.Worker = p.workerName(d.Worker)
	}
	f.WorkerExit = p.server.exitFor(c.peer, endingOf(d.Why))
	f.Message = explain(d, f.WorkerExit)
	for i := range d.Parts {
		part := &d.Parts[i]
		seg := part.Ref.(*segment)
		for k := range part.N {
			c.next.Failures = append(c.next.Failures, &pb.Failure{
				Index: seg.index(part.Seq+uint64(k), part.From+k), Outcome: f.Outcome, Attempts: f.Attempts, Message: f.Message,
				Worker: f.Worker, WorkerExit: f.WorkerExit,
			})
		}
	}
}

// deliverReport adds what a worker reported: a run of tasks, most of them with values.
func (c *call) deliverReport(p *pool, d *sched.Delivery) {
	r := d.Report.Ref.(*wire.ChunkResults)
	values := valueCursor{batch: &r.Values, failures: r.Failures, place: int(r.First)}
	values.skip(d.First - int(r.First))
	for i := range d.Parts {
		part := &d.Parts[i]
		seg := part.Ref.(*segment)
		for left, done := part.N, 0; left > 0; {
			n, failure := values.run(left)
			seq, place := part.Seq+uint64(done), part.From+done
			if failure != nil {
				c.next.Failures = append(c.next.Failures, taskFailure(seg.index(seq, place), failure, d, p.workerName(d.Worker)))
				n = 1
			} else {
				c.addValues(seg, seq, place, uint32(d.Attempts), values.take(n))
			}
			left -= n
			done += n
		}
	}
}

// addValues adds the results of tasks that follow each other.
func (c *call) addValues(seg *segment, seq uint64, place int, attempts uint32, values wire.Batch) {
	n := values.Len()
	if attempts == 1 {
		attempts = 0 // as the protocol has it
	}
	if list := c.next.Results; len(list) > 0 && values.Total() < maxMerge {
		// Small ones go together, so that a message of a thousand small results has one frame and not a thousand.
		last := &list[len(list)-1]
		follows := seg.ids == nil && last.Indexes == nil && last.First+uint64(last.Values.Len()) == seq
		if (follows || (seg.ids != nil && last.Indexes != nil)) && last.Attempts == attempts && last.Values.Total() < maxMerge {
			if cap(last.Values.Data) == len(last.Values.Data) && last.Values.Total() > 0 {
				last.Values = grown(&last.Values) // it is still a view of a worker's message
			}
			last.Values.AppendRange(&values, 0, n, 0)
			values.Free()
			if seg.ids != nil {
				last.Indexes = append(last.Indexes, seg.ids[place:place+n]...)
			}
			return
		}
	}
	r := wire.Results{First: seq, Attempts: attempts, Values: values}
	if seg.ids != nil {
		r.First = 0
		r.Indexes = seg.ids[place : place+n : place+n]
	}
	c.next.Results = append(c.next.Results, r)
}

// maxMerge is up to which size results are copied together.
const maxMerge = 16 << 10

// grown is a copy of b, which it gives back, with room for more.
func grown(b *wire.Batch) wire.Batch {
	g := wire.Batch{Data: make([]byte, 0, max(4096, 2*b.Total()))}
	g.AppendRange(b, 0, b.Len(), 0)
	b.Free()
	return g
}

// valueCursor walks over the results of a chunk, in which values and failures take turns.
type valueCursor struct {
	batch    *wire.Batch
	failures []*pb.TaskFailure
	place    int // of the next task in its chunk
	i        int // next value
	off      int // where it begins
}

// run is how many of the next n tasks have values; or the failure of the next task.
func (v *valueCursor) run(n int) (int, *pb.TaskFailure) {
	if len(v.failures) > 0 {
		next := int(v.failures[0].Offset) - v.place
		if next <= 0 {
			f := v.failures[0]
			v.failures = v.failures[1:]
			v.place++
			return 1, f
		}
		n = min(n, next)
	}
	return n, nil
}

// take is the next n values.
func (v *valueCursor) take(n int) wire.Batch {
	size := v.batch.Bytes(v.i, n)
	b := v.batch.Slice(v.i, n, v.off, size)
	v.i += n
	v.off += size
	v.place += n
	return b
}

// skip passes over n tasks.
func (v *valueCursor) skip(n int) {
	for n > 0 {
		k, failure := v.run(n)
		if failure == nil {
			passed := v.take(k)
			passed.Free()
		}
		n -= k
	}
}

// taskFailure is a failure that a worker reported, for the client.
func taskFailure(index uint64, f *pb.TaskFailure, d *sched.Delivery, worker string) *pb.Failure {
	out := &pb.Failure{Index: index, Outcome: f.Outcome, Attempts: uint32(d.Attempts), TaskError: f.Error, Worker: worker}
	switch {
	case f.Error != nil:
		out.Message = f.Error.Message
	case f.Outcome == pb.Outcome_OUTCOME_TIMEOUT:
		out.Message = "the task ran into its timeout"
	case f.Outcome == pb.Outcome_OUTCOME_CANCELLED:
		out.Message = "the task was cancelled"
	}
	return out
}

// explain says in one line why tasks have no result, when it was not their function that said so.
func explain(d *sched.Delivery, exit *pb.WorkerExit) string {
	switch {
	case d.Reason == sched.BootFailure:
		return "the workers do not start: " + describeExit(exit)
	case exit != nil:
		return describeExit(exit)
	}
	switch d.Reason {
	case sched.QueueTimedOut:
		return "no worker was free within the queue timeout"
	case sched.TaskTimedOut:
		return "the task ran into its timeout"
	case sched.DeadlinePassed:
		return "the deadline of the call has passed"
	case sched.PoolTerminated:
		return "the pool was terminated"
	case sched.PoolClosed:
		return "the pool has been closed"
	case sched.Stopping:
		return "the daemon is stopping"
	case sched.TooLarge:
		return fmt.Sprintf("the item is over the limit of %d bytes", wire.MaxItem)
	default:
		return "the task was cancelled"
	}
}

// output adds output of a running task.
func (c *call) output(o *pb.TaskOutput, w *worker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done || c.gone {
		w.out.credit(len(o.Data))
		w.out.flush()
		return
	}
	c.next.Outputs = append(c.next.Outputs, o)
	c.credits = append(c.credits, outputCredit{w, len(o.Data)})
	c.waiting = true
}

// end says that nothing more will come, because of err, or because all tasks have their outcomes.
func (c *call) end(err *refusal) {
	c.mu.Lock()
	c.done, c.refused = true, err
	c.mu.Unlock()
	c.flush()
	c.signalRoom()
}

// flush wakes the handler.
func (c *call) flush() {
	select {
	case c.awake <- struct{}{}:
	default:
	}
}

func (c *call) signalRoom() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// The following are called by the RPC's handler and its receiver.

// portion is what the handler sends at a time: in one message, if that is not too large.
type portion struct {
	response wire.CallResponse
	tasks    int
	bytes    int
}

// take is what has come together since the last message. done: there is no more after it.
func (c *call) take() (m *portion, done bool, err *refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting {
		m = &portion{response: c.next, tasks: c.tasks, bytes: c.bytes}
		c.lent, c.credits = c.credits, nil
		c.next, c.tasks, c.bytes, c.waiting = wire.CallResponse{}, 0, 0, false
	}
	return m, c.done, c.refused
}

// written is the news that the client has been sent a portion.
func (c *call) written(p *pool, m *portion) {
	c.mu.Lock()
	c.heldItems -= m.tasks
	c.charge(-m.tasks, -m.bytes)
	credits := c.lent
	c.lent = nil
	c.mu.Unlock()
	c.signalRoom()
	if m.tasks == 0 && len(credits) == 0 {
		return
	}
	p.post(func(now time.Time) {
		p.core.Written(now, c.key, m.tasks, m.bytes)
		credit(credits)
	})
}

// creditOutput lets workers write again what the client will not be sent any more: its handler has ended. Tasks of other calls need the room.
func (c *call) creditOutput(p *pool) {
	c.mu.Lock()
	credits := append(c.lent, c.credits...)
	c.lent, c.credits, c.gone = nil, nil, true
	c.mu.Unlock()
	if len(credits) > 0 {
		p.post(func(time.Time) { credit(credits) })
	}
}

// credit is called by the owner.
func credit(list []outputCredit) {
	for _, o := range list {
		o.worker.out.credit(o.n)
		o.worker.out.flush()
	}
}

// hold waits until the window has room, and the budget. A call that has nothing in the daemon does not wait.
func (c *call) hold(ctx context.Context, s *Server) error {
	for waits := false; ; {
		c.mu.Lock()
		room := c.heldItems < s.cfg.WindowItems && c.heldBytes < s.cfg.WindowBytes && !s.budget.full(c) || c.heldItems == 0 || c.done
		c.mu.Unlock()
		if room {
			return nil
		}
		if !waits {
			waits = true
			s.budget.wait(c)
			defer s.budget.unwait(c)
			continue // it may have changed meanwhile
		}
		select {
		case <-c.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// receive takes items in until the client has no more. It ends with the stream, or when it has found the stream wrong.
func (c *call) receive(ctx context.Context, s *Server, p *pool, stream grpc.ServerStream, first *wire.CallRequest) {
	defer func() {
		if r := recover(); r != nil { // what the client has sent costs it its call, and nobody else anything
			c.refuse(p, refuse(pb.Reason_REASON_UNSPECIFIED, "%s", status.Convert(s.panicked("receiver of call "+c.id, r)).Message()))
		}
	}()
	m := first
	for {
		if err := c.add(p, m); err != nil {
			c.refuse(p, err)
			return
		}
		if c.hold(ctx, s) != nil {
			return // the handler sees the same
		}
		m = &wire.CallRequest{}
		err := stream.RecvMsg(m)
		if errors.Is(err, io.EOF) {
			c.endInput(p, c.spec.Single)
			return
		}
		if err != nil {
			if ctx.Err() == nil {
				c.refuse(p, badRequest("%s", status.Convert(err).Message()))
			}
			return
		}
		if m.Settings != nil {
			c.refuse(p, badRequest("settings are allowed in the first message of a call only"))
			return
		}
	}
}

// endInput is the news that the client has sent all its items. One that may want to know hears that: from then on a close of the pool leaves them alone.
func (c *call) endInput(p *pool, tell bool) {
	p.post(func(now time.Time) {
		c.inputEnded = true
		p.core.EndInput(now, c.key)
		if tell {
			c.heard()
		}
	})
}

// refuse ends the call because its client made a mistake.
func (c *call) refuse(p *pool, err *refusal) {
	p.post(func(now time.Time) {
		p.core.Cancel(now, c.key, sched.CallCancelled)
		p.endCall(c.key, err)
	})
}

// add gives the items of a message to the pool.
func (c *call) add(p *pool, m *wire.CallRequest) *refusal {
	if m.Bad != nil {
		return badRequest("items: %v", m.Bad)
	}
	if m.JSON != nil {
		if !c.json {
			return badRequest("a call has either items or json, not both")
		}
		if err := itemsFromJSON(m); err != nil {
			return err
		}
	}
	n := m.Items.Len()
	if m.IDs != nil && len(m.IDs) != n {
		return badRequest("%d ids for %d items", len(m.IDs), n)
	}
	if n == 0 {
		return nil
	}
	seg := &segment{batch: m.Items, ids: m.IDs, first: c.added, left: n}
	bytes := m.Items.Total()
	c.added += uint64(n)
	c.mu.Lock()
	c.heldItems += n
	c.heldBytes += bytes
	c.charge(n, bytes)
	if seg.ids != nil {
		c.named = append(c.named, seg)
	}
	c.mu.Unlock()
	items := sched.Items{N: n, Small: m.Items.Small, Sizes: m.Items.Sizes, ItemSize: m.Items.ItemSize, Ref: seg}
	p.post(func(now time.Time) {
		c.items += uint64(n)
		p.tally.ItemBytes += uint64(bytes)
		p.core.Add(now, c.key, items)
	})
	return nil
}

// seqs are the numbers of the tasks that the caller calls so. Tasks that have had their outcome are left out.
func (c *call) seqs(indexes []uint64) []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.named) == 0 {
		return indexes
	}
	wanted := make(map[uint64]bool, len(indexes))
	for _, i := range indexes {
		wanted[i] = true
	}
	var seqs []uint64
	for _, seg := range c.named {
		for place, id := range seg.ids {
			if wanted[id] {
				seqs = append(seqs, seg.first+uint64(place))
			}
		}
	}
	return seqs
}

// index is what the caller calls task seq.
func (c *call) index(seq uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, seg := range c.named {
		if seq >= seg.first && seq < seg.first+uint64(len(seg.ids)) {
			return seg.ids[seq-seg.first]
		}
	}
	return seq
}
