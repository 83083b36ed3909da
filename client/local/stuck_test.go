package local_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/workerproc"
)

// hanging is the number of the task that hangs, with many behind it.
const hanging = 5000

var mostlyShort = workerproc.Func("mostly_short", func(ctx context.Context, i int) (int, error) {
	if i == hanging {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	for start := time.Now(); time.Since(start) < 20*time.Microsecond; {
		continue // what the task takes
	}
	return i, nil
})

// TestATaskThatHangsHoldsUpNoOthers: the input goes on until all tasks near the one that hangs have ended, so no worker is ever idle, and nobody takes
// work back because of that.
func TestATaskThatHangsHoldsUpNoOthers(t *testing.T) {
	const near, most = 2 * hanging, 5_000_000
	for _, size := range []int{0, 1, 100, 1000} {
		t.Run(fmt.Sprintf("chunk size %d", size), func(t *testing.T) {
			pool := open(t, client.Workers(2))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var ended atomic.Bool // the input, which is long enough
			input := func(yield func(int) bool) {
				defer ended.Store(true)
				for i := range most {
					if !yield(i) {
						return
					}
				}
			}
			seen := make([]bool, near)
			seen[hanging] = true // it must not be
			left := near - 1
			for got, err := range client.IMapUnordered(ctx, pool, mostlyShort, input, client.ChunkSize(size)) {
				if err != nil {
					t.Fatal(err)
				}
				if got.Index >= near {
					continue
				}
				if seen[got.Index] || got.Err != nil || got.Value != got.Index || got.Attempt != 1 {
					t.Fatalf("got %+v, want task %d once, after one attempt, and task %d never", got, got.Index, hanging)
				}
				seen[got.Index] = true
				if left--; left == 0 {
					break
				}
				if ended.Load() {
					t.Fatalf("after %d tasks %d of the first %d have not ended, besides the one that hangs", most, left, near)
				}
			}
		})
	}
}
