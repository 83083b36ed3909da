package server

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// owned is a pool with an owner that answers questions and does nothing else. It ends with the test.
func owned(t *testing.T, name string) *pool {
	t.Helper()
	p := silent(name)
	go func() {
		for {
			select {
			case <-p.awake:
			case <-t.Context().Done():
				return
			}
			p.mu.Lock()
			batch := p.inbox
			p.inbox = nil
			p.mu.Unlock()
			for _, e := range batch {
				e(time.Now())
			}
		}
	}()
	return p
}

// silent is a pool whose owner hangs.
func silent(name string) *pool {
	return &pool{name: name, awake: make(chan struct{}, 1), joined: make(chan struct{})}
}

func TestAPulseIsTheAnswerOfEveryOwner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Server{pools: map[string]*pool{"a": owned(t, "a"), "b": owned(t, "b")}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if got, err := s.Pulse(ctx); err != nil || got != (Pulse{Pools: 2}) {
			t.Errorf("got %+v, %v; want two pools", got, err)
		}
		s.pools["c"] = silent("c")
		if _, err := s.Pulse(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "pool c") {
			t.Errorf("got %v, want that the owner of pool c does not answer in time", err)
		}
		close(s.pools["c"].joined)
		delete(s.pools, "b")
		if got, err := s.Pulse(t.Context()); err != nil || got != (Pulse{Pools: 1}) {
			t.Errorf("got %+v, %v; want one pool: the other one has ended", got, err)
		}
	})
}
