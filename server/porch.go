package server

import (
	"container/list"
	"net"
	"sync"
	"time"
)

// porch is where connections to the worker socket stand until they have presented a token. One that says nothing is shown out after a while, and the
// oldest is when there are too many: so whoever comes next is never held up by those who only stand there.
type porch struct {
	room     int           // connections that may stand there, beside those that are expected
	patience time.Duration // for how long each
	expected func() int    // workers that have been started and have not said Hello

	mu     sync.Mutex
	visits list.List // of *visit; the oldest is first
}

// Room and patience of the worker socket.
const (
	porchRoom     = 64
	porchPatience = 10 * time.Second
)

// visit is a connection that has been accepted.
type visit struct {
	*net.UnixConn
	porch *porch
	place *list.Element // in visits; nil: it has been let in, or has gone
	timer *time.Timer
}

// enter takes a new connection.
func (p *porch) enter(conn *net.UnixConn) *visit {
	v := &visit{UnixConn: conn, porch: p}
	room := p.room + p.expected()
	var oldest *visit
	p.mu.Lock()
	if p.visits.Len() >= room {
		oldest = p.visits.Front().Value.(*visit)
	}
	v.place = p.visits.PushBack(v)
	v.timer = time.AfterFunc(p.patience, func() { v.Close() })
	p.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
	return v
}

// admit lets the connection in: it may stay.
func (v *visit) admit() { v.leave() }

func (v *visit) leave() {
	v.porch.mu.Lock()
	defer v.porch.mu.Unlock()
	if v.place != nil {
		v.timer.Stop()
		v.porch.visits.Remove(v.place)
		v.place = nil
	}
}

// Close ends the connection, wherever it stands.
func (v *visit) Close() error {
	v.leave()
	return v.UnixConn.Close()
}
