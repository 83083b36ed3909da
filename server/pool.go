package server

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"github.com/procpool/procpool/server/internal/sched"
	"google.golang.org/grpc/status"
)

// pool is a pool: a decision core and the goroutine that owns it.
//
// Everybody else posts events: a received message is one event, however many tasks it carries. The owner applies what has been
// posted, lets the core settle once, and carries out the effects. It never waits for a client, a worker or a process, and
// nobody who posts waits for it.
type pool struct {
	name     string
	spec     *pb.PoolSpec
	uid      uint32
	opened   bool // lives as long as its opener's stream
	created  time.Time
	server   *Server
	log      hclog.Logger
	config   atomic.Pointer[PoolConfig] // nil for a pool that a client has made
	lastExit atomic.Pointer[ending]     // that was not wanted
	callers  callers                    // under the budget's mu
	claimed  atomic.Int64               // whose a dedicated pool is; nobody's at first
	events   *news                      // what its workers write and how they end
	opener   *feed                      // the same for the opener; nil for a pool without one

	lines     atomic.Uint64 // that its workers wrote…
	lostLines atomic.Uint64 // …and those of them that were dropped
	cpuShown  time.Duration // by Stats; under Server.statsMu

	mu     sync.Mutex
	inbox  []event       // posted, not yet applied
	awake  chan struct{} // one slot: inbox is not empty
	ended  bool          // the owner takes no more events
	joined chan struct{} // closed when the owner has returned

	// Owned by run.
	core       *sched.Pool
	workers    map[sched.WorkerID]*worker
	calls      map[sched.CallID]*call
	byID       map[string]*call
	terminated bool // by somebody, rather than closed and drained
	lastCall   sched.CallID
	programs   map[int]*pb.Program   // by generation of workers: the current one, and the one that a restart leads to
	restarting *restart              // nil: nobody waits for one
	procs      sync.WaitGroup        // one per process
	heard      []*wire.AttachRequest // messages of workers in this round: what the core hands out leads back to them
	tally      Tally                 // read by others when joined is closed
	watchers   map[*watcher]bool     // true: the end of the pool is the end of what it hears
}

// event is something that happened, applied to the pool by its owner.
type event func(now time.Time)

func newPool(s *Server, spec *pb.PoolSpec, uid uint32, opened bool) *pool {
	p := &pool{
		name: spec.Name, spec: spec, uid: uid, opened: opened, created: time.Now(), server: s,
		log:      s.cfg.Logger.Named("pool").With("pool", spec.Name),
		awake:    make(chan struct{}, 1),
		joined:   make(chan struct{}),
		workers:  make(map[sched.WorkerID]*worker),
		calls:    make(map[sched.CallID]*call),
		byID:     make(map[string]*call),
		events:   newNews(),
		programs: map[int]*pb.Program{1: spec.Program},
		tally:    newTally(),
		watchers: make(map[*watcher]bool),
	}
	p.claimed.Store(nobody)
	if opened {
		p.opener = newFeed(feedSize, feedBytes)
		p.events.subscribe(p.opener, 0, true)
	}
	p.core = sched.New(sched.Config{
		Workers:      int(spec.Workers),
		Spares:       int(spec.Spares),
		MaxStarting:  max(2, usableCPUs()),
		StartTimeout: spec.StartTimeout.AsDuration(),
		ReadyTimeout: spec.ReadyTimeout.AsDuration(),
		CancelGrace:  spec.CancelGrace.AsDuration(),
		KillDelay:    spec.KillDelay.AsDuration(),
		MaxTasks:     int(spec.MaxTasksPerWorker),
		MaxAge:       spec.MaxWorkerAge.AsDuration(),
		MaxIdle:      spec.MaxWorkerIdle.AsDuration(),
		MinWorkers:   int(spec.MinWorkers),
		DrainMemory:  int64(spec.DrainMemory),
		WindowBytes:  s.cfg.WindowBytes,
		MaxItem:      wire.MaxItem,
		Rand:         random,
	})
	return p
}

// post hands an event to the owner and returns at once. It reports false when the pool has ended, and the event is lost.
func (p *pool) post(e event) bool {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return false
	}
	p.inbox = append(p.inbox, e)
	p.mu.Unlock()
	select {
	case p.awake <- struct{}{}:
	default:
	}
	return true
}

// ask runs f on the owner's goroutine and waits for it. It is for questions, never for the data path.
func (p *pool) ask(ctx context.Context, f func(now time.Time)) error {
	done := make(chan struct{})
	if !p.post(func(now time.Time) { f(now); close(done) }) {
		return errPoolEnded
	}
	select {
	case <-done:
		return nil
	case <-p.joined:
		return errPoolEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errPoolEnded = fmt.Errorf("the pool has ended")

// run owns the pool. It returns when every worker has been reaped; who waits for joined has to be told then.
func (p *pool) run() {
	defer p.crashed()
	timer := time.NewTimer(0) // the first round starts the workers
	defer timer.Stop()
	if p.watchesMemory() {
		go p.watchMemory() // ends when p.joined is closed
	}
	var batch []event
	for {
		select {
		case <-p.awake:
		case <-timer.C:
		}
		p.mu.Lock()
		batch, p.inbox = p.inbox, batch[:0]
		p.mu.Unlock()

		now := time.Now()
		for i, e := range batch {
			e(now)
			batch[i] = nil
		}
		p.perform(p.core.Settle(now))
		for i, m := range p.heard {
			spent(m)
			p.heard[i] = nil
		}
		p.heard = p.heard[:0]
		if p.core.State() == sched.Joined {
			break
		}
		if next, ok := p.core.NextDeadline(); ok {
			timer.Reset(max(0, time.Until(next)))
		} else {
			timer.Stop()
		}
	}
	p.procs.Wait()
	p.mu.Lock()
	p.ended = true
	rest := p.inbox
	p.inbox = nil
	p.mu.Unlock()
	now := time.Now()
	for _, e := range rest { // questions asked meanwhile; the core ignores the rest
		e(now)
	}
	p.perform(p.core.Settle(now))
	for id := range p.calls { // they came now
		p.endCall(id, refuse(pb.Reason_REASON_POOL_TERMINATED, "pool %q has ended", p.name).of(p.name))
	}
	p.events.end()
	p.unwatched()
	p.log.Info("joined")
}

// crashed ends a pool whose owner has met a state that cannot be: its calls fail and its workers die, and the other pools go on.
func (p *pool) crashed() {
	r := recover()
	if r == nil {
		return
	}
	err := status.Convert(p.server.panicked("owner of pool "+p.name, r)).Message()
	p.terminated = true
	p.mu.Lock()
	p.ended = true
	p.inbox = nil
	p.mu.Unlock()
	for id := range p.calls {
		p.endCall(id, refuse(pb.Reason_REASON_POOL_TERMINATED, "%s", err).of(p.name))
	}
	for _, w := range p.workers {
		w.out.close()
		select {
		case <-w.born: // also if nobody has heard of it yet
			w.child.Kill()
		default: // whoever starts it will find the pool ended, and kill it
		}
	}
	p.procs.Wait()
	p.events.end()
	p.unwatched()
}

// perform carries out what the core has decided, then wakes every stream that got something, once. A call that was refused for a mistake of
// its client may be gone here, while the core still winds it up.
func (p *pool) perform(effects []sched.Effect) {
	for i := range effects {
		e := &effects[i]
		w := p.workers[e.Worker]
		if w == nil && e.Worker != 0 && e.Kind != sched.Spawn && e.Kind != sched.Deliver {
			continue // it has exited meanwhile
		}
		if p.log.IsTrace() {
			p.log.Trace("effect", "kind", e.Kind, "worker", e.Worker, "call", e.Call)
		}
		switch e.Kind {
		case sched.Spawn:
			p.spawn(e.Worker, p.programs[e.Generation])
		case sched.Dispatch:
			p.tally.dispatched(e.Chunk)
			w.dispatch(e.Chunk)
		case sched.CancelTask:
			w.cancel(e.ChunkID, e.Offset)
		case sched.Revoke:
			w.revoke(e.ChunkID, e.Offset)
		case sched.Stop:
			w.stop(e.Reason)
		case sched.Signal:
			w.signal(e.Reason)
		case sched.Kill:
			w.kill(e.Reason, e.Why)
		case sched.Inspect:
			w.inspect()
		case sched.Restarted:
			p.restarted(e)
		case sched.StateChange:
			p.stateChanged(e.State)
		case sched.Opened:
			if c := p.calls[e.Call]; c != nil {
				c.tally = p.tally.function(c.spec.Function)
				c.accepted(e.Encoding)
				p.callHappened(pb.WatchKind_WATCH_KIND_CALL_BEGUN, c, nil)
			}
		case sched.Refused:
			if p.calls[e.Call] != nil { // else its receiver has found it wrong as well
				p.endCall(e.Call, p.refusal(e))
			}
		case sched.Deliver:
			c := p.calls[e.Call]
			p.tally.delivered(c, e.Delivery)
			if c != nil {
				c.deliver(p, e.Delivery)
			}
		case sched.Ended:
			p.endCall(e.Call, nil)
		}
	}
	for i := range effects {
		e := &effects[i]
		if w := p.workers[e.Worker]; w != nil {
			w.out.flush()
		}
		if c := p.calls[e.Call]; c != nil {
			c.flush()
		}
	}
}

func (p *pool) stateChanged(state sched.State) {
	switch state {
	case sched.Terminated:
		p.terminated = true
		p.log.Info("state", "state", "terminated")
	case sched.Degraded:
		p.log.Warn("degraded: workers do not start, trying with one", "last", p.lastExit.Load().whole().GetReason())
	default:
		p.log.Info("state", "state", stateName(pb.PoolState(state)))
	}
	p.events.state(pb.PoolState(state))
	p.happened(pb.WatchKind_WATCH_KIND_POOL_STATE, func(e *pb.WatchEvent) { e.State = pb.PoolState(state) })
}

// endCall is the end of a call: err is why it was refused, nil if it has had all its outcomes.
func (p *pool) endCall(id sched.CallID, err *refusal) {
	c := p.calls[id]
	if c == nil {
		return
	}
	delete(p.calls, id)
	if p.byID[c.id] == c {
		delete(p.byID, c.id)
		p.server.forgetCall(c.id)
	}
	p.tally.ended(c, err, p.core.State() == sched.Terminated)
	p.callHappened(pb.WatchKind_WATCH_KIND_CALL_ENDED, c, err)
	if err == nil && (!c.inputEnded || c.outcomes < c.items) {
		err = p.cut(c)
	}
	c.end(err)
}

// cut is why a call has ended before the daemon knew all its items, as one that is cancelled or whose pool ends may. Its client has to be told: those that
// were under way will have no outcome.
func (p *pool) cut(c *call) *refusal {
	switch {
	case p.server.stopping():
		return errStopping
	case c.cancelled:
		return refuse(pb.Reason_REASON_CALL_CANCELLED, "the call was cancelled by %s", c.cancelledBy).of(p.name)
	case p.core.State() == sched.Terminated:
		return refuse(pb.Reason_REASON_POOL_TERMINATED, "pool %q has been terminated", p.name).of(p.name)
	default:
		return refuse(pb.Reason_REASON_POOL_CLOSED, "pool %q has been closed and takes no new calls", p.name).of(p.name)
	}
}

// refusal explains why the core refuses a call.
func (p *pool) refusal(e *sched.Effect) *refusal {
	c := p.calls[e.Call]
	switch e.Reason {
	case sched.UnknownFunction:
		var names []string
		for _, f := range p.core.Info().Functions {
			names = append(names, f.Name)
		}
		return refuse(pb.Reason_REASON_UNKNOWN_FUNCTION, "pool %q has no function %q", p.name, c.spec.Function).of(p.name).knowing(names, "function at all")
	case sched.WrongEncoding:
		return refuse(pb.Reason_REASON_ENCODING, "function %q takes items encoded as %q, not JSON; send them as items, encoded by its SDK",
			c.spec.Function, p.encoding(c.spec.Function)).of(p.name)
	case sched.BootFailure:
		exit := p.server.exitFor(c.peer, endingOf(e.Why))
		r := refuse(pb.Reason_REASON_BOOT_FAILURE, "the workers of pool %q do not start: %s", p.name, describeExit(exit)).of(p.name)
		r.detail.WorkerExit = exit
		return r
	case sched.PoolClosed:
		return refuse(pb.Reason_REASON_POOL_CLOSED, "pool %q has been closed and takes no new calls", p.name).of(p.name)
	case sched.Stopping:
		return errStopping
	default:
		return refuse(pb.Reason_REASON_POOL_TERMINATED, "pool %q has been terminated", p.name).of(p.name)
	}
}

func (p *pool) encoding(function string) string {
	for _, f := range p.core.Info().Functions {
		if f.Name == function {
			return f.Encoding
		}
	}
	return ""
}

// close lets the accepted calls end and takes no new ones.
func (p *pool) close() { p.post(func(now time.Time) { p.core.Close(now) }) }

// terminate drops what is left and kills the workers.
func (p *pool) terminate(why sched.Reason) {
	p.post(func(now time.Time) { p.core.Terminate(now, why) })
}

// segment is items of a call as they came in one message. Every Part of a chunk leads back to one.
type segment struct {
	batch wire.Batch
	ids   []uint64 // of ApplyAsync, if the caller chose them
	first uint64   // number of the first task in its call
	left  int      // tasks without outcome, under the call's mu
}

// index is what the caller calls a task: the one at a place of the segment, which is number seq of the call.
func (s *segment) index(seq uint64, place int) uint64 {
	if s.ids != nil {
		return s.ids[place]
	}
	return seq
}

// cancel ends a call, or some tasks of it. by is who wants it.
func (p *pool) cancel(now time.Time, c *call, indexes []uint64, by string) {
	if len(indexes) == 0 {
		p.cancelAll(now, c, by, sched.CallCancelled)
		return
	}
	c.cancelledBy = by
	p.core.CancelTasks(now, c.key, c.seqs(indexes))
}

func (p *pool) cancelAll(now time.Time, c *call, by string, why sched.Reason) {
	c.cancelledBy, c.cancelled = by, true
	p.core.Cancel(now, c.key, why)
}
