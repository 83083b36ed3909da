package local_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/workerproc"
)

// bulk is a result of 1 MiB.
var bulk = workerproc.Func("bulk", func(context.Context, int) ([]byte, error) { return make([]byte, 1<<20), nil })

// What is submitted before a Close is done, as in a multiprocessing.Pool, although it may not have left this process yet.
func TestWhatWasSubmittedBeforeACloseIsDone(t *testing.T) {
	for range 10 {
		pool := open(t, client.Workers(2))
		many := client.MapAsync(t.Context(), pool, square, upTo(5000))
		var single []*client.Result[int]
		for i := range 10 {
			single = append(single, client.ApplyAsync(t.Context(), pool, square, i))
		}
		if err := errors.Join(pool.Close(), pool.Join(t.Context())); err != nil {
			t.Fatal(err)
		}
		if got, err := many.Get(t.Context()); err != nil || got[4999] != 4999*4999 {
			t.Fatalf("map: %v", err)
		}
		for i, r := range single {
			if got, err := r.Get(t.Context()); err != nil || got != i*i {
				t.Fatalf("apply: got %d, %v, want %d", got, err, i*i)
			}
		}
	}
}

// late decodes no result before it may.
type late struct {
	client.Function[int, []byte]
	wait func()
}

func (f late) DecodeResult(b []byte) ([]byte, error) {
	f.wait()
	return f.Function.DecodeResult(b)
}

// Outcomes that are still on their way when the pool has ended arrive: more of them than the connection holds.
func TestOutcomesOutliveThePool(t *testing.T) {
	pool := open(t, client.Workers(2))
	read := make(chan struct{})
	r := client.MapAsync(t.Context(), pool, late{bulk, func() { <-read }}, upTo(12))
	if err := pool.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if info, err := pool.Info(t.Context()); err == nil {
			return fmt.Sprintf("the pool has not ended: %v", info)
		}
		return ""
	})
	joined := make(chan error, 1)
	go func() { joined <- pool.Join(t.Context()) }()
	eventually(t, func() string { // this handle knows the end as well
		if _, err := client.Apply(t.Context(), pool, square, 1); !errors.Is(err, client.ErrPoolTerminated) {
			return fmt.Sprintf("a call has %v, want that the pool has ended", err)
		}
		return ""
	})
	close(read)
	got, err := r.Get(t.Context())
	if err != nil || len(got) != 12 || len(got[11]) != 1<<20 {
		t.Errorf("%d results, %v; want 12 of 1 MiB", len(got), err)
	}
	if err := <-joined; err != nil {
		t.Error(err)
	}
}
