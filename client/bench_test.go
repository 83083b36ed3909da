package client

import (
	"errors"
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc"

	"github.com/procpool/procpool/proto/wire"
)

// reflectItems answers each message with its items: all that remains is the cost of the SDK and of gRPC.
func reflectItems(stream grpc.ServerStream, r *wire.CallRequest) error {
	for index := uint64(0); ; {
		if n := r.Items.Len(); n > 0 {
			if err := stream.SendMsg(&wire.CallResponse{Results: []wire.Results{{First: index, Values: r.Items}}}); err != nil {
				return err
			}
			index += uint64(n)
		}
		*r = wire.CallRequest{}
		if err := stream.RecvMsg(r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func benchPool(b *testing.B) *Pool {
	b.Helper()
	f := newFake(b)
	f.work = reflectItems
	return f.pool(b)
}

func BenchmarkMap(b *testing.B) {
	p := benchPool(b)
	b.ReportAllocs()
	b.ResetTimer()
	if _, err := Map(b.Context(), p, double, numbers(b.N)); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkMapMiB(b *testing.B) {
	p := benchPool(b)
	items := make([][]byte, min(b.N, 100))
	for i := range items {
		items[i] = make([]byte, 1<<20)
	}
	b.SetBytes(1 << 20)
	b.ResetTimer()
	for left := b.N; left > 0; left -= len(items) {
		if _, err := Map(b.Context(), p, echo, items[:min(left, len(items))]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIMap(b *testing.B) {
	p := benchPool(b)
	b.ReportAllocs()
	b.ResetTimer()
	for _, err := range IMap(b.Context(), p, double, slices.Values(numbers(b.N))) {
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIMapUnordered(b *testing.B) {
	p := benchPool(b)
	b.ReportAllocs()
	b.ResetTimer()
	for _, err := range IMapUnordered(b.Context(), p, double, slices.Values(numbers(b.N))) {
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApplyAsync(b *testing.B) {
	p := benchPool(b)
	b.ReportAllocs()
	b.ResetTimer()
	results := make([]*Result[int], b.N)
	for i := range results {
		results[i] = ApplyAsync(b.Context(), p, double, i)
	}
	for _, r := range results {
		if _, err := r.Get(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	p := benchPool(b)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, err := Apply(b.Context(), p, double, i); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncode and BenchmarkDecode are what Map itself does with an item.
func BenchmarkEncode(b *testing.B) {
	encode, encodeAll := double.AppendArg, encodingsOf(double).Arg.AppendAll
	var last measure
	items := numbers(maxBatchItems)
	b.ReportAllocs()
	for i := 0; i < b.N; {
		batch := newBatch(last, maxBatchItems)
		n, err := addItems(&batch, encode, encodeAll, items, maxBatchItems)
		if err != nil {
			b.Fatal(err)
		}
		i += n
		last = measureOf(&batch)
	}
}

func BenchmarkDecode(b *testing.B) {
	r := wire.Results{}
	for range maxBatchItems {
		r.Values.Append([]byte("12345"))
	}
	items := numbers(maxBatchItems)
	b.ReportAllocs()
	for n := b.N; n > 0; n -= maxBatchItems {
		m := newMapCall(nil, double, items, nil)
		if err := m.take(&r, nil, double.DecodeResult, nil); err != nil {
			b.Fatal(err)
		}
	}
}
