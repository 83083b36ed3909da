package workerproc

import (
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
)

// outgoing is what waits for the sender: a head, and outcomes in the progress record.
type outgoing struct {
	head     *pb.AttachRequest
	read     progressReader
	recorded uint64              // outcomes in the record up to the runner's last claim…
	written  uint64              // …and where it stood
	taken    uint64              // outcomes sent
	failures []*pb.TaskFailure   // those of the outcomes that are failures, so that they need not be decoded
	runs     []run               // run times, by chunk
	alone    *wire.ChunkResults  // an outcome for which there is no room in the record, after all others
	spare    []wire.ChunkResults // of the last message, which the sender has cleared
	ready    bool                // there is something that must not wait
	ended    bool                // nothing more will come
	awake    chan struct{}       // one slot
	timer    *time.Timer         // for outcomes that may wait a little
	due      time.Time           // when it fires; zero: it does not
}

// run is how long tasks of a chunk have run.
type run struct {
	chunk uint64
	ran   time.Duration
}

// ackMark is where the progress record stood when results were sent.
type ackMark struct {
	chunk uint64
	tasks uint32
	pos   uint64
}

// linger is how long a result may wait for others, if its call says nothing else.
const linger = 300 * time.Microsecond

// enough is the size of results in the progress record, in bytes, that need not wait for more.
const enough = 128 << 10

// largeResult is the size, in bytes, from which a result is sent from where it is, and not copied.
const largeResult = 32 << 10

// privateSize is the size of a progress record that is not shared with the daemon: such a worker has one task at a time.
const privateSize = 64 << 10

// say changes the head of the next message. mu is held.
func (s *session) say(f func(*pb.AttachRequest)) {
	if s.out.head == nil {
		s.out.head = &pb.AttachRequest{}
	}
	f(s.out.head)
	s.flush()
}

// flush has the sender send. mu is held.
func (s *session) flush() {
	s.out.ready = true
	s.wakeSender()
}

// lingers sees to it that what there is is sent after a while, as long as the chunk allows. mu is held.
func (o *outgoing) lingers(c *chunk, now time.Time) {
	d := linger
	if c.LingerNS > 0 {
		d = time.Duration(c.LingerNS)
	}
	if due := now.Add(d); o.due.IsZero() || due.Before(o.due) {
		o.due = due
		o.timer.Reset(d)
	}
}

// lingered is the end of the while. A claim that has gone on for so long had better end.
func (s *session) lingered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.due = time.Time{}
	if s.current != nil {
		s.hold()
	}
	s.flush()
}

// ran takes note of how long tasks have run. mu is held.
func (o *outgoing) ran(chunk uint64, d time.Duration) {
	if n := len(o.runs); n > 0 && o.runs[n-1].chunk == chunk {
		o.runs[n-1].ran += d
		return
	}
	o.runs = append(o.runs, run{chunk, d})
}

func (s *session) wakeSender() {
	select {
	case s.out.awake <- struct{}{}:
	default:
	}
}

// send sends whatever is ready, until there is nothing more to come.
func (s *session) send() {
	defer s.out.timer.Stop()
	for {
		m, ended := s.takeOut()
		if m == nil && ended {
			_ = s.stream.CloseSend() // its errors are the receiver's
			return
		}
		if m == nil {
			<-s.out.awake
			continue
		}
		if err := s.stream.SendMsg(m); err != nil {
			return // the receiver sees why
		}
		clear(m.Results)
	}
}

// takeOut is the next message; nil if there is nothing to send now.
func (s *session) takeOut() (m *wire.AttachRequest, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.out
	if o.head == nil && !o.ready {
		return nil, o.ended
	}
	o.ready = false
	m = &wire.AttachRequest{Head: o.head, Results: s.collect()}
	o.head = nil
	if n := len(m.Results); n > 0 {
		last := &m.Results[n-1]
		s.marks = append(s.marks, ackMark{last.Chunk, last.First + uint32(last.Len()), o.read.pos})
	} else if m.Head == nil {
		return nil, o.ended
	}
	return m, false
}

// collect takes the outcomes that are there out of the progress record: those up to the runner's last claim, and those of the tasks of the
// claim that it has passed. mu is held.
func (s *session) collect() []wire.ChunkResults {
	o, w := &s.out, s.progress
	n := o.recorded - o.taken
	if s.current != nil {
		n += uint64(w.inHand() - s.first)
	}
	results := o.spare[:0]
	var free []byte // for values, one after the other
	for left := int(n); left > 0; {
		out := o.read.next(w, left)
		left -= out.n
		large := out.sizes == nil && len(out.bytes) >= largeResult
		if cap(free) == 0 && !large {
			free = make([]byte, 0, max(64, len(out.bytes), min(int(o.written-o.read.pos), largeResult)))
		}
		last := len(results) - 1
		if last < 0 || results[last].Chunk != out.chunk || large || len(results[last].Values.Data) >= largeResult {
			if last >= 0 && cap(results[last].Values.Data) == cap(free) { // else it has outgrown it, and left it
				used := len(results[last].Values.Data)
				free = free[used:used]
			}
			results = append(results, wire.ChunkResults{Chunk: out.chunk, First: uint32(out.first), Values: wire.Batch{Data: free}})
			last++
		}
		r := &results[last]
		switch {
		case out.sizes != nil:
			r.Values.AppendSmall(out.bytes, out.sizes)
		case out.kind == recordFailure:
			r.Failures = append(r.Failures, o.failures[0])
			o.failures = o.failures[1:]
		case large: // from the record: it stays there until it has been acknowledged
			r.Values.Data = out.bytes
			r.Values.Added(len(out.bytes))
		default:
			r.Values.Append(out.bytes)
		}
	}
	o.taken += n
	if o.alone != nil {
		results = append(results, *o.alone)
		o.alone = nil
		s.work.Signal()
	}
	for i := range results { // chunks run in the order of their numbers
		r := &results[i]
		for ; len(o.runs) > 0 && o.runs[0].chunk <= r.Chunk; o.runs = o.runs[1:] {
			if o.runs[0].chunk == r.Chunk {
				r.RunNS += uint64(o.runs[0].ran)
			}
		}
	}
	o.spare = results
	return results
}

// acknowledged frees what the daemon has taken over. Chunks run in the order of their numbers, so an acknowledgement covers all smaller
// ones. mu is held, which the runner also holds when it stores results.
func (s *session) acknowledged(a *pb.Ack) {
	for len(s.marks) > 0 {
		m := s.marks[0]
		if m.chunk > a.Chunk || m.chunk == a.Chunk && m.tasks > a.Tasks {
			return
		}
		s.progress.free(m.pos)
		s.marks = s.marks[1:]
		s.asked = false
	}
}
