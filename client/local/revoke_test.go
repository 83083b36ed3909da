package local_test

import (
	"context"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/workerproc"
)

var hiccup = workerproc.Func("hiccup", func(_ context.Context, i int) (int, error) {
	if i%20_000 == 19_000 {
		<-time.After(50 * time.Millisecond) // what the task takes
	}
	return i, nil
})

func TestWorkIsTakenBackFromAWorkerThatIsLate(t *testing.T) {
	pool := open(t, client.Workers(2))
	got, err := client.Map(t.Context(), pool, hiccup, upTo(200_000))
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range got {
		if v != i {
			t.Fatalf("result %d is %d", i, v)
		}
	}
}
