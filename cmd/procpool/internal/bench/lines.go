package bench

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/workerproc/lines"
)

// lineProgram is the line worker that is measured: the loop that anybody would write.
const lineProgram = `
import sys

def f(line):
    return str(int(line) + 1)

line = sys.stdin.readline()
while line:
    print(f(line), flush=True)
    line = sys.stdin.readline()
`

// lineRate is an IMap over line workers in Python: what a program in that language would otherwise do with a pool of its own.
func (o *ours) lineRate(ctx context.Context, w work) (*answer, error) {
	fn := client.Func[string, string](lines.Function)
	if o.pool == nil {
		self, err := os.Executable() // the adapter
		if err != nil {
			return nil, err
		}
		spec := lines.Spec{Command: []string{o.python, "-c", lineProgram}}
		if o.pool, err = o.open(ctx, w.Workers, client.Program(self, spec.Args()...)); err != nil {
			return nil, err
		}
		if _, err := client.Map(ctx, o.pool, fn, slices.Repeat([]string{"1"}, 4*w.Workers), client.ChunkSize(1)); err != nil { // they have started
			return nil, err
		}
	}
	items := make([]string, w.Items)
	for i := range items {
		items[i] = strconv.Itoa(i)
	}
	return rate(w, w.Items, func() (time.Duration, error) {
		got := make([]string, 0, w.Items)
		start := time.Now()
		for out, err := range client.IMap(ctx, o.pool, fn, slices.Values(items)) {
			if err != nil || out.Err != nil {
				return 0, errors.Join(err, out.Err)
			}
			got = append(got, out.Value)
		}
		took := time.Since(start)
		for i, line := range got {
			if want := strconv.Itoa(i + 1); line != want {
				return 0, wrong("item", i, line, want)
			}
		}
		return took, nil
	})
}
