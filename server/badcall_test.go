package server_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// A call that is wrong twice, so that its pool and its receiver refuse it in the same moment, costs its client that call.
func TestACallThatIsWrongTwice(t *testing.T) {
	p, _ := shared(t)
	p.mustAnswer(t)
	conn, rpc, err := byHand(p.d.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 300 {
		stream, err := rpc.Map(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&pb.MapRequest{Pool: "shared", Function: "nobody", Items: &pb.Batch{Data: []byte("7"), Sizes: []uint32{1000}}}); err != nil {
			t.Fatal(err)
		}
		if m, err := stream.Recv(); err == nil {
			t.Fatalf("got %v, want a refusal", m)
		}
	}
	p.mustAnswer(t)
}

// Limits that nobody will reach are no limits, and neither the core nor a worker reckons with times that have no number.
func TestLimitsWithoutEnd(t *testing.T) {
	p, _ := shared(t)
	ctx, cancel := context.WithTimeout(t.Context(), math.MaxInt64)
	defer cancel()
	got, err := client.Map(ctx, p.Pool, do, []string{"a", "b"}, client.TaskTimeout(math.MaxInt64), client.QueueTimeout(math.MaxInt64))
	if err != nil || fmt.Sprint(got) != "[A B]" {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = client.Map(t.Context(), p.Pool, do, []string{"hangs"}, client.TaskTimeout(timeout), client.QueueTimeout(math.MaxInt64))
	if !errors.Is(err, client.ErrTimeout) {
		t.Errorf("got %v, want a timeout", err)
	}
	p.mustAnswer(t)
}

// A client that asks for output, does not read it and goes away takes nothing from the worker: the next task may write as much as ever.
func TestOutputOfAClientThatWentAwayIsGivenBack(t *testing.T) {
	p, other := shared(t)
	p.mustAnswer(t)
	for range 3 {
		conn, rpc, err := byHand(p.d.addr)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := rpc.Map(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		item := []byte(`"writes a MiB"`)
		if err := stream.Send(&pb.MapRequest{Pool: "shared", Function: "do", Items: &pb.Batch{Data: item, ItemSize: uint32(len(item)), Count: 1}}); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() string { // it writes, and nobody reads
			workers, err := p.d.Workers(t.Context(), "shared")
			if err != nil || len(workers) != 1 || workers[0].CallId == "" || time.Since(workers[0].Since.AsTime()) < 50*time.Millisecond {
				return fmt.Sprintf("the workers are %v, %v; want one that is held up", workers, err)
			}
			return ""
		})
		conn.Close()
		p.rest(t, 1)
	}
	size := 0
	got, err := client.Apply(t.Context(), other, do, "writes a MiB", client.TaskOutput(func(_, _, _ int, data []byte) { size += len(data) }))
	if err != nil || got != "written" || size != 1<<20 {
		t.Errorf("got %q, %v and %d bytes of output, want a MiB", got, err, size)
	}
}
