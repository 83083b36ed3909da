package sched

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world is everybody around a pool: clients that read slowly, workers that obey, lie and die. The dice decide.
type world struct {
	t       testing.TB
	dice    []byte
	pool    *Pool
	now     time.Time
	workers []*actor
	calls   []*client
	nextID  CallID
	joined  bool

	cfg        Config
	size       int // Workers, as it is now
	generation int // the last one that a worker has been started for
	restart    int // the generation that a restart is to lead to; 0: none
	functions  map[int][]Function
}

type client struct {
	spec      CallSpec
	items     []*Items
	starts    []uint64 // number of the first task of each of items
	added     uint64
	outcomes  []int // per task
	attempts  []int // per task: the last one dispatched
	holder    []WorkerID
	deaths    map[uint64]int      // of workers that had not begun the task whose turn it was
	decided   map[uint64]WorkerID // who has been signalled because of a task
	cancelled []bool
	closed    bool // input has ended
	cancel    bool
	opened    bool
	over      bool
	unread    [][2]int
}

// actor is a worker process.
type actor struct {
	id      WorkerID
	gen     int
	given   int // tasks that it has not given back
	phase   int // 0 spawned, 1 registered, 2 ready
	credit  int
	chunks  []*held
	revokes []held // id and from
	stopped bool
	termed  bool
	killed  bool
	liar    bool
	lied    bool
}

// held is a chunk as its worker knows it.
type held struct {
	id     ChunkID
	call   *client
	seqs   []uint64
	done   int
	end    int
	cancel map[int]bool
}

func (w *world) roll(n int) int {
	if len(w.dice) == 0 {
		return 0
	}
	d := w.dice[0]
	w.dice = w.dice[1:]
	return int(d) % n
}

func (w *world) client(id CallID) *client {
	for _, c := range w.calls {
		if c.spec.ID == id {
			return c
		}
	}
	w.t.Fatalf("effect for unknown call %d", id)
	return nil
}

func (w *world) settle() {
	answered := false
	for _, e := range w.pool.Settle(w.now) {
		if w.joined {
			w.t.Fatalf("%v after joined", e.Kind)
		}
		w.apply(&e)
		answered = answered || e.Kind == Inspect
	}
	if answered {
		w.settle()
		return
	}
	checkPool(w.t, w.pool)
}

func (w *world) actor(id WorkerID) *actor {
	for _, a := range w.workers {
		if a.id == id {
			return a
		}
	}
	return &actor{} // it has exited meanwhile
}

func (w *world) apply(e *Effect) {
	switch e.Kind {
	case Spawn:
		limit := w.size + w.cfg.Spares + b(w.restart != 0)
		if first := e.Generation > w.generation; len(w.workers) >= limit && !first {
			w.t.Fatalf("process %d of %d is started", len(w.workers)+1, limit)
		}
		w.generation = max(w.generation, e.Generation)
		w.workers = append(w.workers, &actor{id: e.Worker, gen: e.Generation, liar: w.roll(8) == 7})
	case Dispatch:
		a, c, k := w.actor(e.Worker), w.client(e.Call), e.Chunk
		if a.phase != 2 || a.killed || a.termed || a.stopped {
			w.t.Fatalf("dispatch to worker %d, which cannot work", a.id)
		}
		h := &held{id: k.ID, call: c, end: k.N, cancel: map[int]bool{}}
		if got := w.functions[a.gen][k.Function].Name; got != c.spec.Function {
			w.t.Fatalf("worker %d of generation %d is to run %s for %s", a.id, a.gen, got, c.spec.Function)
		}
		if a.given += k.N; w.cfg.MaxTasks > 0 && a.given > w.cfg.MaxTasks {
			w.t.Fatalf("worker %d has been given %d tasks, want at most %d", a.id, a.given, w.cfg.MaxTasks)
		}
		n := 0
		for _, p := range k.Parts {
			w.checkPart(c, &p)
			n += p.N
			for i := range p.N {
				seq := p.Seq + uint64(i)
				switch {
				case c.outcomes[seq] > 0:
					w.t.Fatalf("call %d: task %d is dispatched after its outcome", e.Call, seq)
				case c.cancelled[seq] || c.cancel:
					w.t.Fatalf("call %d: task %d is dispatched after its cancel", e.Call, seq)
				case c.holder[seq] != 0:
					w.t.Fatalf("call %d: task %d is dispatched to worker %d while %d holds it", e.Call, seq, a.id, c.holder[seq])
				case k.Attempt > c.spec.MaxAttempts:
					w.t.Fatalf("call %d: task %d is dispatched for attempt %d of %d", e.Call, seq, k.Attempt, c.spec.MaxAttempts)
				case k.Attempt != c.attempts[seq]+1:
					w.t.Fatalf("call %d: task %d is dispatched for attempt %d after %d", e.Call, seq, k.Attempt, c.attempts[seq])
				}
				c.holder[seq] = a.id
				h.seqs = append(h.seqs, seq)
			}
		}
		if n != k.N || n == 0 {
			w.t.Fatalf("chunk %d says %d tasks, its parts %d", k.ID, k.N, n)
		}
		a.chunks = append(a.chunks, h)
	case CancelTask:
		for _, h := range w.actor(e.Worker).chunks {
			if h.id == e.ChunkID {
				h.cancel[e.Offset] = true
			}
		}
	case Revoke:
		a := w.actor(e.Worker)
		a.revokes = append(a.revokes, held{id: e.ChunkID, end: e.Offset})
	case Stop:
		a := w.actor(e.Worker)
		if a.stopped {
			w.t.Fatalf("worker %d is asked to stop for the second time, %v", a.id, e.Reason)
		}
		a.stopped = true
	case Restarted:
		if e.Generation != w.restart {
			w.t.Fatalf("the restart to generation %d ends, want %d", e.Generation, w.restart)
		}
		w.restart = 0
		for _, a := range w.workers {
			if e.Reason == NoReason && a.gen != e.Generation {
				w.t.Fatalf("the restart to generation %d has ended, and there is worker %d of generation %d", e.Generation, a.id, a.gen)
			}
		}
	case Signal:
		a := w.actor(e.Worker)
		a.termed = true
		of := w.pool.workers[a.id]
		for _, h := range a.chunks {
			if of != nil && h.id == of.condemned {
				h.call.decided[h.seqs[of.offset]] = a.id
			}
		}
	case Kill:
		w.actor(e.Worker).killed = true
	case Inspect:
		a := w.actor(e.Worker)
		if w.roll(4) == 0 || len(a.chunks) == 0 {
			w.pool.Progress(w.now, a.id, 0, 0, w.now, false)
		} else {
			h := a.chunks[0]
			ran := h.done + w.roll(max(1, min(3, h.end-h.done))) // the reports of some may wait
			w.pool.Progress(w.now, a.id, h.id, ran, w.now.Add(-time.Duration(w.roll(200))*100*time.Millisecond), true)
		}
	case Opened:
		c := w.client(e.Call)
		if c.opened || c.over {
			w.t.Fatalf("call %d is opened twice", e.Call)
		}
		c.opened = true
	case Refused:
		c := w.client(e.Call)
		if c.opened || c.over {
			w.t.Fatalf("call %d is refused, but opened %v, over %v", e.Call, c.opened, c.over)
		}
		c.over = true
	case Deliver:
		w.deliver(e)
	case Ended:
		c := w.client(e.Call)
		if c.over {
			w.t.Fatalf("call %d ends twice", e.Call)
		}
		c.over = true
		for seq, n := range c.outcomes {
			if n != 1 {
				w.t.Fatalf("call %d ends, but task %d has %d outcomes", e.Call, seq, n)
			}
		}
	case StateChange:
		w.joined = e.State == Joined
	}
}

func (w *world) deliver(e *Effect) {
	c, d := w.client(e.Call), e.Delivery
	if c.over {
		w.t.Fatalf("call %d: outcome after its end", e.Call)
	}
	n := 0
	for i := range d.Parts {
		p := &d.Parts[i]
		w.checkPart(c, p)
		for j := range p.N {
			seq := p.Seq + uint64(j)
			if c.outcomes[seq]++; c.outcomes[seq] > 1 {
				w.t.Fatalf("call %d: task %d has a second outcome, %v", e.Call, seq, d.Outcome)
			}
			if d.Outcome == Value {
				if c.decided[seq] == d.Worker {
					w.t.Fatalf("call %d: task %d has a value from worker %d, which was signalled because of it", e.Call, seq, d.Worker)
				}
				// The script of a report in this world: it carries the number of its first task.
				if want := d.Report.Ref.([]uint64)[d.First-d.Report.First+n]; want != seq {
					w.t.Fatalf("call %d: task %d is delivered with the value of %d", e.Call, seq, want)
				}
			}
			c.holder[seq] = 0
			n++
		}
	}
	if n != d.N || n == 0 {
		w.t.Fatalf("call %d: delivery says %d tasks, its parts %d", e.Call, d.N, n)
	}
	c.unread = append(c.unread, [2]int{d.N, d.Bytes})
}

// checkPart compares a part with what was added.
func (w *world) checkPart(c *client, p *Part) {
	for i, items := range c.items {
		if p.Ref != any(items) {
			continue
		}
		size := func(from, n int) int {
			sum := 0
			for j := range n {
				if items.Sizes != nil {
					sum += int(items.Sizes[from+j])
				} else {
					sum += int(items.ItemSize)
				}
			}
			return sum
		}
		if p.N <= 0 || p.From+p.N > items.N || p.Seq != c.starts[i]+uint64(p.From) || p.Off != size(0, p.From) || p.Bytes != size(p.From, p.N) {
			w.t.Fatalf("call %d: part %+v does not fit items that begin at %d", c.spec.ID, *p, c.starts[i])
		}
		return
	}
	w.t.Fatalf("call %d: part of items that were not added to it", c.spec.ID)
}

// step is something that happens.
func (w *world) step() {
	switch w.roll(16) {
	case 0:
		w.open()
	case 1, 2, 3:
		w.add()
	case 4:
		if c := w.anyCall(); c != nil && w.roll(2) == 0 {
			c.closed = true
			w.pool.EndInput(w.now, c.spec.ID)
		}
	case 5:
		if c := w.anyCall(); c != nil {
			w.cancel(c)
		}
	case 6:
		w.read()
	case 7, 8, 9, 10, 11:
		if a := w.anyWorker(); a != nil {
			w.work(a)
		}
	case 12:
		if a := w.anyWorker(); a != nil {
			w.answer(a)
		}
	case 13:
		if a := w.anyWorker(); a != nil && w.roll(3) == 0 {
			w.die(a)
		}
	case 14:
		w.now = w.now.Add(time.Duration(w.roll(100)) * 100 * time.Microsecond)
		w.settle()
	case 15:
		switch w.roll(24) {
		case 0:
			w.pool.Close(w.now)
		case 1:
			w.pool.Terminate(w.now, []Reason{NoReason, Stopping}[w.roll(2)])
			for _, c := range w.calls {
				c.closed = true
				clear(c.holder)
			}
		case 2, 3, 4, 5:
			w.now = w.now.Add(time.Duration(w.roll(200)) * 100 * time.Millisecond)
			w.settle()
		case 6:
			w.lie()
		case 7, 8, 9:
			w.size = 1 + w.roll(5)
			w.pool.Resize(w.now, w.size)
		case 10, 11, 12:
			w.renew()
		case 13, 14, 15:
			if a := w.anyWorker(); a != nil {
				w.pool.Memory(w.now, a.id, int64(w.roll(2000)))
				if w.roll(8) == 0 {
					w.pool.Outgrew(w.now, a.id)
				}
			}
		}
	}
}

func (w *world) anyCall() *client {
	if len(w.calls) == 0 {
		return nil
	}
	return w.calls[w.roll(len(w.calls))]
}

func (w *world) anyWorker() *actor {
	if len(w.workers) == 0 {
		return nil
	}
	return w.workers[w.roll(len(w.workers))]
}

func (w *world) open() {
	if len(w.calls) > 8 || w.joined {
		return
	}
	w.nextID++
	spec := CallSpec{
		ID: w.nextID, UID: uint32(w.roll(3)), Weight: w.roll(3), Function: []string{"f", "f", "f", "g", "missing"}[w.roll(5)],
		ChunkSize: w.roll(4), MaxAttempts: 1 + w.roll(3), RetryOn: Outcomes(w.roll(256)) & (1<<WorkerLost | 1<<TaskError | 1<<Timeout),
	}
	if w.roll(3) == 0 {
		spec.TaskTimeout = time.Duration(1+w.roll(20)) * 100 * time.Millisecond
	}
	if w.roll(3) == 0 {
		spec.QueueTimeout = time.Duration(1+w.roll(20)) * 10 * time.Millisecond
	}
	w.calls = append(w.calls, &client{spec: spec, decided: map[uint64]WorkerID{}})
	w.pool.Open(w.now, spec)
}

func (w *world) add() {
	c := w.anyCall()
	if c == nil || c.closed || c.over {
		return
	}
	items := &Items{N: 1 + w.roll(60), ItemSize: uint32(w.roll(3))}
	if w.roll(2) == 0 {
		items.Sizes = make([]uint32, items.N)
		for i := range items.Sizes {
			items.Sizes[i] = uint32(w.roll(8))
		}
	}
	items.Ref = items
	c.items, c.starts = append(c.items, items), append(c.starts, c.added)
	c.added += uint64(items.N)
	n := int(c.added)
	for len(c.outcomes) < n {
		c.outcomes, c.attempts, c.holder = append(c.outcomes, 0), append(c.attempts, 0), append(c.holder, 0)
		c.cancelled = append(c.cancelled, false)
	}
	w.pool.Add(w.now, c.spec.ID, *items)
	w.settle()
}

func (w *world) cancel(c *client) {
	if w.roll(3) == 0 {
		w.pool.Cancel(w.now, c.spec.ID, NoReason)
		c.cancel, c.closed = true, true
		return
	}
	var seqs []uint64
	for range w.roll(20) {
		if c.added > 0 {
			seq := uint64(w.roll(256)) % c.added
			seqs = append(seqs, seq)
			c.cancelled[seq] = true
		}
	}
	w.pool.CancelTasks(w.now, c.spec.ID, seqs)
}

func (w *world) read() {
	if c := w.anyCall(); c != nil && len(c.unread) > 0 {
		w.pool.Written(w.now, c.spec.ID, c.unread[0][0], c.unread[0][1])
		c.unread = c.unread[1:]
	}
}

// renew begins a restart, to a program that may offer other functions.
func (w *world) renew() {
	n := w.pool.Restart(w.now)
	if n == 0 {
		return
	}
	if w.restart != 0 {
		w.t.Fatalf("restart to generation %d while the one to %d goes on", n, w.restart)
	}
	w.restart = n
	w.functions[n] = [][]Function{
		functions, functions, {{"g", "bytes"}, {"f", "json"}}, {{"missing", "json"}, {"f", "json"}, {"g", "bytes"}}, {{"g", "bytes"}}, {{"f", "proto"}, {"g", "bytes"}},
	}[w.roll(6)]
}

var functions = []Function{{"f", "json"}, {"g", "bytes"}}

// work is a worker doing what comes next.
func (w *world) work(a *actor) {
	switch {
	case a.killed:
		w.die(a)
	case a.phase == 0:
		w.pool.Spawned(w.now, a.id)
		a.credit = []int{1, 4, 1024}[w.roll(3)]
		w.pool.Registered(w.now, a.id, Hello{w.functions[a.gen], a.credit, 10 + 40*w.roll(4)})
		a.phase = 1
	case a.phase == 1:
		if a.stopped || a.termed {
			w.die(a)
			return
		}
		w.pool.Ready(w.now, a.id)
		a.phase = 2
	case a.liar && w.roll(8) == 7:
		// Nobody listens to it any more, and it will be killed.
		w.pool.Results(w.now, a.id, Report{Chunk: 1 << 40, N: 1})
		a.lied, a.killed = true, true
	case len(a.chunks) > 0:
		w.pool.Results(w.now, a.id, w.report(a, 1+w.roll(40)))
	case a.stopped || a.termed:
		w.die(a)
	}
	w.settle()
}

// report is the next tasks of what a runs, n at most.
func (w *world) report(a *actor, n int) Report {
	h := a.chunks[0]
	n = min(n, h.end-h.done)
	r := Report{Chunk: h.id, First: h.done, N: n, Bytes: w.roll(50), Ran: time.Duration(w.roll(100)) * 20 * time.Microsecond * time.Duration(n)}
	r.Ref = h.seqs[h.done : h.done+n]
	for i := h.done; i < h.done+n; i++ {
		o := Value
		switch {
		case h.cancel[i]:
			o = Cancelled
		case w.roll(10) == 9:
			o = []Outcome{TaskError, Timeout}[w.roll(2)]
		}
		if o != Value {
			r.Failed = append(r.Failed, Failed{i, o})
		}
		if h.call.decided[h.seqs[i]] == a.id {
			o = Timeout // whatever a says; or Cancelled
		}
		if c, seq := h.call, h.seqs[i]; c.attempts[seq]+1 < c.spec.MaxAttempts && c.retryOn().Has(o) && !c.cancel && !c.cancelled[seq] {
			c.attempts[seq]++
			c.holder[seq] = 0
		}
	}
	h.done += n
	if h.done == h.end {
		a.chunks = a.chunks[1:]
	}
	return r
}

func (c *client) retryOn() Outcomes {
	if c.spec.RetryOn == 0 {
		return 1 << WorkerLost
	}
	return c.spec.RetryOn
}

// answer is a worker giving tasks back.
func (w *world) answer(a *actor) {
	if len(a.revokes) == 0 || a.killed {
		return
	}
	r := a.revokes[0]
	a.revokes = a.revokes[1:]
	from := r.end
	for i, h := range a.chunks {
		if h.id != r.id {
			continue
		}
		running := b(i == 0)
		from = min(max(from, h.done+running), h.end)
		for _, seq := range h.seqs[from:h.end] {
			h.call.holder[seq] = 0
		}
		a.given -= h.end - from
		h.end = from
		if h.done == h.end {
			a.chunks = append(a.chunks[:i:i], a.chunks[i+1:]...)
		}
		break
	}
	w.pool.Returned(w.now, a.id, r.id, from)
	w.settle()
}

// die is the end of a worker, between tasks or under one, with or without a record.
func (w *world) die(a *actor) {
	x := Exit{Kind: ExitKind(w.roll(2)), Known: a.credit != 1, Why: "died"}
	if len(a.chunks) > 0 {
		if x.Known && !a.lied && w.roll(2) == 0 {
			h := a.chunks[0]
			r := w.report(a, 1+w.roll(5))
			// Some of it has come by the stream as well.
			over := min(w.roll(3), r.First)
			r.First, r.N, r.Ref = r.First-over, r.N+over, h.seqs[r.First-over:r.First+r.N]
			x.Recovered = append(x.Recovered, r)
		}
	}
	for _, h := range a.chunks {
		for _, seq := range h.seqs[h.done:h.end] {
			h.call.holder[seq] = 0
		}
	}
	if len(a.chunks) > 0 {
		running := !x.Known || a.lied || w.roll(2) == 0
		if h := a.chunks[0]; running {
			x.Running, x.Chunk, x.Offset = x.Known, h.id, h.done
		}
		if c, seq, ok := w.guilty(a, &x, running); ok { // what follows is another attempt, if any
			c.attempts[seq]++
		}
	}
	for i, other := range w.workers {
		if other == a {
			w.workers = append(w.workers[:i:i], w.workers[i+1:]...)
			break
		}
	}
	w.pool.Exited(w.now, a.id, x)
	w.settle()
}

// guilty is the task to blame for the end of a.
func (w *world) guilty(a *actor, x *Exit, running bool) (c *client, seq uint64, ok bool) {
	h, of := a.chunks[0], w.pool.workers[a.id]
	c, seq = h.call, h.seqs[h.done]
	if running {
		return c, seq, !x.Known || a.lied || !w.cut(a, h)
	}
	for _, h := range a.chunks {
		if h.id == of.condemned && of.offset >= h.done && of.offset < h.end {
			return h.call, h.seqs[of.offset], true
		}
	}
	if x.Kind != ExitAbnormal || of.reason != NoReason {
		return nil, 0, false
	}
	if c.deaths == nil {
		c.deaths = make(map[uint64]int)
	}
	c.deaths[seq]++
	return c, seq, c.deaths[seq] >= tolerated
}

// cut tells whether a runs a task that it began after the one for which it was signalled.
func (w *world) cut(a *actor, h *held) bool {
	of, seq := w.pool.workers[a.id], h.seqs[h.done]
	return of.condemned != 0 && (h.id > of.condemned || h.id == of.condemned && h.done > of.offset) && !h.call.cancel && !h.call.cancelled[seq]
}

// lie is nonsense: foreign ids, impossible places.
func (w *world) lie() {
	id := WorkerID(w.roll(20))
	for _, a := range w.workers {
		if a.id == id && a.phase == 2 {
			return // would be Misbehaved, which testdata/misbehave.txt tells about
		}
	}
	w.pool.Results(w.now, id, Report{Chunk: ChunkID(w.roll(50)), First: w.roll(5), N: w.roll(5)})
	w.pool.Returned(w.now, id, ChunkID(w.roll(50)), w.roll(5))
	w.pool.Progress(w.now, id, ChunkID(w.roll(50)), w.roll(5), w.now, true)
	w.pool.Exited(w.now, WorkerID(1000+w.roll(5)), Exit{})
	w.pool.Ready(w.now, WorkerID(1000))
	w.pool.Add(w.now, CallID(1000), Items{N: 1})
	w.pool.Cancel(w.now, CallID(1000), NoReason)
	w.pool.Written(w.now, CallID(1000), 1, 1)
}

// finish lets everybody behave until nothing happens any more.
func (w *world) finish(end func()) {
	w.dice = nil
	for _, c := range w.calls {
		c.closed = true
		w.pool.EndInput(w.now, c.spec.ID)
	}
	w.settle()
	done := w.pool.done
	for i := 0; w.restart != 0 || slices.ContainsFunc(w.calls, func(c *client) bool { return !c.over }); i++ {
		if w.pool.done != done { // a worker with one credit takes its time with a long call
			done, i = w.pool.done, 0
		}
		if i > 10_000 {
			w.t.Fatalf("nothing goes on: restart to %d, state %v, %d calls, %d workers", w.restart, w.pool.State(), len(w.pool.calls), len(w.pool.workers))
		}
		w.behave(100 * time.Millisecond)
	}
	end()
	w.settle()
	for i := 0; !w.joined; i++ {
		if i > 10_000 {
			w.t.Fatalf("not joined: state %v, %d calls, %d workers", w.pool.State(), len(w.pool.calls), len(w.pool.workers))
		}
		w.behave(time.Millisecond)
	}
	if w.restart != 0 {
		w.t.Fatalf("nobody was told of the end of the restart to generation %d", w.restart)
	}
	for _, c := range w.calls {
		if !c.over {
			w.t.Fatalf("call %d has not ended", c.spec.ID)
		}
	}
	if n := len(w.pool.calls) + len(w.pool.workers); n > 0 || w.pool.pending > 0 {
		w.t.Fatalf("%d calls and workers, %d tasks are left", n, w.pool.pending)
	}
	w.now = w.now.Add(time.Hour)
	w.settle()
}

// behave is everybody doing what they should, and then some time.
func (w *world) behave(d time.Duration) {
	for _, c := range w.calls {
		for _, u := range c.unread {
			w.pool.Written(w.now, c.spec.ID, u[0], u[1])
		}
		c.unread = nil
	}
	for _, a := range append([]*actor(nil), w.workers...) {
		for len(a.revokes) > 0 && !a.killed {
			w.answer(a)
		}
		w.work(a)
	}
	w.settle()
	if at, ok := w.pool.NextDeadline(); ok && len(w.workers) == 0 {
		w.now = at
	} else {
		w.now = w.now.Add(d)
	}
}

func simulate(t testing.TB, dice []byte) {
	t.Helper()
	w := &world{t: t, dice: dice, now: time.Unix(1_000_000_000, 0), functions: map[int][]Function{1: functions}, generation: 1}
	w.cfg = Config{
		Workers: 1 + w.roll(4), WindowBytes: 100 + 100*w.roll(10), MaxChunkTasks: 8 + w.roll(60), MaxChunkBytes: 20 + w.roll(200),
		Spares: w.roll(3), Rand: func() float64 { return float64(w.roll(10)) / 10 },
	}
	if w.roll(2) == 0 {
		w.cfg.MaxTasks = 1 + w.roll(40)
	}
	if w.roll(2) == 0 {
		w.cfg.MaxAge = time.Duration(1+w.roll(20)) * 100 * time.Millisecond
	}
	if w.roll(2) == 0 {
		w.cfg.MaxIdle, w.cfg.MinWorkers = time.Duration(1+w.roll(20))*100*time.Millisecond, w.roll(3)
	}
	if w.roll(2) == 0 {
		w.cfg.DrainMemory = 1000
	}
	w.size = w.cfg.Workers
	w.pool = New(w.cfg)
	w.settle()
	for len(w.dice) > 0 && !w.joined {
		w.step()
		if w.roll(2) == 0 {
			w.settle()
		}
		w.calls = slices.DeleteFunc(w.calls, func(c *client) bool { return c.over })
	}
	if w.joined {
		return
	}
	w.finish(func() { w.pool.Close(w.now) })
}

func TestNothingBreaksThePromises(t *testing.T) {
	t.Parallel()
	runs := 1000
	if testing.Short() {
		runs = 200
	}
	for seed := range runs {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		dice := make([]byte, 200+r.IntN(4000))
		for i := range dice {
			dice[i] = byte(r.Uint32())
		}
		func() {
			defer func() {
				if t.Failed() {
					t.Logf("seed %d", seed)
				}
			}()
			simulate(t, dice)
		}()
	}
}

func FuzzPool(f *testing.F) {
	for seed := range 8 {
		r := rand.New(rand.NewPCG(uint64(seed), 2))
		dice := make([]byte, 2000)
		for i := range dice {
			dice[i] = byte(r.Uint32())
		}
		f.Add(dice)
	}
	f.Fuzz(func(t *testing.T, dice []byte) { simulate(t, dice) })
}
