package client

import (
	"fmt"
	"sync"

	"github.com/procpool/procpool/proto/wire"
)

// flow is what is under way in a call with lazy input: items drawn and not sent, tasks without outcome, outcomes not taken. It
// bounds all of them together, and restores the order of the outcomes.
//
// The rules: an item is drawn only when fewer than a window of items lie between it and the consumer; when many bytes of results wait, or are
// to be expected, nothing is drawn; and the stream is read always, unless too many bytes wait while the consumer has something to take. So a
// slow consumer stops the input, then the daemon, and nothing else; and whoever waits is waited for by nobody he waits for.
type flow struct {
	skips   skips
	ordered bool
	window  uint64 // items
	bytes   int    // of results that wait or are expected
	run     uint64 // outcomes that the consumer takes together

	mu      sync.Mutex
	drawer  sync.Cond // waits for room
	sender  sync.Cond // waits for items
	reader  sync.Cond // waits for the consumer
	taker   sync.Cond // waits for outcomes
	pending wire.Batch
	last    measure
	drawn   uint64 // items drawn
	sent    uint64 // of them: given to the sender, now or before
	taken   uint64 // outcomes that the consumer has taken; in order: index of the next one
	waiting uint64 // outcomes that wait for the consumer
	weight  int    // their bytes
	results uint64 // results so far
	volume  uint64 // their bytes

	// A ring of outcomes, at index&mask. In order: by the task's index. Else: from taken on, as they came.
	ring []slot

	inputEnded bool
	inputErr   error // of the input
	ended      bool  // no more outcomes will come
	err        error // why, if not because all have
	dropped    bool  // nobody wants what waits
	lifted     bool  // all that comes is taken in
}

// maxTakeBytes bounds what the consumer takes together: it is outside the window's bytes. One result may exceed it.
const maxTakeBytes = 64 << 10

// slot is an outcome.
type slot struct {
	value    []byte
	err      *TaskError
	index    int
	attempts int
	full     bool
}

func (f *flow) init(items, bytes int, ordered bool) {
	f.ordered, f.window, f.bytes = ordered, uint64(items), bytes
	f.run = max(1, f.window/64)
	for _, c := range []*sync.Cond{&f.drawer, &f.sender, &f.reader, &f.taker} {
		c.L = &f.mu
	}
}

// put adds an item that has been drawn: encoded, or with the reason why it cannot be sent. It returns when another may be drawn, or with
// false when no more are wanted.
func (f *flow) put(item []byte, err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.ended && f.pending.Len() > 0 && len(f.pending.Data)+len(item) > maxBatchBytes {
		f.drawer.Wait()
	}
	if f.ended {
		return false
	}
	index := f.drawn
	f.drawn++
	if err != nil {
		f.skips.add(f.sent)
		f.place(slot{err: rejectedError(err, int(index), ""), index: int(index), full: true})
	} else {
		if f.pending.Len() == 0 {
			f.pending = newBatch(f.last, min(2*max(f.last.items, 8), maxBatchItems))
			f.sender.Signal()
		}
		f.pending.Append(item)
		f.sent++
	}
	for !f.ended && !f.room() {
		f.drawer.Wait()
	}
	return !f.ended
}

// room tells whether another item may be drawn. What the consumer takes at a time counts as not taken.
func (f *flow) room() bool {
	under := f.drawn - f.taken
	if under == 0 {
		return true
	}
	if under+f.run > f.window || f.pending.Len() >= maxBatchItems {
		return false
	}
	expected := uint64(0)
	if f.results > 0 {
		expected = f.volume / f.results * (under - f.waiting)
	}
	return uint64(f.weight)+expected < uint64(f.bytes)
}

// endInput says that nothing more will be drawn.
func (f *flow) endInput(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inputEnded, f.inputErr = true, err
	f.sender.Signal()
}

// batch waits for items to send. False: there will be no more. The first batch does not wait and may be empty: it opens the call, so that a
// refusal comes before the first item.
func (f *flow) batch(first bool) (wire.Batch, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !first && f.pending.Len() == 0 && !f.inputEnded && !f.ended {
		f.sender.Wait()
	}
	if f.ended || (f.pending.Len() == 0 && !first) {
		return wire.Batch{}, false
	}
	b := f.pending
	f.pending = wire.Batch{}
	if b.Len() > 0 {
		f.last = measureOf(&b)
	}
	f.drawer.Signal()
	return b, true
}

// outcomes adds what a message brings, and waits while that is too much.
func (f *flow) outcomes(r *wire.CallResponse) error {
	ours := f.skips.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range r.Results {
		res := &r.Results[i]
		it := res.Values.Items()
		for k := uint64(0); it.Next(); k++ {
			index := res.First + k
			if res.Indexes != nil {
				index = res.Indexes[k]
			}
			index = ours.ours(index)
			if err := f.check(index); err != nil {
				return err
			}
			f.results++
			f.volume += uint64(len(it.Item()))
			f.place(slot{value: it.Item(), index: int(index), attempts: attempts(res), full: true})
		}
	}
	for _, failure := range r.Failures {
		index := ours.ours(failure.GetIndex())
		if err := f.check(index); err != nil {
			return err
		}
		f.place(slot{err: newTaskError(failure, int(index), ""), index: int(index), attempts: int(failure.GetAttempts()), full: true})
	}
	for f.weight > f.bytes && f.next() > 0 && !f.ended && !f.lifted {
		f.reader.Wait()
	}
	return nil
}

// check refuses an outcome of a task that has none to come.
func (f *flow) check(index uint64) error {
	bad := index >= f.drawn || f.drawn-f.taken == f.waiting
	if f.ordered && !bad {
		bad = index < f.taken || f.full(index)
	}
	if bad {
		return fmt.Errorf("%w: an outcome for task %d, which has none to come", ErrProtocol, index)
	}
	return nil
}

func (f *flow) full(index uint64) bool {
	return index-f.taken < uint64(len(f.ring)) && f.ring[index&uint64(len(f.ring)-1)].full
}

// place puts an outcome where the consumer will look for it.
func (f *flow) place(s slot) {
	at := f.taken + f.waiting
	if f.ordered {
		at = uint64(s.index)
	}
	for at-f.taken >= uint64(len(f.ring)) {
		f.grow()
	}
	f.ring[at&uint64(len(f.ring)-1)] = s
	f.waiting++
	f.weight += len(s.value)
	if !f.ordered || at == f.taken {
		f.taker.Signal()
	}
}

func (f *flow) grow() {
	old := f.ring
	f.ring = make([]slot, max(64, 2*len(old)))
	for i := range uint64(len(old)) {
		at := f.taken + i
		f.ring[at&uint64(len(f.ring)-1)] = old[at&uint64(len(old)-1)]
	}
}

// next is how many outcomes the consumer may take now.
func (f *flow) next() (n uint64) {
	if !f.ordered {
		return min(f.waiting, f.run)
	}
	for n < f.run && f.full(f.taken+n) {
		n++
	}
	return n
}

// take waits for outcomes and appends the next ones to buf; none when there will be no more. Of a call that has broken off it gives what
// has come, in order, without what has not.
func (f *flow) take(buf []slot) []slot {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if f.dropped {
			return buf
		}
		if n := f.next(); n > 0 {
			for size := 0; n > 0 && size < maxTakeBytes; n-- {
				at := &f.ring[f.taken&uint64(len(f.ring)-1)]
				buf = append(buf, *at)
				size += len(at.value)
				f.weight -= len(at.value)
				*at = slot{}
				f.taken++
				f.waiting--
			}
			f.drawer.Signal()
			f.reader.Signal()
			return buf
		}
		switch {
		case !f.ended:
			f.taker.Wait()
		case f.waiting == 0:
			return buf
		default:
			f.taken++ // past a task that will have no outcome any more
		}
	}
}

// end is what to say of a call that the daemon has ended well.
func (f *flow) end(what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if missing := f.drawn - f.taken - f.waiting; missing > 0 || !f.inputEnded {
		return fmt.Errorf("%s: %w: it ended without an outcome for %d tasks", what, ErrProtocol, missing)
	}
	return nil
}

// broken says that no more outcomes will come, because of err, or because all have. Those that wait may be taken.
func (f *flow) broken(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.ended, f.err = true, err
	}
	f.wake()
}

// lift takes in all that comes, however much waits.
func (f *flow) lift() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lifted = true
	f.reader.Signal()
}

// fail ends everything at once. A call that has ended well has not done so for a consumer who gets no more of what waits.
func (f *flow) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended || f.err == nil && f.waiting > 0 {
		f.ended, f.err = true, err
	}
	f.dropped = true
	f.wake()
}

func (f *flow) wake() {
	for _, c := range []*sync.Cond{&f.drawer, &f.sender, &f.reader, &f.taker} {
		c.Signal() // one goroutine each
	}
}

// error is why the call has ended: nil if every item drawn has its outcome, and the input has ended by itself.
func (f *flow) error() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	return f.inputErr
}
