package server

import (
	"context"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// Rows that are on their way to a client lose here what it may not know: names, reasons, and how others were doing. An administrator loses nothing.

// veilPool hides what a pool's client need not know of it.
func (s *Server) veilPool(ctx context.Context, p *pool, info *pb.Pool) *pb.Pool {
	sees := s.eyes(ctx)
	if sees == nil || info == nil {
		return info
	}
	info.Command = nil
	if exit := info.LastExit; exit != nil {
		e := &ending{exit: exit, owner: nobody}
		if last := p.lastExit.Load(); last.exit == exit { // else there has been another one since
			e = last
		}
		info.LastExit = e.seenBy(sees)
	}
	return info
}

// veilWorkers hides what others run.
func (s *Server) veilWorkers(ctx context.Context, list []*pb.Worker) {
	sees := s.eyes(ctx)
	if sees == nil {
		return
	}
	for _, w := range list {
		if _, c := s.call(w.CallId); c == nil || !sees(int64(c.peer.uid)) {
			w.CallId, w.Index, w.Attempt = "", 0, 0
		}
	}
}

// veilCalls hides what others do, but not that they do.
func (s *Server) veilCalls(ctx context.Context, list []*pb.Call) {
	sees := s.eyes(ctx)
	if sees == nil {
		return
	}
	for _, c := range list {
		if !sees(int64(c.Uid)) {
			c.Id, c.Function, c.Label, c.Program, c.Pid, c.OldestIndex = "", "", "", "", 0, 0
		}
	}
}
