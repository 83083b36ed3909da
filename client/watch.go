package client

import (
	"context"
	"errors"
	"io"
	"iter"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// Watch yields what happens in a pool, or in all pools if the name is empty: first how things stand, then each message has the events since, in order. It ends with the
// pool or, with an empty name, when the daemon stops. Nothing in the daemon waits for this: what is not read in time is dropped, oldest first, and
// counted in the next message. An error comes once, last.
func (c *Client) Watch(ctx context.Context, pool string) iter.Seq2[*pb.WatchResponse, error] {
	return func(yield func(*pb.WatchResponse, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.controlRPC.Watch(ctx, &pb.WatchRequest{Pool: pool})
		for err == nil {
			var m *pb.WatchResponse
			if m, err = stream.Recv(); err == nil && !yield(m, nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(nil, c.rpcError(ctx, err, "watch"))
		}
	}
}
