package server

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/grpc"
)

// Limits are how much there may be in the daemon at a time. 0 is the default, which is none in an embedded daemon.
//
// An RPC or a call that is one too many is refused, and says so. Items and bytes hold up who sends them: a call is not read from while its user, or all
// users together, have more than that in the daemon, unless it has nothing there at all. What is counted are items without an outcome that
// has been written to their client, and bytes of items that wait or run, and of results that have not been written.
type Limits struct {
	Calls   int // Map, ApplyAsync and Apply
	Streams int // every stream: calls, OpenPool, Logs, Watch, and those of health and reflection
	Items   int
	Bytes   int
}

// DefaultLimits are those of one user.
var DefaultLimits = Limits{Calls: 4096, Streams: 8192, Items: 1 << 20, Bytes: 256 << 20}

const totalFactor = 4 // how many times as much all together have

func (l Limits) or(d Limits) Limits {
	for _, f := range []struct{ v, d *int }{{&l.Calls, &d.Calls}, {&l.Streams, &d.Streams}, {&l.Items, &d.Items}, {&l.Bytes, &d.Bytes}} {
		if *f.v == 0 {
			*f.v = *f.d
		}
	}
	return l
}

func (l Limits) times(n int) Limits {
	for _, v := range []*int{&l.Calls, &l.Streams, &l.Items, &l.Bytes} {
		*v = min(*v, math.MaxInt/n) * n
	}
	return l
}

func (l Limits) valid() error {
	if l.Calls < 0 || l.Streams < 0 || l.Items < 0 || l.Bytes < 0 {
		return fmt.Errorf("limits %+v: none may be negative", l)
	}
	return nil
}

var noLimits = Limits{math.MaxInt, math.MaxInt, math.MaxInt, math.MaxInt}

// usage is what somebody has in the daemon.
type usage struct {
	budget  *budget
	limits  Limits
	who     string // "uid 1000", "all users together"
	calls   int    // these two under the budget's mu
	streams int
	items   atomic.Int64
	bytes   atomic.Int64
}

func (u *usage) full() bool {
	return u.items.Load() >= int64(u.limits.Items) || u.bytes.Load() >= int64(u.limits.Bytes)
}

// budget is what all users have in the daemon. Only calls are held up by it, so it has one lock for what is rare and counts the rest without.
type budget struct {
	perUser Limits
	total   usage

	mu      sync.Mutex
	ever    uint64             // calls that there have been
	users   map[uint32]*usage  // those with a stream
	waiting map[*call]struct{} // calls that are held up
	waiters atomic.Int32       // how many
}

func (b *budget) init(perUser, total Limits) {
	b.perUser, b.total.limits, b.total.who = perUser, total, "all users together"
	b.users, b.waiting = make(map[uint32]*usage), make(map[*call]struct{})
}

// enter begins a stream, or an Apply.
func (b *budget) enter(uid uint32) (*usage, *refusal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.users[uid]
	if u == nil {
		u = &usage{budget: b, limits: b.perUser, who: fmt.Sprintf("uid %d", uid)}
		b.users[uid] = u
	}
	for _, x := range []*usage{u, &b.total} {
		if x.streams >= x.limits.Streams {
			return nil, exceeded(x.who, "streams", x.limits.Streams)
		}
	}
	u.streams++
	b.total.streams++
	return u, nil
}

func (b *budget) leave(uid uint32, u *usage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	u.streams--
	b.total.streams--
	if u.streams == 0 {
		delete(b.users, uid) // its calls were RPCs
	}
}

// Calls is how many calls there are, and how many there have been.
func (s *Server) Calls() (open int, ever uint64) {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	return s.budget.total.calls, s.budget.ever
}

// callers are who has calls in a pool.
type callers struct {
	all int
	by  map[uint32]int
}

// open begins a call in a pool. It belongs to an RPC.
func (b *budget) open(c *call, p *pool) *refusal {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.users[c.peer.uid]
	if most := p.config.Load(); most != nil {
		if most.Calls > 0 && p.callers.all >= most.Calls {
			return exceeded(fmt.Sprintf("pool %q", p.name), "calls", most.Calls).of(p.name)
		}
		if most.CallsPerUser > 0 && p.callers.by[c.peer.uid] >= most.CallsPerUser {
			return exceeded(fmt.Sprintf("pool %q, uid %d", p.name, c.peer.uid), "calls", most.CallsPerUser).of(p.name)
		}
	}
	for _, x := range []*usage{u, &b.total} {
		if x.calls >= x.limits.Calls {
			return exceeded(x.who, "calls", x.limits.Calls)
		}
	}
	c.user, c.callers = u, &p.callers
	u.calls++
	b.total.calls++
	b.ever++
	c.callers.all++
	if c.callers.by == nil {
		c.callers.by = make(map[uint32]int)
	}
	c.callers.by[c.peer.uid]++
	return nil
}

func exceeded(who, things string, n int) *refusal {
	return refuse(pb.Reason_REASON_LIMIT, "%s: %d %s at a time is the limit; try again when one has ended (procpool calls lists them), or send more items in one call", who, n, things)
}

// close ends a call: whatever it had in the daemon is not its user's any more.
func (b *budget) close(c *call) {
	c.mu.Lock()
	c.charge(-c.charged.items, -c.charged.bytes)
	c.charged.closed = true
	c.mu.Unlock()
	b.mu.Lock()
	c.user.calls--
	b.total.calls--
	c.callers.all--
	if c.callers.by[c.peer.uid]--; c.callers.by[c.peer.uid] == 0 {
		delete(c.callers.by, c.peer.uid)
	}
	b.mu.Unlock()
}

// charge counts items and bytes that a call has in the daemon from now on, or has no more. mu is held.
func (c *call) charge(items, bytes int) {
	if c.user == nil || c.charged.closed {
		return
	}
	b := c.user.budget
	c.charged.items += items
	c.charged.bytes += bytes
	for _, u := range [...]*usage{c.user, &b.total} {
		u.items.Add(int64(items))
		u.bytes.Add(int64(bytes))
	}
	if (items < 0 || bytes < 0) && b.waiters.Load() > 0 {
		b.wake()
	}
}

// full tells whether a call must not send more because of what others have sent.
func (b *budget) full(c *call) bool { return c.user.full() || b.total.full() }

// wait lets a call be told when there may be room; unwait ends that.
func (b *budget) wait(c *call) {
	b.mu.Lock()
	b.waiting[c] = struct{}{}
	b.waiters.Store(int32(len(b.waiting)))
	b.mu.Unlock()
}

func (b *budget) unwait(c *call) {
	b.mu.Lock()
	delete(b.waiting, c)
	b.waiters.Store(int32(len(b.waiting)))
	b.mu.Unlock()
}

func (b *budget) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.total.full() {
		return
	}
	for c := range b.waiting {
		if !c.user.full() {
			c.signalRoom()
		}
	}
}

// countUnary counts Apply. All others are answered also to who has too much: it must be able to look, and to end it.
func (s *Server) countUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if info.FullMethod != pb.PoolService_Apply_FullMethodName {
		return handler(ctx, req)
	}
	uid := peerOf(ctx).uid
	u, refused := s.budget.enter(uid)
	if refused != nil {
		return nil, refused
	}
	defer s.budget.leave(uid, u)
	return handler(ctx, req)
}

func (s *Server) countStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	uid := peerOf(stream.Context()).uid
	u, refused := s.budget.enter(uid)
	if refused != nil {
		return refused
	}
	defer s.budget.leave(uid, u)
	return handler(srv, stream)
}
