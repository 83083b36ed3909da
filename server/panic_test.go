package server_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

// A pool whose owner panics costs its own calls and workers, wherever these are in their lives. The other pools go on.
func TestAPanicOfAnOwnerEndsItsPoolAlone(t *testing.T) {
	for what, row := range map[string]struct {
		workers string
		born    bool
	}{
		"while a worker starts": {"never registers", false},
		"before it hears of it": {"never registers", true},
		"while tasks run":       {"", false},
	} {
		t.Run(what, func(t *testing.T) {
			d := serve(t)
			good := d.open(t, "")
			good.rest(t, 2)
			before := used(t)
			bad := d.open(t, row.workers, client.Workers(1))
			calls := []*client.Result[[]string]{client.MapAsync(t.Context(), bad.Pool, do, []string{"stays a minute"})}
			eventually(t, func() string {
				list, err := d.Calls(t.Context(), bad.Name())
				if err != nil || len(list) != 1 || row.workers == "" && list[0].RunningTasks != 1 {
					return fmt.Sprintf("the calls are %v, %v, want one that runs if it can", list, err)
				}
				return ""
			})
			if err := d.server.Crash(bad.Name(), 2, row.born); err != nil {
				t.Fatal(err)
			}
			calls = append(calls, client.MapAsync(t.Context(), bad.Pool, do, []string{"comes too late"}))
			for i, r := range calls {
				_, err := r.Get(t.Context())
				if !errors.Is(err, client.ErrPoolTerminated) && !(i == 1 && errors.Is(err, client.ErrPoolClosed)) { // it may have come after the panic
					t.Errorf("call %d of the pool has %v, want that the pool was terminated", i, err)
				} else {
					t.Log(err)
				}
			}
			if err := bad.Join(t.Context()); err != nil {
				t.Errorf("join: %v", err)
			}
			bad.end(t) // no process is left
			good.mustAnswer(t)
			good.rest(t, 2)
			before.back(t)
		})
	}
}

// A handler that panics costs its caller that request. The daemon winds up what it was about.
func TestAPanicOfAHandlerIsAnError(t *testing.T) {
	d := serve(t)
	pool := d.open(t, "")
	pool.rest(t, 2)
	conn, rpc, err := byHand(d.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	panicked := func(what string, err error) {
		t.Helper()
		if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "panicked") {
			t.Errorf("%s: %v, want an internal error that says who panicked", what, err)
		} else {
			t.Logf("%s: %v", what, err)
		}
	}
	before := used(t)
	remove := d.server.AddRuin("ruin")
	defer remove()
	_, err = rpc.GetPool(t.Context(), &pb.GetPoolRequest{Pool: "ruin"})
	panicked("before there is a call", err)

	call, err := rpc.Map(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	items, err := structpb.NewList([]any{"stays a minute", "stays a minute"})
	if err != nil {
		t.Fatal(err)
	}
	if err := call.Send(&pb.MapRequest{Pool: pool.Name(), Function: "do", Json: items}); err != nil {
		t.Fatal(err)
	}
	if _, err := call.Recv(); err != nil { // it has been accepted
		t.Fatal(err)
	}
	if err := d.server.Garble(pool.Name()); err != nil {
		t.Fatal(err)
	}
	_, err = call.Recv()
	panicked("in a call", err)
	pool.rest(t, 2) // its tasks have been cancelled
	pool.mustAnswer(t)
	conn.Close()
	before.back(t)
}
