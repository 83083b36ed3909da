package sched

import (
	"math"
	"slices"
	"testing"
	"time"
)

// crew is workers that are ready as soon as they are spawned, and run one task per step of a microsecond.
type crew struct {
	t        *testing.T
	pool     *Pool
	now      time.Time
	work     map[WorkerID][]*told
	seqs     map[ChunkID][]uint64
	kills    func(seq uint64) bool // does this task kill its worker?
	bytes    int                   // of each result
	read     bool                  // the client reads at once
	outcomes map[Outcome]int
	spawned  int
	degraded bool
	unread   int
	most     int // unread bytes
	ended    bool
}

func newCrew(t *testing.T, cfg Config) *crew {
	t.Helper()
	c := &crew{
		t: t, pool: New(cfg), now: time.Unix(1_000_000_000, 0), read: true, kills: func(uint64) bool { return false },
		work: map[WorkerID][]*told{}, seqs: map[ChunkID][]uint64{}, outcomes: map[Outcome]int{},
	}
	c.settle()
	return c
}

func (c *crew) settle() {
	effects := c.pool.Settle(c.now)
	for i := range effects {
		switch e := &effects[i]; e.Kind {
		case Spawn:
			c.spawned++
			c.work[e.Worker] = nil
			c.pool.Registered(c.now, e.Worker, Hello{functions, 1024, 64 << 20})
			c.pool.Ready(c.now, e.Worker)
			defer c.settle()
		case Dispatch:
			c.work[e.Worker] = append(c.work[e.Worker], &told{id: e.ChunkID, n: e.Chunk.N})
			for _, p := range e.Chunk.Parts {
				for j := range p.N {
					c.seqs[e.ChunkID] = append(c.seqs[e.ChunkID], p.Seq+uint64(j))
				}
			}
		case Revoke:
			for _, k := range c.work[e.Worker] {
				if k.id == e.ChunkID {
					k.n = max(k.done, e.Offset)
				}
			}
			c.pool.Returned(c.now, e.Worker, e.ChunkID, e.Offset)
		case Deliver:
			d := e.Delivery
			c.outcomes[d.Outcome] += d.N
			c.unread += d.Bytes
			c.most = max(c.most, c.unread)
			if c.read {
				c.pool.Written(c.now, e.Call, d.N, d.Bytes)
				c.unread = 0
			}
		case StateChange:
			c.degraded = c.degraded || e.State == Degraded
		case Ended:
			c.ended = true
		}
	}
}

// run lets the workers run until the call has ended, or nothing happens any more.
func (c *crew) run() {
	for moved := true; moved && !c.ended; {
		moved = false
		for _, info := range c.pool.Workers() {
			w := info.ID
			for len(c.work[w]) > 0 && c.work[w][0].done >= c.work[w][0].n {
				c.work[w] = c.work[w][1:]
			}
			if len(c.work[w]) == 0 {
				continue
			}
			moved = true
			k := c.work[w][0]
			c.now = c.now.Add(time.Microsecond)
			if c.kills(c.seqs[k.id][k.done]) {
				delete(c.work, w)
				c.pool.Exited(c.now, w, Exit{Known: true, Running: true, Chunk: k.id, Offset: k.done, Why: "killed"})
			} else {
				c.pool.Results(c.now, w, Report{Chunk: k.id, First: k.done, N: 1, Bytes: c.bytes, Ran: time.Microsecond})
				k.done++
			}
			c.settle()
		}
		checkPool(c.t, c.pool)
	}
}

func (c *crew) call(spec CallSpec, n, size int) {
	spec.ID, spec.Function = 1, "f"
	c.pool.Open(c.now, spec)
	c.pool.Add(c.now, 1, Items{N: n, ItemSize: uint32(size)})
	c.pool.EndInput(c.now, 1)
	c.settle()
}

func TestTasksThatKillTheirWorkersHarmNoOthers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		n     int
		every uint64
	}{{"one in a hundred", 10_000, 100}, {"every one", 500, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCrew(t, Config{Workers: 2})
			c.kills = func(seq uint64) bool { return seq%tt.every == 0 }
			start := c.now
			c.call(CallSpec{}, tt.n, 1)
			c.run()
			lost := tt.n / int(tt.every)
			if got, want := c.outcomes[WorkerLost], lost; got != want {
				t.Errorf("%d tasks were lost, want %d", got, want)
			}
			if got, want := c.outcomes[Value], tt.n-lost; got != want {
				t.Errorf("%d tasks have values, want %d", got, want)
			}
			if !c.ended || c.degraded {
				t.Errorf("ended %v, degraded %v; want an end, and no state change", c.ended, c.degraded)
			}
			if got, want := c.spawned, lost+2; got != want {
				t.Errorf("%d processes were started, want %d", got, want)
			}
			if d := c.now.Sub(start); d > time.Second {
				t.Errorf("took %v: there was a back-off", d)
			}
		})
	}
}

func TestRetriesOfTasksThatKillTheirWorkersEnd(t *testing.T) {
	t.Parallel()
	c := newCrew(t, Config{Workers: 3})
	tries := 0
	c.kills = func(seq uint64) bool {
		if seq == 5 {
			tries++
		}
		return seq == 5
	}
	c.call(CallSpec{MaxAttempts: 4}, 20, 1)
	c.run()
	if tries != 4 || c.outcomes[WorkerLost] != 1 || c.outcomes[Value] != 19 || !c.ended {
		t.Errorf("%d attempts, outcomes %v, ended %v; want 4 attempts, 1 lost, 19 values, an end", tries, c.outcomes, c.ended)
	}
}

func TestResultsOfASlowReaderAreBounded(t *testing.T) {
	t.Parallel()
	for _, size := range []int{4000, 64 << 10, 1 << 20, 8 << 20} {
		c := newCrew(t, Config{Workers: 4})
		c.read, c.bytes = false, size
		c.call(CallSpec{}, 10_000, 1)
		c.run()
		limit := 16<<20 + 4*max(1<<20, size)
		if c.most < 16<<20 || c.most > limit {
			t.Errorf("results of %d bytes: %d are unread, want between the window and %d", size, c.most, limit)
		}
		c.read, c.bytes = true, 0
		c.pool.Written(c.now, 1, c.outcomes[Value], c.unread)
		c.settle()
		c.run()
		if !c.ended {
			t.Errorf("results of %d bytes: the call does not go on when they have been read", size)
		}
	}
}

func TestChunksKeepToTheirSizeInBytes(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1000, 100 << 10, 1 << 20, 5 << 20} {
		c := newCrew(t, Config{Workers: 1, MaxChunkBytes: 1 << 20})
		c.call(CallSpec{}, 200, size)
		c.run()
		if c.outcomes[Value] != 200 {
			t.Errorf("items of %d bytes: %d outcomes, want 200", size, c.outcomes[Value])
		}
		for id, seqs := range c.seqs {
			if n := len(seqs); n > 1 && n*size > 1<<20 {
				t.Errorf("chunk %d has %d items of %d bytes, want at most 1 MiB", id, n, size)
			}
		}
	}
}

// TestTasksOfReportsThatComeTogetherHaveRun: the first one does not say for how long, as a worker does that had to send before its claim was over.
func TestTasksOfReportsThatComeTogetherHaveRun(t *testing.T) {
	t.Parallel()
	c := newCrew(t, Config{Workers: 1})
	c.call(CallSpec{}, 100, 1)
	for _, w := range c.pool.Workers() {
		for c.work[w.ID][0].n < 5 {
			k := c.work[w.ID][0]
			c.now = c.now.Add(time.Microsecond)
			c.pool.Results(c.now, w.ID, Report{Chunk: k.id, N: k.n, Ran: time.Microsecond})
			c.work[w.ID] = c.work[w.ID][1:]
			c.settle()
		}
		k := c.work[w.ID][0]
		c.now = c.now.Add(time.Millisecond)
		c.pool.Results(c.now, w.ID, Report{Chunk: k.id, N: 2})
		c.pool.Results(c.now, w.ID, Report{Chunk: k.id, First: 2, N: 3, Ran: time.Microsecond})
		n := 0
		for _, e := range c.pool.Settle(c.now) {
			if e.Kind != Deliver {
				continue
			}
			if n += e.Delivery.N; e.Delivery.Ran <= 0 {
				t.Errorf("%d tasks from %d on have not run", e.Delivery.N, e.Delivery.First)
			}
		}
		if n != 5 {
			t.Errorf("%d tasks are delivered, want 5", n)
		}
	}
	checkPool(t, c.pool)
}

func TestAnItemThatIsTooLargeIsRejectedAlone(t *testing.T) {
	t.Parallel()
	p := New(Config{Workers: 1, MaxItem: 10})
	now := time.Unix(1_000_000_000, 0)
	p.Settle(now)
	p.Open(now, CallSpec{ID: 1, Function: "f"})
	p.Add(now, 1, Items{Sizes: []uint32{1, 10, 11, 3, 12}})
	var got []uint64
	for _, e := range p.Settle(now) {
		if e.Kind == Deliver && e.Delivery.Outcome == Rejected && e.Delivery.Reason == TooLarge {
			got = append(got, e.Delivery.Parts[0].Seq)
		}
	}
	if len(got) != 2 || got[0] != 2 || got[1] != 4 {
		t.Errorf("tasks %v are rejected, want 2 and 4", got)
	}
	checkPool(t, p)
}

func TestBackoffIsSpreadByAFifth(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rand float64
		n    int
		want time.Duration
	}{{0, 0, 80 * time.Millisecond}, {0.5, 0, 100 * time.Millisecond}, {0.5, 3, 800 * time.Millisecond}, {0.5, 100, 30 * time.Second}, {0.25, 100, 27 * time.Second}} {
		p := New(Config{Rand: func() float64 { return tt.rand }})
		if got := p.backoff(tt.n); got != tt.want {
			t.Errorf("back-off after %d failures with %v: %v, want %v", tt.n+1, tt.rand, got, tt.want)
		}
	}
}

// Workers that began together do not leave together: how much each may have is drawn.
func TestWhatAWorkerMayHaveIsDrawn(t *testing.T) {
	t.Parallel()
	const minute = time.Minute
	for _, tt := range []struct {
		rand   float64
		tasks  int
		age    moment
		idle   moment
		memory int64
	}{
		{0, 1000, minute * 9 / 10, minute * 9 / 10, 1000},
		{0.5, 950, minute, minute, 950},
		{0.75, 925, minute * 105 / 100, minute * 105 / 100, 925},
	} {
		p := New(Config{MaxTasks: 1000, MaxAge: time.Minute, MaxIdle: time.Minute, DrainMemory: 1000, Rand: func() float64 { return tt.rand }})
		w := &worker{}
		p.span(w)
		if w.left != tt.tasks || w.expires != tt.age || w.rests != tt.idle || w.drain != tt.memory {
			t.Errorf("with %v a worker has %d tasks, %v of age, %v of idleness and %d bytes, want %+v", tt.rand, w.left, w.expires, w.rests, w.drain, tt)
		}
	}
	for _, dice := range [][]float64{{0.1, 0.9, 0.5}, {0.9, 0.1, 0.5}} {
		draws := dice
		c := newCrew(t, Config{Workers: 3, MaxIdle: time.Minute, Rand: func() float64 {
			d := draws[0]
			draws = draws[1:]
			return d
		}})
		var left []time.Duration
		began := c.now
		for range 3 {
			at, ok := c.pool.NextDeadline()
			if !ok {
				t.Fatal("nobody will leave")
			}
			c.now = at
			for _, e := range c.pool.Settle(c.now) {
				if e.Kind == Stop && e.Reason == IdleTooLong {
					left = append(left, c.now.Sub(began))
					c.pool.Exited(c.now, e.Worker, Exit{Kind: ExitClean})
				}
			}
			c.settle()
		}
		want := []time.Duration{55200 * time.Millisecond, time.Minute, 64800 * time.Millisecond}
		if !slices.Equal(left, want) {
			t.Errorf("with %v workers leave after %v, want %v", dice, left, want)
		}
	}
}

// A time may be as long as it likes, or negative: no deadline lies in the past because of it, where Settle would find it for ever.
func TestNoTimeIsTooLong(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{math.MaxInt64, math.MaxInt64 / 2, math.MinInt64} {
		p := New(Config{
			Workers: 1, StartTimeout: d, ReadyTimeout: d, CancelGrace: d, KillDelay: d, MaxAge: d, MaxIdle: d, BackoffMin: d, BackoffMax: d, TargetChunk: d, Prefetch: d,
		})
		start := time.Unix(1_000_000_000, 0)
		now := start
		for _, step := range []struct {
			name string
			do   func()
		}{
			{"start", func() {}},
			{"hello", func() { p.Registered(now, 1, Hello{functions, 1024, 1 << 20}) }},
			{"ready", func() { p.Ready(now, 1) }},
			{"call", func() {
				p.Open(now, CallSpec{ID: 1, Function: "f", TaskTimeout: d, QueueTimeout: d, Linger: d, ChunkSize: 1})
				p.Add(now, 1, Items{N: 5})
			}},
			{"results", func() { p.Results(now, 1, Report{Chunk: 1, N: 1, Ran: time.Microsecond}) }},
			{"take back", func() { p.Returned(now, 1, 3, 0) }},
			{"look", func() { p.Progress(now, 1, 2, 0, now, true) }},
			{"cancel", func() { p.Cancel(now, 1, NoReason) }},
			{"defy", func() { p.Progress(now, 1, 2, 0, now, true) }},
			{"exit", func() { p.Exited(now, 1, Exit{Known: true}) }},
			{"another exit", func() { p.Exited(now, 2, Exit{Known: true}) }},
			{"yet another", func() { p.Exited(now, 3, Exit{Known: true}) }},
		} {
			step.do()
			for range 2 { // what the first one asks for, the second one would find
				if at, ok := p.NextDeadline(); ok && at.Before(start) {
					t.Fatalf("with %v, after %s: the next deadline is %v before the pool began", d, step.name, start.Sub(at))
				}
				p.Settle(now)
				checkPool(t, p)
			}
			now = now.Add(time.Second)
		}
	}
}

func TestNamesAreKnown(t *testing.T) {
	t.Parallel()
	if got, want := WorkerLost.String(), "worker lost"; got != want {
		t.Errorf("outcome is called %q, want %q", got, want)
	}
	if got, want := Kind(200).String(), "sched.Kind(200)"; got != want {
		t.Errorf("unknown kind is called %q, want %q", got, want)
	}
}

// Nothing is left of a call that has ended, and what it gave is let go.
func TestEndedCallsAreForgotten(t *testing.T) {
	t.Parallel()
	c := newCrew(t, Config{Workers: 2})
	for id := range CallID(2000) {
		c.pool.Open(c.now, CallSpec{ID: id + 1, UID: uint32(id % 7), Function: "f", QueueTimeout: time.Hour})
		c.pool.Add(c.now, id+1, Items{N: 10, Ref: new(int)})
		c.pool.EndInput(c.now, id+1)
		c.settle()
		c.ended = false
		c.run()
	}
	p := c.pool
	for range 2 {
		c.now = c.now.Add(time.Minute)
		c.settle()
	}
	if len(p.calls) > 0 || p.fair.len() > 0 || p.alarms.len() > 0 || len(p.users) != 7 || len(p.free) > keepFree {
		t.Errorf("%d calls, %d in the fair queue, %d deadlines, %d users, %d chunks are left", len(p.calls), p.fair.len(), p.alarms.len(), len(p.users), len(p.free))
	}
	for _, k := range p.free {
		for _, part := range k.Parts[:cap(k.Parts)] {
			if part.Ref != nil {
				t.Fatalf("a chunk holds on to items")
			}
		}
	}
	for _, o := range []*outbox{p.out, p.shown} {
		for _, part := range o.parts[:cap(o.parts)] {
			if part.Ref != nil {
				t.Fatalf("an outbox holds on to items")
			}
		}
	}
}
