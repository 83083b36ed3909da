package local_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/workerproc"
)

// hiccup's task 5,000 waits for the next one, which is in its chunk unless a chunk happens to end there.
var hiccup = workerproc.Func("hiccup", func(ctx context.Context, in hiccupArg) (int, error) {
	const late, behind = 5000, 5001
	switch in.I {
	case behind:
		return in.I, os.WriteFile(in.File, nil, 0o600)
	case late:
		for {
			if _, err := os.Stat(in.File); !errors.Is(err, fs.ErrNotExist) {
				return in.I, err
			}
			select {
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			case <-time.After(time.Millisecond):
			}
		}
	}
	return in.I, nil
})

type hiccupArg struct {
	I    int
	File string
}

func TestWorkIsTakenBackFromAWorkerThatIsLate(t *testing.T) {
	pool := open(t, client.Workers(2))
	file := filepath.Join(t.TempDir(), "there")
	args := make([]hiccupArg, 10_000)
	for i := range args {
		args[i] = hiccupArg{i, file}
	}
	got, err := client.Map(t.Context(), pool, hiccup, args, client.ChunkSize(1000), client.TaskTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range got {
		if v != i {
			t.Fatalf("result %d is %d", i, v)
		}
	}
}
