package mapping

import (
	"maps"
	"slices"
	"sync"

	"github.com/procpool/procpool/cmd/procpool/internal/text"
)

// outputs is several layouts that all get everything, in this order.
type outputs []layout

func (o outputs) piece(index, attempt, stream int, j *job, data []byte) error {
	for _, l := range o {
		if err := l.piece(index, attempt, stream, j, data); err != nil {
			return err
		}
	}
	return nil
}

func (o outputs) end(e *ended) error {
	for _, l := range o {
		if err := l.end(e); err != nil {
			return err
		}
	}
	return nil
}

// written tells somebody when an item has been written.
type written struct {
	layout
	tell func()
}

func (w written) end(e *ended) error {
	err := w.layout.end(e)
	w.tell()
	return err
}

// ordered ends items in the order in which they began. What an item that is too early has written waits in the layout behind it, where it is
// spooled like any output of a command that still runs.
type ordered struct {
	layout

	mu    sync.Mutex
	next  int
	early map[int]*ended
}

func newOrdered(l layout) *ordered { return &ordered{layout: l, early: map[int]*ended{}} }

func (o *ordered) end(e *ended) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e.Index != o.next {
		for i, tail := range []*text.Bytes{&e.Result.Stdout, &e.Result.Stderr} {
			if len(*tail) > 0 {
				if err := o.piece(e.Index, e.Attempt, i+1, e.Job, *tail); err != nil {
					return err
				}
				*tail = nil
			}
		}
		o.early[e.Index] = e
		return nil
	}
	for e != nil {
		if err := o.layout.end(e); err != nil {
			return err
		}
		o.next++
		e = o.early[o.next]
		delete(o.early, o.next)
	}
	return nil
}

// flush writes what is still early when no more items will end, because the run has been ended.
func (o *ordered) flush() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, index := range slices.Sorted(maps.Keys(o.early)) {
		if err := o.layout.end(o.early[index]); err != nil {
			return err
		}
	}
	clear(o.early)
	return nil
}
