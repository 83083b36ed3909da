package main_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
)

// C code that crashes takes its worker with it, and nothing else.
func TestCrashInC(t *testing.T) {
	worker := filepath.Join(bin, "cgocrash")
	if _, err := os.Stat(worker); err != nil {
		for _, tool := range []string{"gcc", "go"} {
			if _, err := exec.LookPath(tool); err != nil {
				t.Skipf("%s is not there to build a worker with C code, so a crash in C is NOT tested here", tool)
			}
		}
		worker = filepath.Join(t.TempDir(), "cgocrash")
		t.Setenv("CGO_ENABLED", "1")
		if err := build(worker, "./cmd/procpoold/testdata/cgocrash"); err != nil {
			t.Fatal(err)
		}
	}
	d := startWatched(t)
	pool, err := d.client.CreatePool(t.Context(), "c", client.Program(worker), client.Workers(2))
	if err != nil {
		t.Fatal(err)
	}
	crash := client.Func[int, int]("crash")
	for how, says := range map[int]string{1: "SIGSEGV", 2: "SIGABRT", 3: "exit status 3"} {
		promptly(t, "everything", crashBound, func() time.Duration {
			rest(t, pool, 2)
			before := d.holdings(t)
			tasks := []int{10, 11, 12, how, 14, 15, 16}
			began := time.Now()
			got, err := client.Map(t.Context(), pool, crash, tasks)
			took := time.Since(began)
			var failed *client.MapError
			if !errors.As(err, &failed) || failed.Failed != 1 || failed.Errors[0].Index != 3 || !errors.Is(failed.Errors[0], client.ErrWorkerLost) {
				t.Fatalf("crash %d: got %v, want worker lost for task 3 alone", how, err)
			}
			exit := failed.Errors[0].Exit
			if text := fmt.Sprint(exit, strings.Join(exit.CrashReport, "\n")); !strings.Contains(text, says) {
				t.Errorf("crash %d: the worker ended by %q, want to hear of %s", how, text, says)
			}
			t.Log(err)
			for i, v := range got {
				if i != 3 && v != tasks[i] {
					t.Errorf("crash %d: task %d has %d", how, i, v)
				}
			}
			if got, err := client.Map(t.Context(), pool, crash, []int{20, 21}); err != nil || got[0] != 20 || got[1] != 21 {
				t.Errorf("crash %d: the pool then answers %v, %v", how, got, err)
			}
			rest(t, pool, 2)
			d.back(t, before)
			return took
		})
	}
}
