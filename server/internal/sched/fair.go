package sched

// Fair shares. Users (the uids of clients) share the workers in run time, and the calls of a user share what the user has. Each has a
// virtual time, the run time it has had divided by its weight; the smallest has the next turn. A dispatch is charged at once, by estimate;
// reports correct it; and a chunk that runs for longer is charged as it runs. Who had nothing to run for a while starts again
// at the virtual time of the others: there is no credit for the past.

// user is a uid that has made a call. It stays for the life of the pool, so that its debts do (leaky: 100 bytes for each uid ever seen).
type user struct {
	weight  moment
	calls   heap[*call] // those that could be dispatched, by virtual time
	virtual moment      // virtual time of the call served last
	turn    node[*user]
	spent   moment // virtual time
	owed    moment // run time to be charged before its next turn
}

func (p *Pool) user(spec CallSpec) *user {
	u := p.users[spec.UID]
	if u == nil {
		u = &user{spent: p.virtual}
		u.turn.of = u
		p.users[spec.UID] = u
	}
	u.weight = moment(max(1, spec.Weight))
	return u
}

// enter puts c into the fair queue.
func (p *Pool) enter(c *call) {
	u := c.user
	c.spent = max(c.spent, u.virtual)
	u.calls.set(&c.turn, c.spent)
	if u.turn.pos == 0 {
		u.spent = max(u.spent, p.virtual)
		p.fair.set(&u.turn, u.spent)
	}
}

// leave takes c out of the fair queue.
func (p *Pool) leave(c *call) {
	c.user.calls.remove(&c.turn)
	if c.user.calls.len() == 0 {
		p.fair.remove(&c.user.turn)
	}
}

// next is the call whose turn it is; nil if none could be dispatched. What reports have corrected since its last turn is charged
// first, so that reports need not touch the heaps.
func (p *Pool) next() *call {
	for p.fair.len() > 0 {
		u := p.fair.min()
		if u.owed != 0 {
			u.spent += u.owed / u.weight
			u.owed = 0
			p.fair.set(&u.turn, u.spent)
			continue
		}
		c := u.calls.min()
		if c.owed != 0 {
			c.spent += c.owed
			c.owed = 0
			u.calls.set(&c.turn, c.spent)
			continue
		}
		p.virtual = max(p.virtual, u.spent)
		u.virtual = max(u.virtual, c.spent)
		return c
	}
	return nil
}

// spend charges run time to c, whose turn it is.
func (p *Pool) spend(c *call, run moment) {
	c.spent += run
	c.user.spent += run / c.user.weight
	if c.turn.pos > 0 {
		c.user.calls.set(&c.turn, c.spent)
	}
	if c.user.turn.pos > 0 {
		p.fair.set(&c.user.turn, c.user.spent)
	}
}

// owe charges run time, or gives it back, before the next turn of c.
func (c *call) owe(run moment) {
	c.owed += run
	c.user.owed += run
}

// sweep charges the chunks that have run for longer than they were charged for. It looks at every worker, so it does nothing while
// there is nobody to be fair to, and is done about once per target chunk and not more often than costs one per cent.
func (p *Pool) sweep() {
	if p.now < p.sweepAt || len(p.calls) < 2 {
		return
	}
	p.sweepAt = p.now + max(p.cfg.TargetChunk, moment(len(p.slots))*sweepCost)
	for _, s := range p.slots {
		w := s.worker
		if w == nil || w.chunks.empty() {
			continue
		}
		k := w.chunks.front.of
		if over := p.now - w.clocked - moment(k.end-k.done)*k.cost - w.overrun; over > 0 {
			k.call.owe(over)
			w.overrun += over
		}
	}
}

// sweepCost is a hundred times what a look at a worker costs.
const sweepCost = 500 // ns
