package server

import (
	"context"
	"maps"
	"math"
	"slices"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/grpc"
)

// Logs is news for whoever asks: of one pool, or of all.
func (ps *poolService) Logs(r *pb.LogsRequest, stream grpc.ServerStreamingServer[pb.LogsResponse]) error {
	tail := math.MaxInt
	if r.Tail != nil {
		tail = int(*r.Tail)
	}
	f := newFeed(feedSize, feedBytes)
	f.sees = ps.server.eyes(stream.Context())
	if r.Pool == "" {
		ps.server.subscribeAll(f, tail)
		defer ps.server.unsubscribeAll(f)
	} else {
		p, err := ps.server.pool(r.Pool)
		if err != nil {
			return err
		}
		p.events.subscribe(f, tail, true)
		defer p.events.unsubscribe(f)
	}
	if !r.Follow {
		f.end()
	}
	for {
		for m := f.take(); m != nil; m = f.take() {
			out := &pb.LogsResponse{Outputs: m.Outputs, Exits: m.Exits, Dropped: m.Dropped}
			if len(out.Outputs)+len(out.Exits) > 0 || out.Dropped > 0 {
				if err := stream.Send(out); err != nil {
					return err
				}
			}
			if m.Ended {
				return nil
			}
		}
		select {
		case <-f.awake:
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		}
	}
}

// subscribeAll lets f have the news of all pools, those to come too, until the daemon has none and will have no more.
func (s *Server) subscribeAll(f *feed, tail int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.pools)) {
		s.pools[name].events.subscribe(f, tail, false)
	}
	if s.noMorePools {
		f.end()
		return
	}
	s.followers[f] = struct{}{}
}

func (s *Server) unsubscribeAll(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.followers, f)
	for _, p := range s.pools {
		p.events.unsubscribe(f)
	}
}

// endFollowers ends the feeds that no pool's end has ended. There are no pools any more.
func (s *Server) endFollowers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noMorePools = true
	for f := range s.followers {
		f.end()
	}
	clear(s.followers)
	for w := range s.watchers {
		w.end()
	}
	clear(s.watchers)
}
