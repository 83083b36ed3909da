package server

import (
	"context"
	"errors"
	"io"
	"regexp"
	"slices"
	"sync"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"github.com/procpool/procpool/server/internal/sched"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Map applies a function to items that stream in.
func (ps *poolService) Map(stream grpc.BidiStreamingServer[pb.MapRequest, pb.MapResponse]) error {
	return ps.server.serveCall(stream, false)
}

// ApplyAsync is many independent tasks on one stream.
func (ps *poolService) ApplyAsync(stream grpc.BidiStreamingServer[pb.ApplyAsyncRequest, pb.ApplyAsyncResponse]) error {
	return ps.server.serveCall(stream, true)
}

// serveCall is a call's life on its stream.
func (s *Server) serveCall(stream grpc.ServerStream, single bool) error {
	ctx := stream.Context()
	first := &wire.CallRequest{}
	if err := stream.RecvMsg(first); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if first.Settings == nil { // also when there is no message at all
		return badRequest("the first message of a call must name its pool and its function, before or together with the first items")
	}
	c, p, err := s.openCall(ctx, first.Settings, single, first.JSON != nil)
	if err != nil {
		return err
	}
	served := false
	defer func() { s.leave(ctx, p, c, served) }()
	if err := stream.SendHeader(nil); err != nil { // whatever the client does next, the daemon has its call before
		return err
	}
	s.receivers.Go(func() { c.receive(ctx, s, p, stream, first) }) // ends with the stream, at the latest
	for {
		select {
		case <-c.awake:
		case <-p.joined:
			s.orphan(p, c)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for {
			m, done, refused := c.take()
			switch {
			case m != nil:
			case refused != nil:
				served = true
				return refused
			case done:
				served = true
				return nil
			}
			if m == nil {
				break
			}
			if a := m.response.Accepted; a != nil {
				a.WindowItems, a.WindowBytes = uint32(s.cfg.WindowItems), uint64(s.cfg.WindowBytes)
			}
			if err := c.sendPortion(stream, &m.response); err != nil {
				return err
			}
			c.written(p, m)
		}
	}
}

// leave is the end of a handler. A call that has not been served to its end is cancelled: its client has gone, its time is over, or the handler has panicked.
func (s *Server) leave(ctx context.Context, p *pool, c *call, served bool) {
	if !served {
		by, why := "its client", sched.CallCancelled
		if c.overdue(ctx.Err(), time.Now()) {
			by, why = "its deadline", sched.DeadlinePassed
		}
		if !p.post(func(now time.Time) { p.cancelAll(now, c, by, why) }) {
			s.orphan(p, c)
		}
	}
	c.creditOutput(p)
	s.budget.close(c)
}

// deadlineSlack is how long before its deadline, as the daemon has it, a call may have ended for it: its client has begun to count when the request was still
// on its way, and says that it is over before the daemon finds out. Leaky: a client that gives up so shortly before the deadline is not told from one that obeys it.
const deadlineSlack = 100 * time.Millisecond

// overdue tells whether a call that ends by err, the end of its stream's context, does so because its time is over.
func (c *call) overdue(err error, now time.Time) bool {
	end := c.spec.Deadline
	if err == nil || end.IsZero() {
		return false
	}
	slack := min(deadlineSlack, end.Sub(c.started)/10)
	return errors.Is(err, context.DeadlineExceeded) || !now.Before(end.Add(-slack))
}

// orphan ends a call that came when its pool ended, so that nobody has looked at it and nobody will.
func (s *Server) orphan(p *pool, c *call) {
	c.mu.Lock()
	ended := c.done
	c.mu.Unlock()
	if !ended {
		s.forgetCall(c.id)
		c.end(refuse(pb.Reason_REASON_POOL_TERMINATED, "pool %q has ended", p.name).of(p.name))
	}
}

// sendPortion sends outcomes, in as many messages as the limit of a message asks for. Outputs come before the outcomes of their tasks.
func (c *call) sendPortion(stream grpc.ServerStream, m *wire.CallResponse) error {
	for rest := *m; ; {
		bytes := 0
		m.Outputs, rest.Outputs = firstPart(rest.Outputs, &bytes, func(o **pb.TaskOutput) int { return proto.Size(*o) })
		m.Results, rest.Results = firstPart(rest.Results, &bytes, func(r *wire.Results) int { return r.Values.Total() })
		m.Failures, rest.Failures = firstPart(rest.Failures, &bytes, func(f **pb.Failure) int { return proto.Size(*f) })
		if c.json {
			forPeople(m)
		}
		if err := stream.SendMsg(m); err != nil {
			return err
		}
		if len(rest.Outputs)+len(rest.Results)+len(rest.Failures) == 0 {
			return nil
		}
		*m = wire.CallResponse{} // a new one for the next part, which is not accepted again
	}
}

// firstPart is as many of list as a message takes that has so many bytes already, and the rest.
func firstPart[T any](list []T, bytes *int, size func(*T) int) (part, rest []T) {
	n := 0
	for ; n < len(list); n++ {
		more := size(&list[n])
		if *bytes > 0 && *bytes+more > maxBatch {
			*bytes = maxBatch + 1 // nothing that follows, however small, may come before the rest
			break
		}
		*bytes += more
	}
	return list[:n:n], list[n:]
}

// Apply is one task.
func (ps *poolService) Apply(ctx context.Context, r *pb.ApplyRequest) (*pb.ApplyResponse, error) {
	s := ps.server
	m := &wire.CallRequest{}
	if r.Json != nil {
		if len(r.Item) > 0 {
			return nil, badRequest("a request has either item or json, not both")
		}
		item, err := jsonItem(r.Json)
		if err != nil {
			return nil, badRequest("json: %v", err)
		}
		r.Item = item
	}
	m.Items.Append(r.Item)
	c, p, err := s.openCall(ctx, &pb.MapRequest{
		Pool: r.Pool, Function: r.Function, TaskTimeout: r.TaskTimeout, QueueTimeout: r.QueueTimeout, MaxAttempts: r.MaxAttempts,
		RetryOn: r.RetryOn, Label: r.Label, CallId: r.CallId,
	}, true, r.Json != nil)
	if err != nil {
		return nil, err
	}
	served := false
	defer func() { s.leave(ctx, p, c, served) }()
	if err := c.add(p, m); err != nil {
		return nil, err
	}
	c.endInput(p, false)
	for {
		select {
		case <-c.awake:
		case <-p.joined:
			s.orphan(p, c)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		m, _, refused := c.take()
		if m == nil && refused != nil {
			served = true
			return nil, refused
		}
		if m == nil {
			continue
		}
		c.written(p, m)
		if m.tasks > 0 {
			served = true
			return applyResponse(c, &m.response), nil
		}
		if refused != nil { // it came together with the news that the call had been accepted
			served = true
			return nil, refused
		}
	}
}

var callID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{32}$`) })

// openCall checks a call's settings and gives the call to its pool.
func (s *Server) openCall(ctx context.Context, m *pb.MapRequest, single, json bool) (*call, *pool, error) {
	if s.stopping() {
		return nil, nil, errStopping
	}
	if m.Pool == "" {
		return nil, nil, badRequest("pool is missing: which pool?")
	}
	if m.Function == "" {
		return nil, nil, badRequest("function is missing: which function of pool %q?", m.Pool)
	}
	p, err := s.pool(m.Pool)
	if err != nil {
		return nil, nil, err
	}
	spec, refused := callSpec(ctx, m, single)
	if refused != nil {
		return nil, nil, refused
	}
	peer := peerOf(ctx)
	if refused := p.claim(peer.uid); refused != nil {
		return nil, nil, refused
	}
	p.fillIn(m, &spec)
	spec.UID = peer.uid
	if json {
		spec.Encoding = "json"
	}
	id := m.CallId
	if id == "" {
		id = newCallID()
	}
	c := newCall(id, spec, m.Label, peer)
	c.json = json
	if refused := s.budget.open(c, p); refused != nil {
		return nil, nil, refused
	}
	if refused := s.rememberCall(p, c); refused != nil {
		s.budget.close(c)
		return nil, nil, refused
	}
	posted := p.post(func(now time.Time) {
		p.lastCall++
		c.key = p.lastCall
		c.spec.ID = c.key
		p.calls[c.key] = c
		p.byID[c.id] = c
		p.core.Open(now, c.spec)
	})
	if !posted {
		s.forgetCall(id)
		s.budget.close(c)
		return nil, nil, refuse(pb.Reason_REASON_POOL_CLOSED, "pool %q has been closed and takes no new calls", p.name).of(p.name)
	}
	return c, p, nil
}

// maxLinger bounds how far ahead workers are given work.
const maxLinger = time.Second

// callSpec is a call's settings in the words of the core.
func callSpec(ctx context.Context, m *pb.MapRequest, single bool) (sched.CallSpec, *refusal) {
	spec := sched.CallSpec{Function: m.Function, Single: single, ChunkSize: int(m.ChunkSize), MaxAttempts: int(max(1, m.MaxAttempts))}
	if m.ChunkSize < 0 {
		return spec, badRequest("chunk_size is %d; give at least 1, or 0 to have it found out", m.ChunkSize)
	}
	if m.MaxAttempts > MaxAttempts {
		return spec, badRequest("max_attempts is %d; at most %d are allowed", m.MaxAttempts, MaxAttempts)
	}
	if len(m.Label) > 200 {
		return spec, badRequest("label has %d bytes; at most 200 are allowed", len(m.Label))
	}
	if m.CallId != "" && !callID().MatchString(m.CallId) {
		return spec, badRequest("call_id is %.80q; it has 32 hex digits in lower case", m.CallId)
	}
	var refused *refusal
	limit := func(name string, d *durationpb.Duration) time.Duration {
		if d == nil {
			return 0
		}
		if err := d.CheckValid(); err != nil || d.AsDuration() <= 0 {
			refused = badRequest("%s is %v; it must be more than 0", name, d.AsDuration())
		}
		return min(d.AsDuration(), sched.Forever)
	}
	spec.TaskTimeout = limit("task_timeout", m.TaskTimeout)
	spec.QueueTimeout = limit("queue_timeout", m.QueueTimeout)
	if spec.Linger = limit("linger", m.Linger); spec.Linger > maxLinger {
		return spec, badRequest("linger is %v; at most %v are allowed", spec.Linger, maxLinger)
	}
	retryable := []pb.Outcome{pb.Outcome_OUTCOME_WORKER_LOST, pb.Outcome_OUTCOME_TASK_ERROR, pb.Outcome_OUTCOME_TIMEOUT}
	for _, o := range m.RetryOn {
		if !slices.Contains(retryable, o) {
			return spec, badRequest("retry_on has %v; allowed are OUTCOME_WORKER_LOST, OUTCOME_TASK_ERROR and OUTCOME_TIMEOUT", o)
		}
		spec.RetryOn |= 1 << o
	}
	if end, ok := ctx.Deadline(); ok && time.Until(end) < sched.Forever {
		spec.Deadline = end
	}
	return spec, refused
}
