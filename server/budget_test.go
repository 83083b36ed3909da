package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/server"
)

// Each limit, reached, is named; what is beside it goes on; and when one has ended there is room again.
func TestWhoHasTooManyIsTold(t *testing.T) {
	for _, row := range []struct {
		cfg  server.Config
		says string
	}{
		{server.Config{PerUser: server.Limits{Calls: 3}}, "3 calls at a time is the limit"},
		{server.Config{Total: server.Limits{Calls: 3}}, "all users together: 3 calls at a time"},
		{server.Config{PerUser: server.Limits{Streams: 10}}, "10 streams at a time is the limit"},
		{server.Config{Total: server.Limits{Streams: 10}}, "all users together: 10 streams at a time"},
	} {
		t.Run(row.says, func(t *testing.T) {
			d := serveAs(t, row.cfg)
			pool := d.open(t, "", client.Name("shared"))
			pool.mustAnswer(t)
			conn, rpc, err := byHand(d.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			begin := func() (context.CancelFunc, error) {
				ctx, cancel := context.WithCancel(t.Context())
				stream, err := rpc.Map(ctx)
				if err == nil {
					_ = stream.Send(&pb.MapRequest{Pool: "shared", Function: "do"}) // Recv says whether it was refused
					_, err = stream.Recv()
				}
				return cancel, err
			}
			var begun []context.CancelFunc
			for err == nil && len(begun) <= 10 {
				var cancel context.CancelFunc
				if cancel, err = begin(); err == nil {
					begun = append(begun, cancel)
				}
				defer cancel()
			}
			if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), row.says) || len(begun) < 3 {
				t.Fatalf("after %d calls: %v, want RESOURCE_EXHAUSTED that says %q", len(begun), err, row.says)
			}
			begun[0]()
			eventually(t, func() string {
				cancel, err := begin()
				defer cancel()
				if err != nil {
					return fmt.Sprintf("one has ended, and still: %v", err)
				}
				return ""
			})
		})
	}
}

func TestTheSDKKnowsALimit(t *testing.T) {
	d := serveAs(t, server.Config{PerUser: server.Limits{Calls: 1}})
	pool := d.open(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client.ApplyAsync(ctx, pool.Pool, do, "stays a minute")
	eventually(t, func() string {
		if info, err := pool.Info(t.Context()); err != nil || info.Busy == 0 {
			return fmt.Sprintf("the pool is %v, %v; want it busy", info, err)
		}
		return ""
	})
	if _, err := client.Map(t.Context(), pool.Pool, do, []string{"a"}); !errors.Is(err, client.ErrLimit) {
		t.Errorf("a Map beside another call has %v, want %v", err, client.ErrLimit)
	}
}

// What one call of a user has in the daemon holds up the others, one message each, until it has gone.
func TestItemsOfAUserHoldUpItsCalls(t *testing.T) {
	const item, each = 1 << 10, 100
	for _, limits := range []server.Limits{{Bytes: 400 << 10}, {Items: 400}} {
		t.Run(fmt.Sprintf("%+v", limits), func(t *testing.T) {
			d := serveAs(t, server.Config{PerUser: limits})
			pool := d.open(t, "", client.Name("shared"), client.Workers(1))
			pool.mustAnswer(t)
			_, rpc, err := byHand(d.addr)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			batch := &pb.Batch{Data: bytes.Repeat([]byte(`"`+strings.Repeat("x", item-2)+`"`), each), ItemSize: item, Count: each}
			var got atomic.Int64
			for i, label := range []string{"nobody reads", "reads"} { // the first fills the budget
				stream, err := rpc.Map(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := stream.Send(&pb.MapRequest{Pool: "shared", Function: "do", Label: label}); err != nil {
					t.Fatal(err)
				}
				go func() { // ends with ctx
					for stream.Send(&pb.MapRequest{Items: batch}) == nil {
					}
				}()
				if i == 0 {
					eventually(t, func() string {
						info, err := pool.Info(t.Context())
						if err != nil {
							t.Fatal(err)
						}
						if info.DoneTasks < 400 || info.Busy > 0 {
							return fmt.Sprintf("the pool is %v", info)
						}
						return ""
					})
					continue
				}
				go func() { // likewise
					for {
						m, err := stream.Recv()
						if err != nil {
							return
						}
						for _, r := range m.Results {
							got.Add(int64(r.GetValues().GetCount()))
						}
					}
				}()
			}
			eventually(t, func() string { // one message at a time
				if n := got.Load(); n < 10*each {
					return fmt.Sprintf("the call that reads has had %d results", n)
				}
				return ""
			})
			calls, err := d.Calls(t.Context(), "shared")
			if err != nil || len(calls) != 2 {
				t.Fatalf("the calls are %v, %v", calls, err)
			}
			for _, c := range calls {
				if most := uint64(2000); c.Label == "nobody reads" && c.AcceptedTasks > most { // about 400, and what gRPC has taken and nobody has read; its window has 16,384
					t.Errorf("the daemon has taken %d items of the call that nobody reads, want at most %d", c.AcceptedTasks, most)
				}
			}
		})
	}
}
