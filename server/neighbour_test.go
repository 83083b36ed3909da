package server_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
)

// A worker that speaks for a task that runs, but in another worker and for another call, is heard by neither: not with a result, not with output, and it
// cannot give that task back. Its own task is lost if it broke the protocol, and the neighbour's goes on.
func TestAWorkerCannotSpeakForItsNeighbour(t *testing.T) {
	for _, row := range []struct {
		worker string
		want   error // of its own task
		says   string
	}{
		{"answers for a neighbour's task", client.ErrWorkerLost, "broke the worker protocol: it reported 1 tasks of chunk"},
		{"gives back a neighbour's task", client.ErrWorkerLost, "broke the worker protocol: it returned chunk"},
		{"writes for a neighbour's task", nil, ""},
	} {
		t.Run(row.worker, func(t *testing.T) {
			promptly(t, "its outcome", crashBound, func() time.Duration {
				dir := t.TempDir()
				d := serve(t)
				pool := d.open(t, row.worker, client.Dir(dir))
				pool.rest(t, 2)
				pool.mustAnswer(t)
				before := used(t)
				var written atomic.Int64
				output := client.TaskOutput(func(_, _, _ int, data []byte) { written.Add(int64(len(data))) })
				kept := client.MapAsync(t.Context(), pool.Pool, do, []string{"keep"}, output)
				eventually(t, func() string { return linesIn(t, filepath.Join(dir, keptChunks), 1) })

				began := time.Now()
				v, err := client.Map(t.Context(), pool.Pool, do, []string{"now"}, output)
				took := time.Since(began)
				if row.want == nil && (len(v) != 1 || v[0] != "NOW" || err != nil) {
					t.Errorf("its own task has %q, %v, want its result", v, err)
				}
				if row.want != nil && (!errors.Is(err, row.want) || !strings.Contains(err.Error(), row.says)) {
					t.Errorf("its own task has %v, want %v by %q", err, row.want, row.says)
				}
				t.Log(err)
				pool.mustAnswer(t) // by the worker in its place
				if kept.Ready() {
					t.Error("the neighbour's task has an outcome, and has not ended")
				}
				if err := os.WriteFile(filepath.Join(dir, letGo), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if v, err := kept.Get(t.Context()); len(v) != 1 || v[0] != "KEEP" || err != nil {
					t.Errorf("the neighbour's task has %q, %v, want its own result", v, err)
				}
				if wrong := linesIn(t, filepath.Join(dir, keptChunks), 1); wrong != "" {
					t.Errorf("the neighbour's task has been started again: %s", wrong)
				}
				if n := written.Load(); n > 0 {
					t.Errorf("%d bytes of output have reached a call, want none", n)
				}
				pool.rest(t, 2)
				before.back(t)
				return took
			})
		})
	}
}

// linesIn complains unless a file has so many lines.
func linesIn(t *testing.T, path string, want int) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if strings.Count(string(b), "\n") != want {
		return "got lines " + string(b)
	}
	return ""
}
