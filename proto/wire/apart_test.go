package wire

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// countingPool hands out buffers and knows how many are out.
type countingPool struct{ out int }

func (p *countingPool) Get(n int) *[]byte {
	p.out++
	b := make([]byte, n)
	return &b
}

func (p *countingPool) Put(b *[]byte) {
	p.out--
	for i := range *b {
		(*b)[i] = '!' // whoever looks at it now sees that it is not theirs any more
	}
}

// pieces is a message as gRPC receives it: in counted buffers of at most n bytes.
func (p *countingPool) pieces(message []byte, n int) (list mem.BufferSlice) {
	for len(message) > 0 {
		k := min(n, len(message))
		b := p.Get(max(n, 2<<10)) // smaller ones are not counted
		copy(*b, message[:k])
		whole := mem.NewBuffer(b, p)
		list = append(list, whole.Slice(0, k))
		whole.Free()
		message = message[k:]
	}
	return list
}

func TestLargeItemsStayApartAndAreGivenBack(t *testing.T) {
	one, two := strings.Repeat("1", 100<<10), strings.Repeat("2", 70<<10)
	request := encoded(t, &CallRequest{Items: batchOf(one, two, "3"), IDs: []uint64{5, 6, 7}})
	for _, size := range []int{16 << 10, 2049, len(request) - 1} {
		pool := &countingPool{}
		received := pool.pieces(request, size)
		var m CallRequest
		if err := (Codec{Apart: true}).Unmarshal(received, &m); err != nil || m.Bad != nil {
			t.Fatal(err, m.Bad)
		}
		received.Free() // as gRPC does
		if m.Items.Apart == nil || m.Items.Len() != 3 || len(m.IDs) != 3 {
			t.Fatalf("got %d items and %d ids, apart: %t; want 3 each, apart", m.Items.Len(), len(m.IDs), m.Items.Apart != nil)
		}
		chunk := m.Items.Slice(1, 2, len(one), len(two)+1)
		m.Items.Free()
		sent, err := (Codec{}).Marshal(&AttachResponse{Chunks: []Chunk{{ID: 1, Items: chunk}}})
		if err != nil {
			t.Fatal(err)
		}
		var got AttachResponse
		if err := (Codec{}).Unmarshal(sent, &got); err != nil {
			t.Fatal(err)
		}
		if items := itemsOf(&got.Chunks[0].Items); len(items) != 2 || items[0] != two || items[1] != "3" {
			t.Errorf("buffers of %d: the chunk has other items than were sent", size)
		}
		if sent.Free(); pool.out != 0 {
			t.Errorf("buffers of %d: %d were not given back", size, pool.out)
		}
	}
}

func TestSmallItemsAreGathered(t *testing.T) {
	pool := &countingPool{}
	small := batchOf(strings.Split(strings.Repeat("some item,", 10_000), ",")...)
	received := pool.pieces(encoded(t, &AttachRequest{Results: []ChunkResults{{Chunk: 4, Values: small}, {Chunk: 5, Values: batchOf("x")}}}), 16<<10)
	var m AttachRequest
	if err := (Codec{Apart: true}).Unmarshal(received, &m); err != nil {
		t.Fatal(err)
	}
	if received.Free(); pool.out != 0 {
		t.Errorf("%d buffers were not given back", pool.out)
	}
	if len(m.Results) != 2 || m.Results[0].Values.Apart != nil || len(itemsOf(&m.Results[0].Values)) != small.Len() || m.Results[1].Chunk != 5 {
		t.Errorf("%d results have come, or others than were sent", len(m.Results))
	}
}

func TestResultsThatLieApart(t *testing.T) {
	pool := &countingPool{}
	want := []string{strings.Repeat("a", 50<<10), strings.Repeat("b", 9000), strings.Repeat("c", 20<<10)}
	received := pool.pieces(encoded(t, &AttachRequest{Results: []ChunkResults{{Chunk: 4, First: 7, RunNS: 9, Values: batchOf(want...)}}}), 16<<10)
	var m AttachRequest
	if err := (Codec{Apart: true}).Unmarshal(received, &m); err != nil {
		t.Fatal(err)
	}
	received.Free()
	r := &m.Results[0]
	if r.Values.Apart == nil || r.Chunk != 4 || r.First != 7 || r.RunNS != 9 {
		t.Fatalf("got %+v", r)
	}
	merged := batchOf("first") // some are copied together with others
	merged.AppendRange(&r.Values, 1, 2, len(want[0]))
	rest := r.Values.Slice(0, 1, 0, len(want[0]))
	m.Free()
	if got := itemsOf(&merged); len(got) != 3 || got[1] != want[1] || got[2] != want[2] {
		t.Error("AppendRange has copied something else")
	}
	if got := itemsOf(&rest); len(got) != 1 || got[0] != want[0] {
		t.Error("Slice has taken something else")
	}
	if pool.out != 0 {
		t.Errorf("%d buffers were not given back", pool.out)
	}
}

func TestItemsOfSeveralMessagesStayApart(t *testing.T) {
	pool := &countingPool{}
	var chunk Batch
	var want []string
	for i, item := range []string{strings.Repeat("a", 1000), strings.Repeat("b", 300), "", strings.Repeat("d", 50<<10)} {
		items := []string{item, item + "x", item, "y"}
		if i == 2 {
			items = []string{"small", "ones"} // which have come in one piece
		}
		for len(items) < 100 {
			items = append(items, item)
		}
		received := pool.pieces(encoded(t, &CallRequest{Items: batchOf(items...)}), 16<<10)
		var m CallRequest
		if err := (Codec{Apart: true}).Unmarshal(received, &m); err != nil {
			t.Fatal(err)
		}
		received.Free()
		from, n, off := 1, 60+i, len(items[0])
		chunk.AppendApart(&m.Items, from, n, off, m.Items.Bytes(from, n))
		want = append(want, items[from:from+n]...)
		one := m.Items.Slice(0, 1, 0, off) // a small one is a copy
		m.Items.Free()
		if got := itemsOf(&one); len(got) != 1 || got[0] != items[0] {
			t.Errorf("message %d: Slice has taken something else", i)
		}
	}
	sent, err := (Codec{}).Marshal(&AttachResponse{Chunks: []Chunk{{ID: 1, Items: chunk}}})
	if err != nil {
		t.Fatal(err)
	}
	var got AttachResponse
	if err := (Codec{}).Unmarshal(sent, &got); err != nil {
		t.Fatal(err)
	}
	if items := itemsOf(&got.Chunks[0].Items); !slices.Equal(items, want) {
		t.Errorf("the chunk has %d items, or others than the %d that were sent", len(items), len(want))
	}
	if sent.Free(); pool.out != 0 {
		t.Errorf("%d buffers were not given back", pool.out)
	}
}

func TestBatchThatIsLent(t *testing.T) {
	for _, c := range []struct {
		room, item int
		lent       bool
	}{{64 << 10, 40 << 10, true}, {64 << 10, 100, false}, {4 << 10, 40 << 10, false}} {
		buf := Buffers.Get(c.room)
		b := Batch{Data: (*buf)[:0]}
		want := strings.Repeat("x", c.item)
		b.Append([]byte(want))
		b.Append([]byte("y"))
		if b.Lend(buf); (b.Apart != nil) != c.lent {
			t.Errorf("%d bytes in a buffer of %d: lent is %t, want %t", c.item, c.room, b.Apart != nil, c.lent)
		}
		var m CallRequest
		if err := m.decode(encoded(t, &CallRequest{Items: b})); err != nil {
			t.Fatal(err)
		}
		if got := itemsOf(&m.Items); len(got) != 2 || got[0] != want || got[1] != "y" {
			t.Errorf("%d bytes in a buffer of %d: other items have been sent", c.item, c.room)
		}
	}
}

func TestBuffersHaveTheLengthThatIsAskedFor(t *testing.T) {
	for _, n := range []int{0, 1, 256, 257, 16 << 10, 16<<10 + 1, 320 << 10, 1 << 20} {
		for range 3 {
			b := Buffers.Get(n)
			if len(*b) != n {
				t.Errorf("a buffer of %d bytes has %d", n, len(*b))
			}
			*b = (*b)[:n/2]
			Buffers.Put(b)
		}
	}
}

func TestMessageThatIsCutOffIsRefused(t *testing.T) {
	whole := encoded(t, &AttachRequest{Results: []ChunkResults{{Chunk: 4, Values: batchOf(strings.Repeat("x", 40<<10))}}})
	for n := apartFrom; n < len(whole); n += 997 {
		pool := &countingPool{}
		received := pool.pieces(whole[:n], 4096)
		if err := (Codec{Apart: true}).Unmarshal(received, &AttachRequest{}); err == nil {
			t.Errorf("%d of %d bytes were accepted", n, len(whole))
		}
		if received.Free(); pool.out != 0 {
			t.Errorf("%d buffers were not given back", pool.out)
		}
	}
}

// FuzzApart: a message means the same whether it is read in one piece or out of its buffers, and all buffers are given back.
func FuzzApart(f *testing.F) {
	for i, m := range examples() {
		out, err := Codec{}.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i%2 == 0, uint8(1+17*i), out.Materialize())
	}
	f.Fuzz(func(t *testing.T, worker bool, size uint8, b []byte) {
		message := func() scattered {
			if worker {
				return new(AttachRequest)
			}
			return new(CallRequest)
		}
		pool := &countingPool{}
		received := pool.pieces(b, 1+int(size))
		apart, whole := message(), message()
		err := apart.decodeApart(newSource(received, 1))
		received.Free()
		if (Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(bytes.Clone(b))}, whole) == nil && !errors.Is(err, errGroup) {
			if err != nil {
				t.Fatalf("in one piece it is right, apart it is %v", err)
			}
			gen := hot()[0].gen
			if worker {
				gen = hot()[2].gen
			}
			x, y := gen(), gen()
			known := proto.UnmarshalOptions{DiscardUnknown: true} // of the others it is the value that is kept, not how that was written
			if a, w := encoded(t, apart), encoded(t, whole); known.Unmarshal(a, x) != nil || known.Unmarshal(w, y) != nil || !proto.Equal(x, y) {
				t.Errorf("apart it means something else: %q, not %q", a, w)
			}
		}
		switch m := apart.(type) {
		case *CallRequest:
			m.Items.Free()
		case *AttachRequest:
			m.Free()
		}
		if pool.out != 0 {
			t.Errorf("%d buffers were not given back", pool.out)
		}
	})
}
