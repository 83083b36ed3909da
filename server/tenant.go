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

	mu    sync.Mutex
	pages []int64 // whose each page of its output is (see workerproc.Process.Turn): a uid, or nobody, because there was no task or tasks of several users
	first int     // number of the first one in pages
}

// maxPages is how many pages are remembered.
const maxPages = 64

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

// takeStock finds out whose tasks the worker has, and turns a page of its output if that has changed. All that it wrote for others has been written by
// then, as the results of tasks come after their output.
func (w *worker) takeStock() {
	t := &w.tenant
	held := t.holds[:0]
	mixed := false
	for _, h := range t.holds {
		if w.pool.core.Held(w.id, h.chunk) != nil {
			held = append(held, h)
			mixed = mixed || h.uid != held[0].uid
		}
	}
	t.holds = held
	if len(held) == 0 || w.proc == nil {
		return // what it writes now belongs to the task before; or it is said to have begun in a moment
	}
	now := held[0].uid
	if mixed {
		now = nobody
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pages[len(t.pages)-1] == now {
		return
	}
	if len(t.pages) == maxPages {
		t.pages = append(t.pages[:0], t.pages[1:]...)
		t.first++
	}
	t.pages = append(t.pages, now)
	w.proc.Turn(t.first + len(t.pages) - 1)
}

// wroteFor is whose a page of the worker's output is: a uid, or nobody.
func (t *tenant) wroteFor(page int) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := page - t.first; i >= 0 && i < len(t.pages) {
		return t.pages[i]
	}
	return nobody
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
	if exit.Page == 0 {
		e.how = why.Reason // it has had no task, so all this is about the program and nobody's
	}
	return e
}

// whole is all of it; nil for none.
func (e *ending) whole() *pb.WorkerExit {
	if e == nil {
		return nil
	}
	return e.exit
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
