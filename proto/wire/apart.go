package wire

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Large payload that is only passed on need not be put together: it stays in the buffers in which gRPC has received it, and goes out from there.
//
// Buffers are counted. Who holds a batch whose bytes lie apart holds its buffers: Slice takes them once more, Free gives them back, and so does sending. They then
// serve gRPC for other messages, so a batch must not be used any more after that. One that is forgotten instead is left to the garbage collector.

// apartFrom is the size of a message from which on it is looked whether it can stay in its buffers.
const apartFrom = 32 << 10

// apartItem is the average size of items from which on they are left there. Smaller ones are put together: they come in many chunks, and are results
// that are merged.
const apartItem = 256

// Lend hands the bytes over to the transport, which gives buf back to Buffers when it has sent them. buf is from there, and what the items have been
// appended to. The batch can be sent once, and nothing else can be done with it.
func (b *Batch) Lend(buf *[]byte) {
	if buf == nil || len(b.Data) < refFrom || cap(b.Data) != cap(*buf) || &b.Data[0] != &(*buf)[:1][0] {
		return // there is little, or it has outgrown the buffer: that is left to the collector
	}
	*buf = b.Data
	b.Data, b.Apart = nil, mem.BufferSlice{mem.NewBuffer(buf, Buffers)}
}

// AppendApart adds n items of src like AppendRange, but takes large ones as they are. Either all or none of what b is made of have to be added so.
func (b *Batch) AppendApart(src *Batch, from, n, off, bytes int) {
	part := src.Slice(from, n, off, bytes)
	if part.Apart == nil {
		part.Apart = mem.BufferSlice{mem.SliceBuffer(part.Data)}
	}
	b.Apart = append(b.Apart, part.Apart...)
	if part.Small != nil {
		b.AddedSmall(slices.Clone(part.Small))
		return
	}
	for i := range n {
		b.Added(part.Size(i))
	}
}

// Total is the size of all items together.
func (b *Batch) Total() int {
	if b.Apart != nil {
		return b.Apart.Len()
	}
	return len(b.Data)
}

// Free gives the buffers back, if the batch has some. It is empty then.
func (b *Batch) Free() {
	if b.Apart != nil {
		b.Apart.Free()
		*b = Batch{}
	}
}

// gather puts the bytes together.
func (b *Batch) gather() {
	if b.Apart != nil {
		apart := b.Apart
		b.Data, b.Apart = apart.Materialize(), nil
		apart.Free()
	}
}

// cut is n bytes from off on, still apart.
func cut(list mem.BufferSlice, off, n int) mem.BufferSlice {
	out := make(mem.BufferSlice, 0, min(len(list), 2+n/(16<<10)))
	for _, b := range list {
		size := b.Len()
		if off >= size {
			off -= size
			continue
		}
		if n == 0 {
			break
		}
		k := min(n, size-off)
		out = append(out, b.Slice(off, off+k))
		off = 0
		n -= k
	}
	return out
}

// Free gives back the buffers of all results.
func (m *AttachRequest) Free() {
	for i := range m.Results {
		m.Results[i].Values.Free()
	}
}

// scattered is a message whose large items may stay in its buffers.
type scattered interface {
	message
	decodeApart(*source) error
}

// source reads a message out of its buffers.
type source struct {
	list  mem.BufferSlice // the first is being read
	off   int             // in the first
	left  int             // bytes, up to the end of the message or of a field that is read as one
	large int             // items that are so large on average stay apart
}

func newSource(list mem.BufferSlice, large int) *source {
	return &source{list: list, left: list.Len(), large: large}
}

// rest is what remains of the first buffer.
func (s *source) rest() []byte {
	for len(s.list) > 0 && s.off == s.list[0].Len() {
		s.list, s.off = s.list[1:], 0
	}
	if len(s.list) == 0 || s.left == 0 {
		return nil
	}
	b := s.list[0].ReadOnlyData()[s.off:]
	return b[:min(len(b), s.left)]
}

func (s *source) skip(n int) {
	s.off += n
	s.left -= n
}

func (s *source) varint() (uint64, error) {
	if v, n := protowire.ConsumeVarint(s.rest()); n > 0 {
		s.skip(n)
		return v, nil
	}
	var buf [10]byte // it lies in two buffers, or is none
	n := 0
	for n < len(buf) {
		b := s.rest()
		if b == nil {
			break
		}
		buf[n] = b[0]
		n++
		s.skip(1)
		if b[0] < 0x80 {
			break
		}
	}
	v, k := protowire.ConsumeVarint(buf[:n])
	if k < 0 {
		return 0, protowire.ParseError(k)
	}
	return v, nil
}

// field is the next field's number and type; of a bytes field also the length of its content, which comes next. It is io.EOF at the end.
func (s *source) field() (num protowire.Number, typ protowire.Type, n int, err error) {
	if s.left == 0 {
		return 0, 0, 0, io.EOF
	}
	v, err := s.varint()
	if err != nil {
		return 0, 0, 0, err
	}
	num, typ = protowire.DecodeTag(v)
	if !num.IsValid() {
		return 0, 0, 0, fmt.Errorf("tag %d has no field number that is allowed", v)
	}
	if typ != protowire.BytesType {
		return num, typ, 0, nil
	}
	size, err := s.varint()
	if err == nil && size > uint64(s.left) {
		err = io.ErrUnexpectedEOF
	}
	return num, typ, int(size), err
}

// appendTo appends the next n bytes to dst.
func (s *source) appendTo(dst []byte, n int) ([]byte, error) {
	for n > 0 {
		b := s.rest()
		if b == nil {
			return dst, io.ErrUnexpectedEOF
		}
		b = b[:min(len(b), n)]
		dst = append(dst, b...)
		s.skip(len(b))
		n -= len(b)
	}
	return dst, nil
}

var errGroup = errors.New("groups are not part of the protocol")

// copyField appends to dst the field whose beginning has been read.
func (s *source) copyField(dst []byte, num protowire.Number, typ protowire.Type, n int) ([]byte, error) {
	dst = protowire.AppendTag(dst, num, typ)
	switch typ {
	case protowire.BytesType:
		return s.appendTo(protowire.AppendVarint(dst, uint64(n)), n)
	case protowire.VarintType:
		v, err := s.varint()
		return protowire.AppendVarint(dst, v), err
	case protowire.Fixed32Type:
		return s.appendTo(dst, 4)
	case protowire.Fixed64Type:
		return s.appendTo(dst, 8)
	default:
		return dst, errGroup
	}
}

// within reads the next n bytes as a message of their own.
func (s *source) within(n int, read func() error) error {
	after := s.left - n
	s.left = n
	err := read()
	s.left = after
	return err
}

// take is the next n bytes, apart.
func (s *source) take(n int) mem.BufferSlice {
	out := cut(s.list, s.off, n)
	s.left -= n
	s.off += n
	for len(s.list) > 0 && s.off >= s.list[0].Len() {
		s.off -= s.list[0].Len()
		s.list = s.list[1:]
	}
	return out
}

// decodeApart reads a batch. Its bytes stay in their buffers if its items are large.
func (b *Batch) decodeApart(s *source) error {
	var small []byte
	var apart mem.BufferSlice
	for {
		num, typ, n, err := s.field()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && num == 1 && typ == protowire.BytesType {
			apart.Free() // the last one counts
			apart = s.take(n)
			continue
		}
		if err == nil {
			small, err = s.copyField(small, num, typ, n)
		}
		if err != nil {
			apart.Free()
			return err
		}
	}
	if err := b.parse(small); err != nil {
		apart.Free()
		return err
	}
	if len(apart) == 0 {
		return nil
	}
	b.Apart = apart
	if apart.Len() < s.large*b.Len() {
		b.gather()
	}
	return nil
}

func (m *CallRequest) decodeApart(s *source) error {
	var rest []byte
	var items Batch
	for {
		num, typ, n, err := s.field()
		switch {
		case errors.Is(err, io.EOF):
			if err := m.decode(rest); err != nil {
				items.Free()
				return err
			}
			m.Items, m.Bad = items, items.Check()
			return nil
		case err != nil:
		case num == 10 && typ == protowire.BytesType:
			items.Free()
			err = s.within(n, func() error { return items.decodeApart(s) })
		default:
			rest, err = s.copyField(rest, num, typ, n)
		}
		if err != nil {
			items.Free()
			return err
		}
	}
}

func (m *AttachRequest) decodeApart(s *source) error {
	results := m.Results[:0]
	var head []byte
	for {
		num, typ, n, err := s.field()
		switch {
		case errors.Is(err, io.EOF):
			err = m.decode(head)
			if m.Results = results; err != nil {
				m.Free()
			}
			return err
		case err != nil:
		case num == 3 && typ == protowire.BytesType:
			results = append(results, ChunkResults{})
			err = s.within(n, func() error { return results[len(results)-1].decodeApart(s) })
		default:
			head, err = s.copyField(head, num, typ, n)
		}
		if err != nil {
			m.Results = results
			m.Free()
			return err
		}
	}
}

func (r *ChunkResults) decodeApart(s *source) error {
	var rest []byte
	var values Batch
	for {
		num, typ, n, err := s.field()
		switch {
		case errors.Is(err, io.EOF):
			if err = r.decode(rest); err == nil {
				r.Values, err = values, values.Check()
			}
			if err != nil {
				values.Free()
			}
			return err
		case err != nil:
		case num == 3 && typ == protowire.BytesType:
			values.Free()
			err = s.within(n, func() error { return values.decodeApart(s) })
		default:
			rest, err = s.copyField(rest, num, typ, n)
		}
		if err != nil {
			values.Free()
			return err
		}
	}
}
