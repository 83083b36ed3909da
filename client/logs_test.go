package client

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// Logs of the fake are its request and two lines; a pool that is followed has an end of a worker, and one that is missing has none.
func (f *fake) Logs(r *pb.LogsRequest, stream grpc.ServerStreamingServer[pb.LogsResponse]) error {
	if r.Pool == "missing" {
		return status.Error(codes.NotFound, "there is no pool \"missing\"")
	}
	tail := "all"
	if r.Tail != nil {
		tail = fmt.Sprint(r.GetTail())
	}
	if err := stream.Send(&pb.LogsResponse{Outputs: []*pb.WorkerOutput{{Line: []byte(r.Pool + " " + tail)}, {Line: []byte("two")}}}); err != nil {
		return err
	}
	if !r.Follow {
		return nil
	}
	return stream.Send(&pb.LogsResponse{Dropped: 7, Exits: []*pb.WorkerExit{{Worker: "p-1"}}})
}

func TestLogsYieldNewsInOrder(t *testing.T) {
	t.Parallel()
	c := newFake(t).client(t)
	words := func(pool string, tail int, follow bool, limit int) string {
		var words []string
		logs := c.Logs
		if follow {
			logs = c.FollowLogs
		}
		for n, err := range logs(t.Context(), pool, tail) {
			switch {
			case err != nil:
				var refused *RefusedError
				words = append(words, fmt.Sprint(errors.As(err, &refused)))
			case n.Output != nil:
				words = append(words, string(n.Output.Line))
			case n.Exit != nil:
				words = append(words, "-"+n.Exit.Worker)
			default:
				words = append(words, fmt.Sprint("!", n.Dropped))
			}
			if len(words) == limit {
				break
			}
		}
		return strings.Join(words, ", ")
	}
	for _, test := range []struct {
		pool   string
		tail   int
		follow bool
		limit  int
		want   string
	}{
		{"p", 3, false, 0, "p 3, two"},
		{"p", 0, true, 0, "p 0, two, !7, -p-1"},
		{"", -1, true, 3, " all, two, !7"},
		{"missing", 1, true, 0, "true"},
	} {
		if got := words(test.pool, test.tail, test.follow, test.limit); got != test.want {
			t.Errorf("%+v: got %q", test, got)
		}
	}
}
