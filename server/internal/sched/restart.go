package sched

import (
	"slices"
	"time"
)

// A restart replaces all workers, one after the other, by those of a new generation, which may have another program. The first one decides: it
// is started beside all others, and when it does not become ready, or lacks a function that a call is using, then it was that, and the pool goes on as
// before. Else every process that is started from now on is of the new generation, and an old worker retires whenever a new one stands by.
//
// What the workers of one generation offer is the same for all of them. Functions are matched by name and encoding; which place a function has
// may differ between generations. As long as there are workers of both, calls begin only if both offer the function: one that only the new
// generation has waits until the old one has gone. So whoever is idle can always take the next task.

// generation is the workers of one program.
type generation struct {
	number    int
	side      int        // 0 or 1, and never that of the generation before: where functions keep their place
	functions []Function // nil until its first Hello
}

func (p *Pool) restarting() bool { return p.trial != nil || p.rolling }

// Restart begins a restart, and says which generation it leads to. At its end there is the effect Restarted. It does nothing, and says 0, when
// one is going on, or the pool is closed.
func (p *Pool) Restart(now time.Time) int {
	p.clock(now)
	if p.closed || p.restarting() {
		return 0
	}
	p.lastGeneration++
	p.coming = &generation{number: p.lastGeneration, side: 1 - p.generation.side}
	p.trial, p.replaced = p.addSlot(), 0
	p.spawn(p.trial, p.coming)
	return p.coming.number
}

// endRestart tells how a restart ended. A generation that is still coming does not come.
func (p *Pool) endRestart(r Reason, why any) {
	e := p.emit(Restarted)
	e.Generation, e.Reason, e.Why, e.Offset = p.generation.number, r, why, p.replaced
	if p.coming != nil {
		e.Generation = p.coming.number
	}
	p.trial, p.coming, p.rolling = nil, nil, false
}

// takeOver makes the coming generation the pool's, now that its first worker is ready. False if a call needs what it does not offer.
func (p *Pool) takeOver() bool {
	g := p.coming
	for _, c := range p.inOrder() {
		if c.function != nil && !slices.Contains(g.functions, c.function.Function) {
			p.endRestart(UnknownFunction, c.function.Name)
			return false
		}
	}
	p.trial, p.coming, p.rolling, p.old = nil, nil, true, 0
	for _, w := range p.workers {
		if w.generation != g {
			w.old = true
			p.old++
		}
	}
	p.generation = g
	p.adopt()
	return true
}

// adopt makes what the generation offers the functions of the pool, and opens calls that have waited for it.
func (p *Pool) adopt() {
	known, g := p.functions, p.generation
	p.functions = make([]*function, len(g.functions))
	for i, f := range g.functions {
		if k := slices.IndexFunc(known, func(k *function) bool { return k.Function == f }); k >= 0 {
			p.functions[i] = known[k]
		} else {
			p.functions[i] = &function{Function: f, place: [2]int{-1, -1}}
		}
		p.functions[i].place[g.side] = i
	}
	p.openWaiting()
}

func (p *Pool) openWaiting() {
	for _, c := range p.inOrder() {
		if c.function == nil {
			p.open(c)
		}
	}
}

// offered tells whether every worker offers f.
func (p *Pool) offered(f *function) bool { return !p.rolling || f.place[1-p.generation.side] >= 0 }

// roll retires an old worker: spares first, which nobody misses; one of the crew when a new worker stands by, the idle ones first.
func (p *Pool) roll() {
	relief := !p.standby.empty() && !p.standby.front.of.old
	if !relief && p.spares == 0 {
		return
	}
	var next *worker
	for _, s := range p.slots {
		w := s.worker
		if w == nil || !w.old || w.state != live || w.retiring != NoReason {
			continue
		}
		if w.spare {
			next = w
			break
		}
		if relief && (next == nil || w.tasks < next.tasks) {
			next = w
		}
	}
	if next != nil {
		p.leaver = next
		p.retire(next, Replaced)
	}
}

// rolled is the end of a restart: the last old worker has gone.
func (p *Pool) rolled() {
	p.endRestart(NoReason, nil)
	p.openWaiting()
}
