package client

import (
	"context"
	"errors"
	"io"
	"iter"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// News is what a worker wrote, or how it ended.
type News struct {
	// Output is a line, and Exit an end. At most one of them is there.
	Output *WorkerOutput
	Exit   *WorkerExit
	// Dropped, if it stands alone, counts what is missing here because this program did not read in time.
	Dropped int
}

// Logs yields what workers of a pool wrote and how they ended, as far as the daemon still has it: the last tail lines, and the ends since the
// first of them; all it has if tail is negative. With an empty name it is that of all pools, one after the other. An error comes once, last.
//
// The daemon keeps 1,000 lines of each pool, or 1 MiB.
func (c *Client) Logs(ctx context.Context, pool string, tail int) iter.Seq2[News, error] {
	return c.news(ctx, pool, tail, false)
}

// FollowLogs is Logs, and goes on with what comes: until the pool has ended or, with an empty name, the daemon stops. Pools that are made
// meanwhile are among them all. Workers never wait for this: what is not read in time is dropped, oldest first, and counted.
func (c *Client) FollowLogs(ctx context.Context, pool string, tail int) iter.Seq2[News, error] {
	return c.news(ctx, pool, tail, true)
}

func (c *Client) news(ctx context.Context, pool string, tail int, follow bool) iter.Seq2[News, error] {
	return func(yield func(News, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		request := &pb.LogsRequest{Pool: pool, Follow: follow}
		if tail >= 0 {
			n := uint32(min(tail, 1<<30))
			request.Tail = &n
		}
		stream, err := c.controlRPC.Logs(ctx, request)
		for err == nil {
			var m *pb.LogsResponse
			if m, err = stream.Recv(); err == nil && !yieldNews(m, yield) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(News{}, c.rpcError(ctx, err, "logs"))
		}
	}
}

// yieldNews yields what is in a message.
func yieldNews(m *pb.LogsResponse, yield func(News, error) bool) bool {
	if n := m.GetDropped(); n > 0 && !yield(News{Dropped: int(n)}, nil) {
		return false
	}
	for _, o := range m.GetOutputs() {
		line := newWorkerOutput(o)
		if !yield(News{Output: &line}, nil) {
			return false
		}
	}
	for _, e := range m.GetExits() {
		if !yield(News{Exit: newWorkerExit(e)}, nil) {
			return false
		}
	}
	return true
}
