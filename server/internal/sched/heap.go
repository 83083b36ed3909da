package sched

// heap is a binary min-heap of things with a key each. Keys lie beside each other in memory, so that a step down a large heap touches
// few cache lines; the node in each thing knows its place, so that it can be moved and taken out.
type heap[T any] struct{ entries []entry[T] }

type entry[T any] struct {
	key  moment
	node *node[T]
}

// node is a thing's place in a heap.
type node[T any] struct {
	of  T
	pos int // place in entries, from 1; 0: in no heap
}

func (h *heap[T]) len() int { return len(h.entries) }

// min is the thing with the smallest key. The heap must not be empty.
func (h *heap[T]) min() T { return h.entries[0].node.of }

// minKey is the smallest key. The heap must not be empty.
func (h *heap[T]) minKey() moment { return h.entries[0].key }

// key is the key of a node that is in the heap.
func (h *heap[T]) key(n *node[T]) moment { return h.entries[n.pos-1].key }

// set gives n the key, and puts it in if it is not there yet.
func (h *heap[T]) set(n *node[T], key moment) {
	e := entry[T]{key, n}
	if n.pos == 0 {
		h.entries = append(h.entries, e)
		h.up(len(h.entries)-1, e)
		return
	}
	if len(h.entries) == 1 {
		h.entries[0].key = key
		return
	}
	if i := n.pos - 1; key < h.entries[i].key {
		h.up(i, e)
	} else {
		h.down(i, e)
	}
}

// remove takes n out, if it is in.
func (h *heap[T]) remove(n *node[T]) {
	if n.pos == 0 {
		return
	}
	i, last := n.pos-1, len(h.entries)-1
	n.pos = 0
	e := h.entries[last]
	h.entries[last] = entry[T]{}
	h.entries = h.entries[:last]
	switch {
	case i == last:
	case i > 0 && e.key < h.entries[(i-1)/2].key:
		h.up(i, e)
	default:
		h.down(i, e)
	}
}

// up puts e at place i or above.
func (h *heap[T]) up(i int, e entry[T]) {
	for i > 0 {
		parent := (i - 1) / 2
		if h.entries[parent].key <= e.key {
			break
		}
		h.put(i, h.entries[parent])
		i = parent
	}
	h.put(i, e)
}

// down puts e at place i or below.
func (h *heap[T]) down(i int, e entry[T]) {
	for {
		child := 2*i + 1
		if child >= len(h.entries) {
			break
		}
		if right := child + 1; right < len(h.entries) && h.entries[right].key < h.entries[child].key {
			child = right
		}
		if e.key <= h.entries[child].key {
			break
		}
		h.put(i, h.entries[child])
		i = child
	}
	h.put(i, e)
}

func (h *heap[T]) put(i int, e entry[T]) {
	h.entries[i] = e
	e.node.pos = i + 1
}
