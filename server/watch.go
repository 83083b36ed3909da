package server

import (
	"context"
	"errors"
	"sync"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// maxEvents is how many events a watcher keeps for its reader. Then the oldest goes.
const maxEvents = 4096

// watcher is events on their way to one reader. Owners of pools put them in and never wait.
type watcher struct {
	reader peerInfo

	mu      sync.Mutex
	events  []*pb.WatchEvent // shared by all watchers, and not changed any more
	dropped uint64
	ended   bool
	awake   chan struct{} // one slot
}

func newWatcher(reader peerInfo) *watcher {
	return &watcher{reader: reader, awake: make(chan struct{}, 1)}
}

func (w *watcher) add(e *pb.WatchEvent) {
	w.mu.Lock()
	if len(w.events) == maxEvents {
		w.events[0] = nil
		w.events = w.events[1:]
		w.dropped++
	}
	w.events = append(w.events, e)
	w.mu.Unlock()
	w.wake()
}

// end says that nothing more will come.
func (w *watcher) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.wake()
}

func (w *watcher) wake() {
	select {
	case w.awake <- struct{}{}:
	default:
	}
}

// take empties the watcher. A message has a portion of what is there, so that it stays small.
func (w *watcher) take() (m *pb.WatchResponse, ended bool) {
	const portion = 512
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(portion, len(w.events))
	if n == 0 {
		w.events = nil // what it held is free
		return nil, w.ended
	}
	m = &pb.WatchResponse{Events: w.events[:n:n], Dropped: w.dropped}
	w.events, w.dropped = w.events[n:], 0
	return m, false
}

// Watch is what happens.
func (ps *poolService) Watch(r *pb.WatchRequest, stream grpc.ServerStreamingServer[pb.WatchResponse]) error {
	s, ctx := ps.server, stream.Context()
	reader := peerOf(ctx)
	w := newWatcher(reader)
	pools, err := s.watch(w, r.Pool)
	if err != nil {
		return err
	}
	defer s.unwatch(w, pools)
	snapshot := &pb.WatchSnapshot{}
	for _, p := range pools {
		if err := p.watch(ctx, w, r.Pool != "", snapshot); err != nil {
			return err
		}
	}
	s.veilCalls(ctx, snapshot.Calls)
	s.veilWorkers(ctx, snapshot.Workers)
	byName := make(map[string]*pool)
	for _, p := range pools {
		byName[p.name] = p
	}
	for _, info := range snapshot.Pools {
		s.veilPool(ctx, byName[info.Name], info)
		info.Command = nil
		info.LastExit = withoutWords(info.LastExit)
	}
	if err := stream.Send(&pb.WatchResponse{Snapshot: snapshot}); err != nil {
		return err
	}
	for {
		m, ended := w.take()
		switch {
		case m != nil:
			if err := stream.Send(m); err != nil {
				return err
			}
			continue
		case ended:
			return nil
		}
		select {
		case <-w.awake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// forReader is an event of a pool without what its reader may not know.
func (p *pool) forReader(reader peerInfo, e *pb.WatchEvent) *pb.WatchEvent {
	owner := int64(p.uid)
	switch {
	case e.Call != nil:
		owner = int64(e.Call.Uid)
	case p.config.Load() != nil:
		owner = nobody // it is the administrator's, and its workers serve many
	}
	if p.server.sees(reader, owner) {
		return e
	}
	e = proto.CloneOf(e)
	e.Reason = ""
	if c := e.Call; c != nil {
		c.Id, c.Function, c.Label, c.Pid = "", "", "", 0
	}
	return e
}

// withoutWords is the end of a worker without what the worker wrote.
func withoutWords(e *pb.WorkerExit) *pb.WorkerExit {
	if e == nil {
		return nil
	}
	return &pb.WorkerExit{
		Worker: e.Worker, Pid: e.Pid, ExitCode: e.ExitCode, Signal: e.Signal, CoreDumped: e.CoreDumped, OomKilled: e.OomKilled, Time: e.Time, Reason: e.Reason,
	}
}

// watch finds the pool to watch, or all pools, of which w then hears from the beginning, if they are made from now on.
func (s *Server) watch(w *watcher, name string) ([]*pool, error) {
	if name != "" {
		p, err := s.pool(name)
		if err != nil {
			return nil, err
		}
		return []*pool{p}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noMorePools {
		w.end()
	} else {
		s.watchers[w] = struct{}{}
	}
	return s.byName(), nil
}

func (s *Server) unwatch(w *watcher, pools []*pool) {
	s.mu.Lock()
	if _, all := s.watchers[w]; all {
		delete(s.watchers, w)
		for _, p := range s.pools {
			pools = append(pools, p)
		}
	}
	s.mu.Unlock()
	for _, p := range pools {
		p.post(func(time.Time) { delete(p.watchers, w) })
	}
}

// watch lets w have the events of the pool from now on, and adds how it stands now to the snapshot. If ends, w ends with the pool.
func (p *pool) watch(ctx context.Context, w *watcher, ends bool, snapshot *pb.WatchSnapshot) error {
	info := p.label()
	var workers []*pb.Worker
	var calls []*pb.Call
	err := p.ask(ctx, func(time.Time) {
		p.watchers[w] = ends
		p.fill(info)
		workers, _ = p.listWorkers()
		calls = p.listCalls()
	})
	if errors.Is(err, errPoolEnded) {
		if ends {
			w.end()
		}
		return nil
	}
	if err != nil {
		return err
	}
	snapshot.Pools = append(snapshot.Pools, info)
	snapshot.Workers = append(snapshot.Workers, workers...)
	snapshot.Calls = append(snapshot.Calls, calls...)
	return nil
}

// happened tells the watchers that something has happened in the pool. It is called by the owner. Nothing is made if nobody watches.
func (p *pool) happened(kind pb.WatchKind, fill func(*pb.WatchEvent)) {
	if len(p.watchers) == 0 {
		return
	}
	e := &pb.WatchEvent{Time: timestamppb.Now(), Kind: kind, Pool: p.name}
	fill(e)
	for w := range p.watchers {
		w.add(p.forReader(w.reader, e))
	}
}

func (p *pool) callHappened(kind pb.WatchKind, c *call, err *refusal) {
	p.happened(kind, func(e *pb.WatchEvent) {
		e.Call = &pb.WatchCall{
			Id: c.id, Function: c.spec.Function, Uid: c.peer.uid, Pid: int64(c.peer.pid), Label: c.label, Started: timestamppb.New(c.started),
			AcceptedTasks: c.items, DoneTasks: c.outcomes, FailedTasks: c.failures, Cancelled: c.cancelled,
		}
		if err != nil {
			e.Reason, e.Cause = err.message, reasonName(err.detail.Reason)
		}
	})
}

func (w *worker) happened(kind pb.WatchKind, fill func(*pb.WatchEvent)) {
	w.pool.happened(kind, func(e *pb.WatchEvent) {
		e.Worker = w.name
		if w.proc != nil {
			e.Pid = int64(w.proc.Pid())
		}
		fill(e)
	})
}

// unwatched ends the watchers of a pool that has ended. It is called by the owner, at the end.
func (p *pool) unwatched() {
	p.happened(pb.WatchKind_WATCH_KIND_POOL_ENDED, func(*pb.WatchEvent) {})
	for w, ends := range p.watchers {
		if ends {
			w.end()
		}
	}
	clear(p.watchers)
}
