package server

import (
	"sync"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/server/internal/sched"
	"github.com/procpool/procpool/workerproc"
)

// In system mode a worker runs the tasks of one user after those of another, and what it writes is for the one whose tasks it had then. Whose that is
// is known for sure only while it has tasks of one user alone: it may begin the next task before the end of the last one is known here. So what it
// writes while it has tasks of several is for administrators.

// tenant is whose tasks a worker has.
type tenant struct {
	holds []hold // chunks that it has; owned by the pool's owner

	mu   sync.Mutex
	uid  int64 // whose tasks it has, or had last; nobody, if it has had none, or has those of several users
	page int   // of its output, which belongs to uid; see workerproc.Process.Turn
}

// hold is a chunk at a worker.
type hold struct {
	chunk sched.ChunkID
	uid   int64
}

// lend notes that the worker gets a chunk. It is called by the pool's owner before the worker can have heard of it.
func (w *worker) lend(c *sched.Chunk) {
	if w.pool.server.cfg.System == nil {
		return
	}
	uid := nobody
	if call := w.pool.calls[c.Call]; call != nil {
		uid = int64(call.peer.uid)
	}
	w.tenant.holds = append(w.tenant.holds, hold{c.ID, uid})
	w.takeStock()
}

// takeStock finds out whose tasks the worker has. It turns a page of output when they are those of one user, and were not before: all that it has written
// for others has been written by then, as a worker's results come after its task's output.
func (w *worker) takeStock() {
	t := &w.tenant
	held := t.holds[:0]
	uid, mixed := nobody, false
	for _, h := range t.holds {
		if w.pool.core.Held(w.id, h.chunk) == nil {
			continue
		}
		held = append(held, h)
		mixed = mixed || (uid != nobody && h.uid != uid)
		uid = h.uid
	}
	t.holds = held
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case mixed:
		t.uid = nobody
	case uid != nobody && uid != t.uid:
		t.uid = uid
		t.page++
		if w.proc != nil {
			w.proc.Turn(t.page)
		}
	}
}

// wroteFor is whose a page of the worker's output is: a uid, or nobody.
func (t *tenant) wroteFor(page int) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if page != t.page {
		return nobody
	}
	return t.uid
}

// ending is the end of a worker process, and who may know what of it.
type ending struct {
	exit  *pb.WorkerExit // all of it, for owner and administrators
	owner int64          // a uid, or nobody
	how   string         // how it ended, for who has lost a task by it
}

// end is the end of the worker, on the owner's goroutine.
func (w *worker) end(why *pb.WorkerExit, exit workerproc.Exit) *ending {
	e := &ending{exit: why, owner: w.tenant.wroteFor(exit.Page), how: exit.String()}
	if w.tenant.page == 0 {
		e.how = why.Reason // it has had no task, so all this is about the program and nobody's
	}
	return e
}

// exitFor is what a client may know of an end that cost it a task or a call.
func (s *Server) exitFor(peer peerInfo, e *ending) *pb.WorkerExit {
	if e == nil {
		return nil
	}
	if s.sees(peer, e.owner) {
		return e.exit
	}
	return &pb.WorkerExit{
		Worker: e.exit.Worker, Pid: e.exit.Pid, ExitCode: e.exit.ExitCode, Signal: e.exit.Signal, OomKilled: e.exit.OomKilled, Time: e.exit.Time, Reason: e.how,
	}
}

// hidden is what everybody may know of an end: that there was one.
func (e *ending) hidden() *pb.WorkerExit {
	return &pb.WorkerExit{Worker: e.exit.Worker, Pid: e.exit.Pid, Time: e.exit.Time}
}

// seenBy is what a client may know of an end that was none of its business.
func (e *ending) seenBy(sees func(owner int64) bool) *pb.WorkerExit {
	switch {
	case e == nil:
		return nil
	case sees == nil || sees(e.owner):
		return e.exit
	default:
		return e.hidden()
	}
}

// endingOf is the end in what the core hands back; nil if it is none.
func endingOf(why any) *ending {
	e, _ := why.(*ending)
	return e
}
