package server_test

import (
	"fmt"
	"testing"
	"time"
)

// A worker that is told to stop and stays is killed when the grace and the kill delay are over, whatever it was told to stop for.
func TestWorkersThatDoNotStop(t *testing.T) {
	for _, worker := range []string{"ignores stop", "says goodbye and stays"} {
		for _, row := range []struct {
			why  string
			left int // workers
			do   func(p *pool) error
		}{
			{"the pool is resized", 1, func(p *pool) error { return p.Resize(t.Context(), 1) }},
			{"the pool is closed", 0, func(p *pool) error { return p.Close() }},
		} {
			t.Run(worker+"/"+row.why, func(t *testing.T) {
				promptly(t, "its end", killBound, func() time.Duration {
					d := serve(t)
					before := used(t)
					pool := d.open(t, worker)
					pool.rest(t, 2)
					pool.mustAnswer(t)
					began := time.Now()
					if err := row.do(pool); err != nil {
						t.Fatal(err)
					}
					for range 2 - row.left {
						e := pool.exited(t, fmt.Sprintf("it did not stop within the grace of %v when asked to: killed by SIGKILL", cancelGrace))
						if by := e.Kill.GetBy(); by != "stop" {
							t.Errorf("the kill report says that it was killed by %q, want stop", by)
						}
						t.Log(e)
					}
					took := time.Since(began)
					eventually(t, func() string {
						if there := marked(pool.mark); len(there) != row.left {
							return fmt.Sprintf("processes %v are there, want %d", there, row.left)
						}
						return ""
					})
					if row.left > 0 {
						pool.rest(t, row.left)
						pool.mustAnswer(t)
					} else if err := pool.Join(t.Context()); err != nil {
						t.Error(err)
					}
					pool.end(t)
					before.back(t)
					return took
				})
			})
		}
	}
}
