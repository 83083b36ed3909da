// Package wire is the protocol's hot path: batches of items, the four messages that carry them, and the gRPC codec that moves them
// by reference. What goes over the wire is exactly what proto/procpool/v1 says; only the Go types differ, so that a
// million items need no million allocations. Every other message goes through the generated code.
package wire

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"google.golang.org/grpc/mem"
)

// Limits, the same at all ends.
const (
	MaxItem    = 32 << 20 // bytes of one item or one result; a larger one is REJECTED, or a task error
	MaxMessage = 64 << 20 // bytes of one gRPC message: above any batch that an end of ours makes
)

// Batch is many items, one after the other in Data. There are three ways to say how large they are: Count items of ItemSize bytes each; or
// one size each in Small, if all of them have fewer than 128 bytes; or one size each in Sizes. On the wire Small and Sizes are the same
// field. Small is as it travels, so that batches of small items are passed on without looking at every size.
//
// Large items that were received by a Codec that leaves them apart are in Apart instead of Data, and Free gives them back.
//
// The zero value is an empty batch, ready for Append.
type Batch struct {
	Data     []byte
	Apart    mem.BufferSlice
	Small    []byte
	Sizes    []uint32
	ItemSize uint32
	Count    uint32
}

// smallSize is the first size that Small cannot hold: the first that takes two bytes as a varint.
const smallSize = 0x80

// Len is the number of items.
func (b *Batch) Len() int {
	switch {
	case b.Small != nil:
		return len(b.Small)
	case b.Sizes != nil:
		return len(b.Sizes)
	default:
		return int(b.Count)
	}
}

// Size is the size of item i.
func (b *Batch) Size(i int) int {
	switch {
	case b.Small != nil:
		return int(b.Small[i])
	case b.Sizes != nil:
		return int(b.Sizes[i])
	default:
		return int(b.ItemSize)
	}
}

// Bytes is the size of n items together, from place from on.
func (b *Batch) Bytes(from, n int) (bytes int) {
	switch {
	case b.Small != nil:
		for _, s := range b.Small[from : from+n] {
			bytes += int(s)
		}
	case b.Sizes != nil:
		for _, s := range b.Sizes[from : from+n] {
			bytes += int(s)
		}
	default:
		bytes = n * int(b.ItemSize)
	}
	return bytes
}

// Largest is the size of the largest item.
func (b *Batch) Largest() (bytes int) {
	if !b.Varied() {
		return int(b.ItemSize)
	}
	for i := range b.Len() {
		bytes = max(bytes, b.Size(i))
	}
	return bytes
}

// Varied tells whether the items have sizes of their own.
func (b *Batch) Varied() bool { return b.Small != nil || b.Sizes != nil }

// Check tells whether the sizes add up to the data. A batch that came over the wire must not be used before.
func (b *Batch) Check() error {
	if !b.Varied() && (b.Count > math.MaxInt32 || (b.ItemSize == 0 && b.Count > maxEmpty)) {
		return fmt.Errorf("batch of %d items is too long: at most %d fit into a message", b.Count, maxEmpty)
	}
	sum := uint64(b.ItemSize) * uint64(b.Count)
	if b.Varied() {
		sum = uint64(b.Bytes(0, b.Len()))
	}
	if total := b.Total(); sum != uint64(total) {
		return fmt.Errorf("batch has %d bytes of data, but its %d items add up to %d", total, b.Len(), sum)
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
	switch {
	case b.Small != nil && size < smallSize:
		b.Small = append(b.Small, byte(size))
	case !b.Varied() && (b.Count == 0 || int(b.ItemSize) == size):
		b.ItemSize = uint32(size)
		b.Count++
	default:
		b.vary(size)
	}
}

// vary is Added for an item whose size does not fit the way in which the others are kept.
func (b *Batch) vary(size int) {
	n := b.Len()
	switch {
	case b.Sizes != nil:
	case b.Small == nil && size < smallSize && b.ItemSize < smallSize:
		b.Small = make([]byte, n, max(64, 2*n))
		for i := range b.Small {
			b.Small[i] = byte(b.ItemSize)
		}
	default:
		sizes := make([]uint32, n, max(64, 2*n))
		for i := range sizes {
			sizes[i] = uint32(b.Size(i))
		}
		b.Small, b.Sizes = nil, sizes
	}
	b.ItemSize, b.Count = 0, 0
	if b.Sizes != nil {
		b.Sizes = append(b.Sizes, uint32(size))
	} else {
		b.Small = append(b.Small, byte(size))
	}
}

// AppendSmall adds copies of items that lie one after the other in data. Each of sizes is less than 128.
func (b *Batch) AppendSmall(data, sizes []byte) {
	b.Data = append(b.Data, data...)
	if b.Len() == 0 && !uniform(sizes) {
		b.ItemSize, b.Count = 0, 0
		b.Small = append(make([]byte, 0, max(64, 4*len(sizes))), sizes...)
		return
	}
	b.AddedSmall(sizes)
}

// AddedSmall is Added for several items, each of them smaller than 128 bytes. It may keep sizes.
func (b *Batch) AddedSmall(sizes []byte) {
	switch {
	case len(sizes) == 0:
	case !b.Varied() && (b.Count == 0 || b.ItemSize == uint32(sizes[0])) && uniform(sizes):
		b.ItemSize = uint32(sizes[0])
		b.Count += uint32(len(sizes))
	case b.Len() == 0 && b.Sizes == nil && cap(b.Small) < len(sizes):
		b.ItemSize, b.Count, b.Small = 0, 0, sizes
	default:
		if b.Small == nil {
			b.vary(int(sizes[0]))
			sizes = sizes[1:]
		}
		if b.Small != nil {
			b.Small = append(b.Small, sizes...)
			return
		}
		for _, s := range sizes {
			b.Sizes = append(b.Sizes, uint32(s))
		}
	}
}

// uniform tells whether all sizes are the same.
func uniform(sizes []byte) bool {
	for _, s := range sizes {
		if s != sizes[0] {
			return false
		}
	}
	return true
}

// AppendRange adds n items of src, from place from on, whose bytes begin at off.
func (b *Batch) AppendRange(src *Batch, from, n, off int) {
	if size := src.Bytes(from, n); src.Apart != nil {
		part := cut(src.Apart, off, size)
		for _, p := range part {
			b.Data = append(b.Data, p.ReadOnlyData()...)
		}
		part.Free()
	} else {
		b.Data = append(b.Data, src.Data[off:off+size]...)
	}
	if b.Small != nil && src.Small != nil {
		b.Small = append(b.Small, src.Small[from:from+n]...)
		return
	}
	if !src.Varied() && src.ItemSize < smallSize && b.Small != nil {
		b.Small = slices.Grow(b.Small, n)
		for range n {
			b.Small = append(b.Small, byte(src.ItemSize))
		}
		return
	}
	if src.Small != nil {
		b.AddedSmall(slices.Clone(src.Small[from : from+n]))
		return
	}
	for i := range n {
		b.Added(src.Size(from + i))
	}
}

// Slice is n items from place from on, whose bytes begin at off, without a copy. It has to be given back like b itself.
func (b *Batch) Slice(from, n, off, bytes int) Batch {
	var s Batch
	switch {
	case b.Apart == nil:
		s.Data = b.Data[off : off+bytes : off+bytes]
	case bytes >= refFrom:
		s.Apart = cut(b.Apart, off, bytes)
	case bytes > 0: // too small to be counted
		s.Data = make([]byte, 0, bytes)
		for _, p := range cut(b.Apart, off, bytes) {
			s.Data = append(s.Data, p.ReadOnlyData()...)
			p.Free()
		}
	}
	switch {
	case b.Small != nil:
		s.Small = b.Small[from : from+n : from+n]
	case b.Sizes != nil:
		s.Sizes = b.Sizes[from : from+n : from+n]
	default:
		s.ItemSize, s.Count = b.ItemSize, uint32(n)
	}
	return s
}

// Reset empties the batch and keeps its memory. The batch must not have been handed to the codec's by-reference path.
func (b *Batch) Reset() {
	b.Data, b.Count, b.ItemSize = b.Data[:0], 0, 0
	b.Small, b.Sizes = nil, nil
}

// Items walks over the batch. It puts it together first, if it lies apart.
func (b *Batch) Items() Items {
	b.gather()
	return Items{b: b}
}

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

// Rest is what has not been walked over: its bytes, and a size for each item or one for all of them. Of a batch that has Sizes it is empty.
func (it *Items) Rest() (data, sizes []byte, size int) {
	switch b := it.b; {
	case b.Small != nil:
		return b.Data[it.off:], b.Small[it.i:], 0
	case b.Sizes != nil:
		return nil, []byte{}, 0
	default:
		return b.Data[it.off:], nil, int(b.ItemSize)
	}
}

// Skip walks over n items.
func (it *Items) Skip(n int) {
	it.off += it.b.Bytes(it.i, n)
	it.i += n
}

// Item is the current item: a part of the batch, not a copy.
func (it *Items) Item() []byte { return it.item }

var errTruncated = errors.New("truncated message")
