package client

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
)

// quitting is double whose decoder, or encoder, ends the goroutine, as FailNow of a test does.
type quitting struct {
	Function[int, int]
	encoder bool
}

func (q quitting) AppendArg(dst []byte, n int) ([]byte, error) {
	if q.encoder {
		runtime.Goexit()
	}
	return q.Function.AppendArg(dst, n)
}

func (q quitting) DecodeResult([]byte) (int, error) {
	runtime.Goexit()
	return 0, nil
}

func TestCodeThatEndsItsGoroutineEndsTheCall(t *testing.T) {
	t.Parallel()
	quit := TaskOutput(func(int, int, int, []byte) { runtime.Goexit() })
	for name, call := range map[string]func(ctx context.Context, p *Pool) error{
		"Map, decoder": func(ctx context.Context, p *Pool) error {
			_, err := Map(ctx, p, quitting{double, false}, numbers(3))
			for failed, i := (*MapError)(nil), 0; errors.As(err, &failed) && i < 3; i++ {
				if failed.OK(i) {
					return fmt.Errorf("task %d has a result", i)
				}
			}
			return err
		},
		"MapAsync, encoder": func(ctx context.Context, p *Pool) error {
			_, err := MapAsync(ctx, p, quitting{double, true}, numbers(3)).Get(ctx)
			return err
		},
		"ApplyAsync, decoder": func(ctx context.Context, p *Pool) error {
			fn := quitting{odd, false}
			results := []*Result[int]{ApplyAsync(ctx, p, fn, 1), ApplyAsync(ctx, p, fn, 2), ApplyAsync(ctx, p, fn, 3)} // the second one fails
			_, err := results[0].Get(ctx)
			for _, r := range results[1:] {
				if _, other := r.Get(ctx); other == nil {
					return nil
				}
			}
			return err
		},
		"Map, output": func(ctx context.Context, p *Pool) error {
			_, err := Map(ctx, p, echo, [][]byte{nil}, quit)
			return err
		},
		"IMap, output": func(ctx context.Context, p *Pool) (last error) {
			for _, err := range IMap(ctx, p, echo, slices.Values([][]byte{nil}), quit) {
				last = err
			}
			return last
		},
		"Apply, output": func(ctx context.Context, p *Pool) error {
			_, err := Apply(ctx, p, echo, nil, quit)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.work = func(stream grpc.ServerStream, r *wire.CallRequest) error {
					if r.Settings.GetFunction() != "echo" {
						return f.runTasks(stream, r)
					}
					if err := receiveItems(stream, r, 1); err != nil {
						return err
					}
					return stream.SendMsg(&wire.CallResponse{Outputs: []*pb.TaskOutput{{Attempt: 1, Stream: 1, Data: []byte("a")}}})
				}
				var quit *PanicError
				if err := call(t.Context(), f.pool(t)); !errors.As(err, &quit) || !strings.Contains(quit.Stack, "runtime.Goexit") {
					t.Errorf("got %v, want a *PanicError that says where", err)
				}
			})
		})
	}
}
