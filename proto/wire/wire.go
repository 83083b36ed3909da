// Package wire is the protocol's hot path: batches of items, the four messages that carry them, and the gRPC codec that moves them
// by reference. What goes over the wire is exactly what proto/procpool/v1 says; only the Go types differ, so that a
// million items need no million allocations. Every other message goes through the generated code.
package wire

import (
	"errors"
	"fmt"
	"math"
)

// Limits, the same at all ends.
const (
	MaxItem    = 32 << 20 // bytes of one item or one result; a larger one is REJECTED, or a task error
	MaxMessage = 64 << 20 // bytes of one gRPC message: above any batch that an end of ours makes
)

// Batch is many items, one after the other in Data. With Sizes it holds len(Sizes) items; without, Count items of ItemSize bytes.
// The zero value is an empty batch, ready for Append.
type Batch struct {
	Data     []byte
	Sizes    []uint32
	ItemSize uint32
	Count    uint32
}

// Len is the number of items.
func (b *Batch) Len() int {
	if b.Sizes != nil {
		return len(b.Sizes)
	}
	return int(b.Count)
}

// Size is the size of item i.
func (b *Batch) Size(i int) int {
	if b.Sizes != nil {
		return int(b.Sizes[i])
	}
	return int(b.ItemSize)
}

// Check tells whether the sizes add up to the data. A batch that came over the wire must not be used before.
func (b *Batch) Check() error {
	var sum uint64
	if b.Sizes != nil {
		for _, s := range b.Sizes {
			sum += uint64(s)
		}
	} else {
		sum = uint64(b.ItemSize) * uint64(b.Count)
		if b.Count > math.MaxInt32 || (b.ItemSize == 0 && b.Count > maxEmpty) {
			return fmt.Errorf("batch of %d items is too long: at most %d fit into a message", b.Count, maxEmpty)
		}
	}
	if sum != uint64(len(b.Data)) {
		return fmt.Errorf("batch has %d bytes of data, but its %d items add up to %d", len(b.Data), b.Len(), sum)
	}
	return nil
}

// maxEmpty bounds the one batch whose length its data does not bound: items without bytes.
const maxEmpty = 1 << 20

// Append adds a copy of item.
func (b *Batch) Append(item []byte) {
	b.Data = append(b.Data, item...)
	b.Added(len(item))
}

// Added accounts for an item of size bytes that the caller has appended to Data.
func (b *Batch) Added(size int) {
	if b.Sizes == nil {
		if b.Count == 0 {
			b.ItemSize = uint32(size)
		}
		if b.ItemSize == uint32(size) {
			b.Count++
			return
		}
		b.Sizes = make([]uint32, b.Count, max(64, 2*b.Count))
		for i := range b.Sizes {
			b.Sizes[i] = b.ItemSize
		}
		b.ItemSize, b.Count = 0, 0
	}
	b.Sizes = append(b.Sizes, uint32(size))
}

// AppendRange adds n items of src, from place from on, whose bytes begin at off.
func (b *Batch) AppendRange(src *Batch, from, n, off int) {
	if src.Sizes == nil {
		size := int(src.ItemSize)
		b.Data = append(b.Data, src.Data[off:off+n*size]...)
		for range n {
			b.Added(size)
		}
		return
	}
	end := off
	for _, s := range src.Sizes[from : from+n] {
		end += int(s)
		b.Added(int(s))
	}
	b.Data = append(b.Data, src.Data[off:end]...)
}

// Slice is n items from place from on, whose bytes begin at off, without a copy.
func (b *Batch) Slice(from, n, off, bytes int) Batch {
	s := Batch{Data: b.Data[off : off+bytes : off+bytes]}
	if b.Sizes == nil {
		s.ItemSize, s.Count = b.ItemSize, uint32(n)
		return s
	}
	s.Sizes = b.Sizes[from : from+n : from+n]
	return s
}

// Reset empties the batch and keeps its memory. The batch must not have been handed to the codec's by-reference path.
func (b *Batch) Reset() {
	b.Data, b.Count, b.ItemSize = b.Data[:0], 0, 0
	b.Sizes = nil
}

// Items walks over the batch.
func (b *Batch) Items() Items { return Items{b: b} }

// Items is a walk over a batch: for it := b.Items(); it.Next(); { use(it.Item()) }.
type Items struct {
	b    *Batch
	i    int
	off  int
	item []byte
}

// Next moves to the next item, if there is one.
func (it *Items) Next() bool {
	if it.i >= it.b.Len() {
		return false
	}
	n := it.b.Size(it.i)
	it.item = it.b.Data[it.off : it.off+n : it.off+n]
	it.off += n
	it.i++
	return true
}

// Item is the current item: a part of the batch, not a copy.
func (it *Items) Item() []byte { return it.item }

var errTruncated = errors.New("truncated message")
