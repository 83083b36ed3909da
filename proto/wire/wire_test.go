package wire

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

func batchOf(items ...string) (b Batch) {
	for _, s := range items {
		b.Append([]byte(s))
	}
	return b
}

func itemsOf(b *Batch) (items []string) {
	for it := b.Items(); it.Next(); {
		items = append(items, string(it.Item()))
	}
	return items
}

func TestBatchKeepsItems(t *testing.T) {
	for _, want := range [][]string{nil, {""}, {"", "", ""}, {"a", "b"}, {"a", "bc"}, {"aa", "bb", "c"}, {"", "x"}} {
		b := batchOf(want...)
		if err := b.Check(); err != nil {
			t.Errorf("batch of %q: %v", want, err)
		}
		if got := itemsOf(&b); strings.Join(got, ",") != strings.Join(want, ",") || len(got) != len(want) {
			t.Errorf("batch of %q has %q", want, got)
		}
	}
}

func TestBatchOfEqualSizesHasNoSizes(t *testing.T) {
	if b := batchOf("aa", "bb", "cc"); b.Sizes != nil || b.ItemSize != 2 || b.Count != 3 {
		t.Errorf("got sizes %v, item size %d, count %d; want none, 2, 3", b.Sizes, b.ItemSize, b.Count)
	}
}

func TestSliceAndAppendRangeAgree(t *testing.T) {
	for _, b := range []Batch{batchOf("a", "bb", "", "dddd"), batchOf("aa", "bb", "cc", "dd")} {
		off := b.Size(0)
		s := b.Slice(1, 2, off, b.Size(1)+b.Size(2))
		r := batchOf("first")
		r.AppendRange(&b, 1, 2, off)
		got, want := itemsOf(&r), append([]string{"first"}, itemsOf(&s)...)
		if strings.Join(got, ",") != strings.Join(want, ",") {
			t.Errorf("AppendRange gives %q, Slice %q", got, want)
		}
	}
}

// However small items are added, together or one by one, the batch is the same.
func TestItemsAddedTogether(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for round := range 300 {
		var one, copied, kept Batch
		for range 1 + rnd.IntN(6) {
			var data, sizes []byte
			same := rnd.IntN(2) == 0
			for range rnd.IntN(200) {
				size := 3
				if !same {
					size = rnd.IntN(smallSize)
				}
				item := bytes.Repeat([]byte{byte(rnd.IntN(256))}, size)
				data, sizes = append(data, item...), append(sizes, byte(size))
				one.Append(item)
			}
			copied.AppendSmall(data, sizes)
			kept.Data = append(kept.Data, data...)
			kept.AddedSmall(bytes.Clone(sizes))
			clear(sizes) // AppendSmall has not kept them
			if round%3 == 0 {
				large := make([]byte, 300)
				one.Append(large)
				copied.Append(large)
				kept.Append(large)
			}
		}
		want := itemsOf(&one)
		for _, b := range []*Batch{&copied, &kept} {
			if got := itemsOf(b); !slices.Equal(got, want) || b.Check() != nil {
				t.Fatalf("round %d: the items are others when they are added together (%v)", round, b.Check())
			}
		}
		if from := len(want) / 3; from > 0 { // and so it is when a part of them is added to another batch
			n, off := len(want)-from, one.Bytes(0, from)
			for _, first := range []string{"x", "xyz", strings.Repeat("x", 200)} {
				b := batchOf(first, "abc")
				b.AppendRange(&one, from, n, off)
				if got := itemsOf(&b); !slices.Equal(got[2:], want[from:]) || b.Check() != nil {
					t.Fatalf("round %d: AppendRange has added others (%v)", round, b.Check())
				}
				it := one.Items()
				it.Skip(from)
				if it.Next(); string(it.Item()) != want[from] {
					t.Fatalf("round %d: after %d that were skipped comes another", round, from)
				}
			}
		}
	}
}

func TestRestOfAWalk(t *testing.T) {
	for _, c := range []struct {
		batch       Batch
		data, sizes string
		size        int
	}{
		{batchOf("a", "bb", "c"), "bbc", "\x02\x01", 0},
		{batchOf("aa", "bb", "cc"), "bbcc", "", 2},
		{batchOf("a", strings.Repeat("b", 200), "c"), "", "", 0},
	} {
		it := c.batch.Items()
		it.Next()
		data, sizes, size := it.Rest()
		if string(data) != c.data || string(sizes) != c.sizes || size != c.size {
			t.Errorf("of %q there is %q left, with sizes %q or %d; want %q, %q, %d", itemsOf(&c.batch), data, sizes, size, c.data, c.sizes, c.size)
		}
	}
}

func TestCheckRefusesWhatDoesNotAddUp(t *testing.T) {
	for _, b := range []Batch{
		{Data: []byte("abc"), Sizes: []uint32{1, 1}},
		{Data: []byte("abc"), Sizes: []uint32{1, 1, 1 << 31, 1<<32 - 1}},
		{Data: []byte("abc"), ItemSize: 1, Count: 2},
		{Data: nil, ItemSize: 1 << 31, Count: 2},
		{Data: nil, ItemSize: 0, Count: 1<<32 - 1},
	} {
		if b.Check() == nil {
			t.Errorf("%+v passed", b)
		}
	}
}

// hot is the four hot messages with the generated types that they must agree with.
func hot() []struct {
	name string
	ours func() message
	gen  func() proto.Message
} {
	return []struct {
		name string
		ours func() message
		gen  func() proto.Message
	}{
		{"MapRequest", func() message { return new(CallRequest) }, func() proto.Message { return new(pb.ApplyAsyncRequest) }},
		{"MapResponse", func() message { return new(CallResponse) }, func() proto.Message { return new(pb.MapResponse) }},
		{"AttachRequest", func() message { return new(AttachRequest) }, func() proto.Message { return new(pb.AttachRequest) }},
		{"AttachResponse", func() message { return new(AttachResponse) }, func() proto.Message { return new(pb.AttachResponse) }},
	}
}

func examples() []message {
	large := batchOf(strings.Repeat("x", 3*refFrom), "y")
	return []message{
		&CallRequest{},
		&CallRequest{
			Settings: &pb.MapRequest{Pool: "p", Function: "f", ChunkSize: -1, TaskTimeout: durationpb.New(5), CallId: "00"},
			Items:    batchOf("1", "22"), IDs: []uint64{7, 1 << 40},
		},
		&CallRequest{JSON: &structpb.ListValue{Values: []*structpb.Value{structpb.NewNumberValue(1)}}},
		&CallRequest{Items: large},
		&CallResponse{
			Accepted: &pb.CallAccepted{CallId: "c", WindowItems: 1},
			Results: []Results{
				{First: 5, Values: batchOf("a", "b")}, {Indexes: []uint64{1, 9}, Attempts: 2, Values: large},
				{JSON: &structpb.ListValue{Values: []*structpb.Value{structpb.NewNullValue()}}, JSONText: map[uint64]string{0: "9007199254740993"}},
			},
			Failures: []*pb.Failure{{Index: 3, Outcome: pb.Outcome_OUTCOME_WORKER_LOST, WorkerExit: &pb.WorkerExit{Signal: "SIGKILL"}}},
			Outputs:  []*pb.TaskOutput{{Index: 3, Stream: 1, Data: []byte("out")}},
		},
		&AttachRequest{Head: &pb.AttachRequest{Hello: &pb.Hello{Token: []byte("t"), Generation: 4}, AckWanted: true}},
		&AttachRequest{Results: []ChunkResults{{Chunk: 9, First: 2, Values: large, RunNS: 77, Failures: []*pb.TaskFailure{{Offset: 4}}}, {Chunk: 10}}},
		&AttachResponse{Head: &pb.AttachResponse{Welcome: &pb.Welcome{Protocol: 1}, Ack: &pb.Ack{Chunk: 1, Tasks: 4}, OutputCredit: 8}},
		&AttachResponse{Chunks: []Chunk{{ID: 1, Function: 2, Attempt: 3, Items: batchOf("", ""), TaskTimeoutNS: 5, DeadlineUnixNS: 6, LingerNS: 7}, {ID: 2, Items: large}}},
	}
}

func encoded(t *testing.T, m message) []byte {
	t.Helper()
	out, err := Codec{}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	b := out.Materialize()
	if got, want := len(b), m.size(); got != want {
		t.Errorf("%T: %d bytes encoded, size said %d", m, got, want)
	}
	return b
}

func TestGeneratedCodeReadsOurs(t *testing.T) {
	for _, m := range examples() {
		b := encoded(t, m)
		for _, h := range hot() {
			ours := h.ours()
			if got, want := typeName(ours), typeName(m); got != want {
				continue
			}
			gen := h.gen()
			if err := proto.Unmarshal(b, gen); err != nil {
				t.Fatalf("%T: generated code cannot read it: %v", m, err)
			}
			again, err := proto.MarshalOptions{Deterministic: true}.Marshal(gen)
			if err != nil {
				t.Fatal(err)
			}
			if err := (Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(again)}, ours); err != nil {
				t.Fatalf("%T: we cannot read generated code's: %v", m, err)
			}
			if !bytes.Equal(encoded(t, ours), b) && !sameMessage(t, h.gen, encoded(t, ours), b) {
				t.Errorf("%T changed on its way through the generated code", m)
			}
		}
	}
}

func typeName(v any) string {
	switch v.(type) {
	case *CallRequest:
		return "MapRequest"
	case *CallResponse:
		return "MapResponse"
	case *AttachRequest:
		return "AttachRequest"
	default:
		return "AttachResponse"
	}
}

func sameMessage(t *testing.T, gen func() proto.Message, a, b []byte) bool {
	t.Helper()
	x, y := gen(), gen()
	if err := proto.Unmarshal(a, x); err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(b, y); err != nil {
		t.Fatal(err)
	}
	return proto.Equal(x, y)
}

// FuzzCodec: whatever our decoder accepts, generated code accepts too, and both mean the same message.
func FuzzCodec(f *testing.F) {
	for i, m := range examples() {
		out, err := Codec{}.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i%4), out.Materialize())
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		h := hot()[which%4]
		ours := h.ours()
		if (Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(bytes.Clone(b))}, ours) != nil {
			return // refused: garbage, or a batch that does not add up
		}
		if r, ok := ours.(*CallRequest); ok && r.Bad != nil {
			return
		}
		gen := h.gen()
		if err := proto.Unmarshal(b, gen); err != nil {
			t.Fatalf("%s: we accept what generated code refuses: %v", h.name, err)
		}
		again := h.ours()
		if err := (Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(encoded(t, ours))}, again); err != nil {
			t.Fatalf("%s: we cannot read what we wrote: %v", h.name, err)
		}
		if !bytes.Equal(encoded(t, again), encoded(t, ours)) && !sameMessage(t, h.gen, encoded(t, again), encoded(t, ours)) {
			t.Errorf("%s changed when written and read again", h.name)
		}
	})
}

func BenchmarkCodec(b *testing.B) {
	var items Batch
	for i := range 1024 {
		items.Append([]byte(strings.Repeat("7", 1+i%7)))
	}
	m := &CallRequest{Items: items}
	b.Run("marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := (Codec{}).Marshal(m); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1024, "ns/item")
	})
	out, err := Codec{}.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	data := mem.BufferSlice{mem.SliceBuffer(out.Materialize())}
	b.Run("unmarshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := (Codec{}).Unmarshal(data, new(CallRequest)); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1024, "ns/item")
	})
}
