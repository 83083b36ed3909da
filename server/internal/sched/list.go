package sched

// list is a doubly linked list whose links lie in the things themselves: nothing is allocated, and a thing can be taken out of the middle.
type list[T any] struct{ front, back *link[T] }

// link is a thing's place in a list.
type link[T any] struct {
	of         T
	in         *list[T] // nil: in no list
	prev, next *link[T]
}

func (l *list[T]) empty() bool { return l.front == nil }

func (l *list[T]) pushBack(n *link[T]) {
	n.in, n.prev, n.next = l, l.back, nil
	if l.back == nil {
		l.front = n
	} else {
		l.back.next = n
	}
	l.back = n
}

func (l *list[T]) pushFront(n *link[T]) {
	n.in, n.prev, n.next = l, nil, l.front
	if l.front == nil {
		l.back = n
	} else {
		l.front.prev = n
	}
	l.front = n
}

// leave takes n out of its list, if it is in one.
func (n *link[T]) leave() {
	l := n.in
	if l == nil {
		return
	}
	if n.prev == nil {
		l.front = n.next
	} else {
		n.prev.next = n.next
	}
	if n.next == nil {
		l.back = n.prev
	} else {
		n.next.prev = n.prev
	}
	n.in, n.prev, n.next = nil, nil, nil
}
