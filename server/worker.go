package server

import (
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"github.com/procpool/procpool/server/internal/sched"
	"github.com/procpool/procpool/workerproc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// worker is what the pool keeps of a worker process. Its fields are owned by the pool's owner, but for child, born, out, tap and attached.
type worker struct {
	id         sched.WorkerID
	name       string // "POOL-NUMBER"
	pool       *pool
	program    *pb.Program
	token      [32]byte
	started    time.Time
	proc       process        // nil until the process has been started, and when that failed
	child      process        // the same, for those who wait for born; never changed after
	born       chan struct{}  // closed when child is there. It never is when the process could not be started
	identity   string         // how surely the one that said Hello is the one that was started
	out        outbox         // to the Attach stream
	attached   chan struct{}  // closed when the Attach stream has been read to its end, or will never come
	killed     sched.Reason   // why it was killed, if it was
	report     *pb.KillReport // what it was doing then
	doing      string         // the same in a few words
	goodbye    bool           // it has said that it ends, so that nothing of what it holds runs
	refused    string         // why it was turned away, if it was, or what it did wrong
	turnedAway bool           // it will never be let in
	tap        tap            // for what it writes
	tenant     tenant         // whose tasks it has
	retired    sched.Reason   // why it was asked to stop, when the pool goes on
	ran        uint64         // tasks, when it was asked to
	memory     int64          // bytes, when they were last looked at
	peak       int64          // most bytes of memory with its children, if somebody has looked
}

// process is a running worker process: workerproc.Process, or goroutines of this process.
type process interface {
	Pid() int
	Terminate() // SIGTERM to its group
	Kill()      // SIGKILL to its group and cgroup
	Wait() workerproc.Exit
	Progress() (workerproc.Progress, bool)
	Hold(f func(pid, pidfd int)) bool // see workerproc.Process, also for the following
	Memory() int64
	Outgrown(limit int64) (bytes int64, yes bool)
	Turn(page int) // of its output
}

// spawn starts a worker process. Forking takes a while, so it is not done here but by the goroutine that then waits for the process.
func (p *pool) spawn(id sched.WorkerID, program *pb.Program) {
	w := &worker{
		id: id, name: fmt.Sprintf("%s-%d", p.name, id), pool: p, program: program, started: time.Now(),
		born: make(chan struct{}), attached: make(chan struct{}), tenant: tenant{pages: []int64{nobody}},
	}
	w.out.init()
	_, _ = rand.Read(w.token[:]) // never fails
	p.workers[id] = w
	p.server.expect(w)
	p.tally.Starts++
	p.procs.Go(w.live)
}

// live is a worker's life, from fork to reaping.
func (w *worker) live() {
	p := w.pool
	proc, err := p.server.start(w)
	if err != nil {
		p.server.unexpect(w)
		exit := &pb.WorkerExit{Worker: w.name, Reason: err.Error(), ExitCode: -1}
		end := &ending{exit: exit, owner: nobody, how: exit.Reason}
		p.post(func(now time.Time) { w.gone(now, sched.Exit{Kind: sched.ExitAbnormal, Why: end}, end) })
		return
	}
	w.child = proc
	close(w.born)
	expected := p.post(func(now time.Time) {
		w.proc = proc
		w.happened(pb.WatchKind_WATCH_KIND_WORKER_STARTED, func(*pb.WatchEvent) {})
		p.core.Spawned(now, w.id)
		if w.killed != 0 { // meanwhile
			proc.Kill()
		}
	})
	if !expected { // the pool has crashed: nobody else knows of it
		proc.Kill()
	}
	exit := proc.Wait()
	if !p.server.unexpect(w) { // it has attached: what it still sent counts
		select {
		case <-w.attached:
		case <-time.After(time.Second): // somebody else holds its socket open
			w.out.close()
		}
	}
	ended := schedExit(exit)
	why := &pb.WorkerExit{
		Worker: w.name, Pid: int64(exit.Pid), ExitCode: int32(exit.Code), Signal: exit.Signal, CoreDumped: exit.CoreDumped,
		CrashReport: exit.CrashReport,
	}
	p.post(func(now time.Time) {
		p.perform(p.core.Settle(now)) // what has been decided about it in this round is part of the reason
		why.Reason, why.Kill = w.reason(exit), w.report
		why.OomKilled, why.PeakMemory = w.oomKilled(exit), uint64(max(w.peak, exit.Account.Peak))
		if ended.Kind == sched.ExitAbnormal && w.turnedAway {
			ended.Kind = sched.ExitPermanent
		}
		if w.goodbye {
			ended.Known, ended.Running = true, false
		}
		end := w.end(why, exit)
		ended.Why = end
		p.tally.DeadCPU += exit.CPU
		w.gone(now, ended, end)
	})
}

// schedExit is the end of a process in the words of the core.
func schedExit(exit workerproc.Exit) sched.Exit {
	e := sched.Exit{Kind: sched.ExitAbnormal}
	switch {
	case exit.Signal == "" && exit.Code == 0:
		e.Kind = sched.ExitClean
	case exit.Code == workerproc.ExitConfig:
		e.Kind = sched.ExitPermanent
	}
	if exit.Record != nil {
		e.Known = true
		e.Running, e.Chunk, e.Offset = exit.Record.Running, sched.ChunkID(exit.Record.Chunk), exit.Record.Offset
		for i := range exit.Record.Results {
			e.Recovered = append(e.Recovered, report(&exit.Record.Results[i]))
		}
	}
	return e
}

// reason says in one line why a worker ended.
func (w *worker) reason(exit workerproc.Exit) string {
	how := exit.String()
	switch text := w.killReason(); {
	case text != "":
		how = text + ": " + how
		if w.doing != "" {
			how += "; " + w.doing
		}
	case w.oomKilled(exit):
		how = w.outOfMemory(exit.Account.AtLimit > 0, exit.Account.Peak) + ": " + how
	case exit.Account.Refused > 0 && w.pool.spec.MaxProcesses > 0:
		how += fmt.Sprintf("; it had reached its limit of %d processes and threads", w.pool.spec.MaxProcesses)
	}
	if w.refused != "" {
		how = w.refused
	}
	switch retirement := w.retirement(); {
	case retirement == "":
		return how
	case exit.Signal == "" && exit.Code == 0:
		return retirement
	default:
		return retirement + ": " + how
	}
}

// oomKilled tells whether the kernel has killed a worker for memory. (Leaky: so does one that somebody kills, if that had happened to a child of it before.)
func (w *worker) oomKilled(exit workerproc.Exit) bool {
	return exit.Signal == "SIGKILL" && exit.Account.OOMKills > 0 && w.killed == sched.NoReason
}

// killReason says in one line why the daemon signals or kills a worker.
func (w *worker) killReason() string {
	spec := w.pool.spec
	switch w.killed {
	case sched.NeverRegistered:
		return fmt.Sprintf("it did not say Hello within the start timeout of %v", spec.StartTimeout.AsDuration())
	case sched.NeverReady:
		return fmt.Sprintf("its init function did not return within the ready timeout of %v", spec.ReadyTimeout.AsDuration())
	case sched.IgnoredStop:
		return fmt.Sprintf("it did not stop within the grace of %v when asked to", spec.CancelGrace.AsDuration())
	case sched.OutOfMemory:
		return w.outOfMemory(true, w.peak)
	default:
		return killReasons[w.killed]
	}
}

var killReasons = map[sched.Reason]string{
	sched.TaskTimedOut:   "a task ran into its timeout and did not return",
	sched.CallCancelled:  "a task was cancelled and did not return",
	sched.DeadlinePassed: "a task did not return when the deadline of its call had passed",
	sched.PoolTerminated: "the pool was terminated",
	sched.Stopping:       "the daemon is stopping",
}

// describeExit is a WorkerExit in one line for a person.
func describeExit(e *pb.WorkerExit) string {
	if e == nil {
		return "no worker has started yet"
	}
	s := e.Reason
	if e.Worker != "" && e.Pid != 0 {
		s = fmt.Sprintf("%s (worker %s, pid %d)", s, e.Worker, e.Pid)
	}
	if len(e.CrashReport) > 0 {
		s += ": " + e.CrashReport[0]
	}
	return s
}

// gone is the end of a worker, on the owner's goroutine.
func (w *worker) gone(now time.Time, exit sched.Exit, end *ending) {
	p, why := w.pool, end.exit
	delete(p.workers, w.id)
	w.out.close()
	stopped := exit.Kind == sched.ExitClean && w.identity != "" || w.retired != sched.NoReason
	if !stopped && w.killed != sched.PoolTerminated {
		p.lastExit.Store(end)
		p.log.Warn("worker ended", "worker", w.name, "pid", why.Pid, "reason", why.Reason)
	} else {
		p.log.Debug("worker ended", "worker", w.name, "pid", why.Pid, "reason", why.Reason)
	}
	w.reportDropped(int(why.Pid))
	why.Time = timestamppb.New(now)
	p.events.exit(end)
	cause := w.exitCause(why)
	p.tally.Exits[cause]++
	w.happened(pb.WatchKind_WATCH_KIND_WORKER_EXITED, func(e *pb.WatchEvent) { e.Reason, e.Cause = why.Reason, cause })
	p.core.Exited(now, w.id, exit)
}

// The following carry out effects, on the owner's goroutine.

func (w *worker) dispatch(c *sched.Chunk) {
	w.lend(c)
	w.out.chunk(wire.Chunk{
		ID: uint64(c.ID), Function: uint32(c.Function), Attempt: uint32(c.Attempt), Items: itemsOf(c.Parts),
		TaskTimeoutNS: uint64(c.TaskTimeout), DeadlineUnixNS: unixNano(c.Deadline), LingerNS: uint64(c.Linger),
	})
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// itemsOf is the items of a chunk: a view of the message they came in, or of several if they are large, or a copy.
func itemsOf(parts []sched.Part) wire.Batch {
	if len(parts) == 1 {
		part := &parts[0]
		return part.Ref.(*segment).batch.Slice(part.From, part.N, part.Off, part.Bytes)
	}
	var b wire.Batch
	size, apart := 0, false
	for i := range parts {
		size += parts[i].Bytes
		apart = apart || parts[i].Ref.(*segment).batch.Apart != nil
	}
	if apart {
		for i := range parts {
			part := &parts[i]
			b.AppendApart(&part.Ref.(*segment).batch, part.From, part.N, part.Off, part.Bytes)
		}
		return b
	}
	b.Data = make([]byte, 0, size)
	for i := range parts {
		part := &parts[i]
		b.AppendRange(&part.Ref.(*segment).batch, part.From, part.N, part.Off)
	}
	return b
}

func (w *worker) cancel(chunk sched.ChunkID, offset int) {
	w.out.head(func(h *pb.AttachResponse) {
		h.Cancels = append(h.Cancels, &pb.CancelTask{Chunk: uint64(chunk), Offset: uint32(offset)})
	})
}

func (w *worker) revoke(chunk sched.ChunkID, from int) {
	w.out.head(func(h *pb.AttachResponse) {
		h.Revokes = append(h.Revokes, &pb.Revoke{Chunk: uint64(chunk), From: uint32(from)})
	})
}

func (w *worker) stop(why sched.Reason) {
	if info, ok := w.pool.core.Worker(w.id); ok {
		w.retired, w.ran = why, info.Done
	}
	w.out.head(func(h *pb.AttachResponse) { h.Stop = &pb.Stop{} })
}

func (w *worker) signal(why sched.Reason) {
	w.condemn(why, "SIGTERM")
	if w.proc != nil {
		w.pool.log.Info("SIGTERM to worker", "worker", w.name, "pid", w.proc.Pid(), "reason", w.killReason(), "doing", w.doing)
		w.proc.Terminate()
	}
}

func (w *worker) kill(why sched.Reason, detail any) {
	w.condemn(why, "SIGKILL")
	if why == sched.Misbehaved {
		w.refused = fmt.Sprintf("it broke the worker protocol: %v", detail)
	}
	if w.proc != nil {
		w.pool.log.Debug("SIGKILL to worker", "worker", w.name, "pid", w.proc.Pid(), "reason", w.killReason(), "doing", w.doing)
		w.proc.Kill()
	}
}

// inspect looks into the worker's progress record: which task runs, and since when. A record that cannot be read says that none does.
func (w *worker) inspect() {
	if w.proc == nil {
		return
	}
	rec, _ := w.proc.Progress()
	w.pool.post(func(now time.Time) {
		w.pool.core.Progress(now, w.id, sched.ChunkID(rec.Chunk), rec.Offset, rec.Started, rec.Running)
	})
}

// The following are news from the worker's stream, on the owner's goroutine.

// registered lets a worker in.
func (w *worker) registered(now time.Time, h *pb.Hello, identity string, welcome *pb.Welcome) {
	p := w.pool
	w.identity = identity
	hello := sched.Hello{CreditTasks: max(1, int(min(h.CreditTasks, 1<<20))), CreditBytes: int(min(h.CreditBytes, 1<<40))}
	if !slices.Contains(welcome.Features, workerproc.FeatureProgress) {
		hello.CreditTasks = 1
	}
	for _, f := range h.Functions {
		hello.Functions = append(hello.Functions, sched.Function{Name: f.Name, Encoding: f.Encoding})
	}
	w.out.head(func(out *pb.AttachResponse) { out.Welcome = welcome })
	w.out.flush()
	p.core.Registered(now, w.id, hello)
	p.log.Debug("worker registered", "worker", w.name, "identity", identity, "sdk", h.Sdk)
}

// said is a message of a registered worker. Tasks given back come before results: the worker may have gone on to another chunk since.
func (w *worker) said(now time.Time, m *wire.AttachRequest) {
	core := w.pool.core
	w.pool.heard = append(w.pool.heard, m)
	h := m.Head
	for _, o := range h.GetOutputs() {
		w.output(o)
	}
	for _, r := range h.GetReturned() {
		core.Returned(now, w.id, sched.ChunkID(r.Chunk), int(r.From))
	}
	for i := range m.Results {
		if v := &m.Results[i].Values; v.Total() > wire.MaxItem && v.Largest() > wire.MaxItem {
			core.Misbehaved(now, w.id, fmt.Sprintf("it reported a result of %d bytes; at most %d are allowed", v.Largest(), wire.MaxItem))
			return
		}
		core.Results(now, w.id, report(&m.Results[i]))
	}
	if n := len(m.Results); n > 0 {
		last := &m.Results[n-1]
		w.out.ack(last.Chunk, last.First+uint32(last.Len()), h.GetAckWanted())
	} else if h.GetAckWanted() {
		w.out.hurry()
	}
	if len(w.tenant.holds) > 1 {
		w.takeStock()
	}
	if h.GetGoodbye() != nil && !w.goodbye {
		w.goodbye = true
		time.AfterFunc(streamGrace, func() { w.pool.post(w.outlived) })
	}
	if ready := h.GetReady(); ready != nil {
		if e := ready.Error; e != nil {
			w.refused = fmt.Sprintf("its init function failed: %s", e.Message)
			return // it exits by itself
		}
		core.Ready(now, w.id)
		w.happened(pb.WatchKind_WATCH_KIND_WORKER_READY, func(*pb.WatchEvent) {})
	}
}

// report is results in the words of the core.
func report(r *wire.ChunkResults) sched.Report {
	rep := sched.Report{
		Chunk: sched.ChunkID(r.Chunk), First: int(r.First), N: r.Len(), Bytes: r.Values.Total(), Ran: time.Duration(min(r.RunNS, 1<<62)), Ref: r,
	}
	for _, f := range r.Failures {
		rep.Failed = append(rep.Failed, sched.Failed{Offset: int(f.Offset), Outcome: sched.Outcome(f.Outcome)})
	}
	return rep
}

// output passes on what a running task writes.
func (w *worker) output(o *pb.TaskOutput) {
	if c := w.pool.core.Held(w.id, sched.ChunkID(o.Chunk)); c != nil && int(o.Offset) < c.N {
		if call := w.pool.calls[c.Call]; call != nil {
			seg, seq, place := taskAt(c.Parts, int(o.Offset))
			call.output(&pb.TaskOutput{Index: seg.index(seq, place), Attempt: uint32(c.Attempt), Stream: o.Stream, Data: o.Data}, w)
			call.flush()
			return
		}
	}
	w.out.credit(len(o.Data)) // nobody wants it any more
	w.out.flush()
}

// taskAt finds the task at a place of a chunk: its segment, its number in the call, and its place in the segment.
func taskAt(parts []sched.Part, offset int) (seg *segment, seq uint64, place int) {
	for i := range parts {
		part := &parts[i]
		if offset < part.N {
			return part.Ref.(*segment), part.Seq + uint64(offset), part.From + offset
		}
		offset -= part.N
	}
	panic(fmt.Sprintf("place %d is beyond the end of its chunk", offset))
}
