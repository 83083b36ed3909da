package sched

import "time"

// Info describes a pool to people.
type Info struct {
	State      State
	Workers    int // that should run tasks
	Starting   int // that are not ready
	Idle       int
	Busy       int
	Spare      int
	Generation int        // of the workers that are started
	Calls      int        // that have not ended
	Pending    uint64     // tasks that were added and have no outcome…
	Queued     uint64     // …and those of them that no worker holds
	Done       uint64     // tasks that have had one
	Functions  []Function // nil until a worker has said Hello
}

// Activity is what a worker is doing. The numbers are those of the protocol's WorkerState.
type Activity uint8

const (
	Starting Activity = 1
	Idle     Activity = 2
	Busy     Activity = 3
	Leaving  Activity = 4
	Spare    Activity = 5
)

// WorkerInfo describes a worker to people.
type WorkerInfo struct {
	ID         WorkerID
	Generation int
	Activity   Activity
	Started    time.Time
	Done       uint64 // tasks it has ended

	// What it runs, if it is Busy, as far as the core has heard.
	Call    CallID
	Seq     uint64
	Attempt int
	Since   time.Time
}

// CallInfo describes a call to people.
type CallInfo struct {
	ID         CallID
	Opened     bool
	InputEnded bool
	Accepted   uint64 // tasks added…
	Running    int    // …those of them that run…
	Done       uint64 // …those that have their outcome…
	Failed     uint64 // …and those whose outcome is not a value

	// The task that has run longest. OldestSince is zero if none runs.
	Oldest      uint64
	OldestSince time.Time
}

// Info describes the pool.
func (p *Pool) Info() Info {
	i := Info{State: p.State(), Workers: p.target, Starting: p.starting, Spare: p.spares, Generation: p.generation.number, Calls: len(p.calls), Pending: p.pending, Done: p.done}
	for _, c := range p.calls {
		i.Queued += uint64(c.queued)
	}
	for _, f := range p.functions {
		i.Functions = append(i.Functions, f.Function)
	}
	for _, s := range p.slots {
		switch {
		case s.worker == nil || s.worker.state != live || s.worker.spare:
		case s.worker.tasks == 0:
			i.Idle++
		default:
			i.Busy++
		}
	}
	return i
}

// Workers describes the workers.
func (p *Pool) Workers() []WorkerInfo {
	all := make([]WorkerInfo, 0, len(p.workers))
	for _, s := range p.slots {
		if s.worker != nil {
			all = append(all, p.workerInfo(s.worker))
		}
	}
	return all
}

// Worker describes one worker. False if there is none with this id.
func (p *Pool) Worker(id WorkerID) (WorkerInfo, bool) {
	w := p.workers[id]
	if w == nil {
		return WorkerInfo{}, false
	}
	return p.workerInfo(w), true
}

func (p *Pool) workerInfo(w *worker) WorkerInfo {
	i := WorkerInfo{ID: w.id, Generation: w.generation.number, Started: p.time(w.born), Done: w.done}
	switch {
	case w.state < live:
		i.Activity = Starting
	case w.state > live || w.retiring != NoReason:
		i.Activity = Leaving
	case w.spare:
		i.Activity = Spare
	case w.tasks == 0:
		i.Activity = Idle
	default:
		i.Activity = Busy
	}
	if !p.terminated && !w.chunks.empty() {
		k := w.chunks.front.of
		i.Call, i.Seq, i.Attempt, i.Since = k.Call, k.todo.next(), k.Attempt, p.time(w.since)
	}
	return i
}

// Held is a chunk that a worker holds, for a look: which tasks it has. nil if it does not hold it.
func (p *Pool) Held(id WorkerID, chunk ChunkID) *Chunk {
	if w := p.workers[id]; w != nil {
		if k := w.find(chunk); k != nil {
			return &k.Chunk
		}
	}
	return nil
}

// Calls describes the calls that have not ended, in the order of their ids.
func (p *Pool) Calls() []CallInfo {
	all := make([]CallInfo, 0, len(p.calls))
	for _, c := range p.inOrder() {
		i := CallInfo{ID: c.spec.ID, Opened: c.function != nil, InputEnded: c.ended, Accepted: c.accepted, Done: c.done, Failed: c.failed}
		oldest := moment(0)
		for l := c.chunks.front; l != nil; l = l.next {
			k := l.of
			w := k.worker
			if w.chunks.front.of != k {
				continue
			}
			i.Running++
			if oldest == 0 || w.since < oldest {
				oldest, i.Oldest = w.since, k.todo.next()
				i.OldestSince = p.time(oldest)
			}
		}
		all = append(all, i)
	}
	return all
}
