package wire

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec for every other message
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Codec is the gRPC codec of all our ends. It goes by the name "proto", because that is what it writes.
//
// A message given to it for sending must not be changed afterwards: large payloads are handed to the transport as they are.
type Codec struct {
	// Apart leaves large items in gRPC's buffers: for an end that only passes them on. See Batch.
	Apart bool
}

var generated = encoding.GetCodecV2("proto")

// Name is the content subtype.
func (Codec) Name() string { return "proto" }

// message is one of the hot four, in the form of this package.
type message interface {
	size() int           // of the encoding, in bytes
	encode(*encoder)     // appends size() bytes
	decode([]byte) error // keeps references to the argument
}

// Marshal encodes v.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(message)
	if !ok {
		return generated.Marshal(v)
	}
	n := m.size()
	if n > MaxMessage {
		return nil, status.Errorf(codes.ResourceExhausted, "message of %d bytes is over the limit of %d", n, MaxMessage)
	}
	e := encoder{left: n}
	m.encode(&e)
	return e.finish(), e.err
}

// Unmarshal decodes data into v.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(message)
	if !ok {
		return generated.Unmarshal(data, v)
	}
	var err error
	if a, ok := v.(scattered); ok && c.Apart && len(data) > 1 && data.Len() >= apartFrom {
		err = a.decodeApart(newSource(data, apartItem))
	} else {
		err = m.decode(own(data))
	}
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "decode %T: %v", v, err)
	}
	return nil
}

// own makes the bytes of a received message ours: gRPC takes its buffers back when Unmarshal returns.
func own(data mem.BufferSlice) []byte {
	if len(data) == 1 && data[0].Len() >= refFrom {
		data[0].Ref() // never freed, so the collector gets it and not gRPC's pool
		return data[0].ReadOnlyData()
	}
	return data.Materialize()
}

// refFrom is the size from which payload is handed on by reference; below, a copy is cheaper than another buffer.
const refFrom = 4 << 10

// encoder collects an encoded message as a list of buffers: small things copied, large ones by reference.
type encoder struct {
	buf  []byte // what is being filled
	out  mem.BufferSlice
	left int // bytes still to come: how much to allocate, at most
	err  error
}

func (e *encoder) grow(n int) {
	if cap(e.buf)-len(e.buf) >= n {
		return
	}
	e.flush()
	e.buf = make([]byte, 0, max(n, min(e.left, 8<<10)))
}

func (e *encoder) flush() {
	if len(e.buf) > 0 {
		e.left -= len(e.buf)
		e.out = append(e.out, mem.SliceBuffer(e.buf))
		e.buf = e.buf[len(e.buf):]
	}
}

func (e *encoder) finish() mem.BufferSlice {
	e.flush()
	return e.out
}

// hand hands over buffers as they are.
func (e *encoder) hand(list mem.BufferSlice) {
	e.flush()
	e.left -= list.Len()
	e.out = append(e.out, list...)
}

func (e *encoder) varint(num protowire.Number, v uint64) {
	if v == 0 {
		return
	}
	e.grow(20)
	e.buf = protowire.AppendTag(e.buf, num, protowire.VarintType)
	e.buf = protowire.AppendVarint(e.buf, v)
}

// prefix begins a field of n bytes.
func (e *encoder) prefix(num protowire.Number, n int) {
	e.grow(20)
	e.buf = protowire.AppendTag(e.buf, num, protowire.BytesType)
	e.buf = protowire.AppendVarint(e.buf, uint64(n))
}

func (e *encoder) bytes(b []byte) {
	if len(b) >= refFrom {
		e.flush()
		e.left -= len(b)
		e.out = append(e.out, mem.SliceBuffer(b))
		return
	}
	e.grow(len(b))
	e.buf = append(e.buf, b...)
}

// inline appends the fields of m without a frame of their own: they are fields of the message being encoded.
func (e *encoder) inline(m proto.Message) {
	b, err := proto.MarshalOptions{}.Marshal(m)
	if err != nil {
		e.err = err
		return
	}
	e.bytes(b)
}

func (e *encoder) message(num protowire.Number, m proto.Message) {
	b, err := proto.MarshalOptions{}.Marshal(m)
	if err != nil {
		e.err = err
		return
	}
	e.prefix(num, len(b))
	e.bytes(b)
}

func messageSize(num protowire.Number, m proto.Message) int { return fieldSize(num, proto.Size(m)) }

// fieldSize is the size of a field with n bytes of content.
func fieldSize(num protowire.Number, n int) int {
	return protowire.SizeTag(num) + protowire.SizeBytes(n)
}

func varintSize(num protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeVarint(v)
}

// packedSize is the size of list as varints. Nearly all are small.
func packedSize[T uint32 | uint64](list []T) int {
	n := len(list)
	for _, v := range list {
		if v >= 0x80 {
			n += protowire.SizeVarint(uint64(v)) - 1
		}
	}
	return n
}

// packed appends list as one packed field whose content has n bytes.
func packed[T uint32 | uint64](e *encoder, num protowire.Number, list []T, n int) {
	if len(list) == 0 {
		return
	}
	e.prefix(num, n)
	e.grow(n)
	b := e.buf
	for _, v := range list {
		u := uint64(v)
		for u >= 0x80 {
			b = append(b, byte(u)|0x80)
			u >>= 7
		}
		b = append(b, byte(u))
	}
	e.buf = b
}

func (b *Batch) present() bool { return b.Varied() || b.Count != 0 }

func (b *Batch) size() (n int) {
	if total := b.Total(); total > 0 {
		n += fieldSize(1, total)
	}
	switch {
	case len(b.Small) > 0:
		n += fieldSize(2, len(b.Small))
	case len(b.Sizes) > 0:
		n += fieldSize(2, packedSize(b.Sizes))
	default:
		n += varintSize(3, uint64(b.ItemSize)) + varintSize(4, uint64(b.Count))
	}
	return n
}

// encode appends the batch as field num.
func (b *Batch) encode(e *encoder, num protowire.Number) {
	if !b.present() {
		return
	}
	e.prefix(num, b.size())
	switch {
	case b.Apart != nil:
		e.prefix(1, b.Apart.Len())
		e.hand(b.Apart)
	case len(b.Data) > 0:
		e.prefix(1, len(b.Data))
		e.bytes(b.Data)
	}
	switch {
	case len(b.Small) > 0:
		e.prefix(2, len(b.Small))
		e.bytes(b.Small)
	case len(b.Sizes) > 0:
		packed(e, 2, b.Sizes, packedSize(b.Sizes))
	default:
		e.varint(3, uint64(b.ItemSize))
		e.varint(4, uint64(b.Count))
	}
}

func batchSize(num protowire.Number, b *Batch) int {
	if !b.present() {
		return 0
	}
	return fieldSize(num, b.size())
}

// fields walks over the fields of an encoded message. f gets the content of a bytes field, or the number of a varint field; raw
// is the whole field. Fields of other types are handed over raw as well.
func fields(b []byte, f func(num protowire.Number, typ protowire.Type, v uint64, content, raw []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if !num.IsValid() {
			return fmt.Errorf("field number %d is out of range", num)
		}
		var v uint64
		var content []byte
		var m int
		switch typ {
		case protowire.VarintType:
			v, m = protowire.ConsumeVarint(b[n:])
		case protowire.BytesType:
			content, m = protowire.ConsumeBytes(b[n:])
		default:
			m = protowire.ConsumeFieldValue(num, typ, b[n:])
		}
		if m < 0 {
			return protowire.ParseError(m)
		}
		if err := f(num, typ, v, content, b[:n+m]); err != nil {
			return err
		}
		b = b[n+m:]
	}
	return nil
}

// list appends the numbers of a packed or single field to dst.
func list[T uint32 | uint64](dst []T, typ protowire.Type, v uint64, content []byte) ([]T, error) {
	if typ == protowire.VarintType {
		return append(dst, T(v)), nil
	}
	if typ != protowire.BytesType {
		return dst, errTruncated
	}
	if dst == nil {
		n := 0
		for _, c := range content {
			if c < 0x80 {
				n++
			}
		}
		dst = make([]T, 0, n)
	}
	for i := 0; i < len(content); {
		if c := content[i]; c < 0x80 { // nearly all of them
			dst = append(dst, T(c))
			i++
			continue
		}
		v, n := protowire.ConsumeVarint(content[i:])
		if n < 0 {
			return dst, protowire.ParseError(n)
		}
		dst = append(dst, T(v))
		i += n
	}
	return dst, nil
}

// extend adds an element to a list, one field of size bytes in a message of total bytes. The others are mostly as long, so that tells how many there will be.
func extend[T any](s []T, size, total int) []T {
	var zero T
	if cap(s) == 0 {
		s = make([]T, 0, min(total/size, 1024))
	}
	return append(s, zero)
}

// decode reads a batch and checks it.
func (b *Batch) decode(buf []byte) error {
	if err := b.parse(buf); err != nil {
		return err
	}
	return b.Check()
}

func (b *Batch) parse(buf []byte) error {
	*b = Batch{}
	err := fields(buf, func(num protowire.Number, typ protowire.Type, v uint64, content, _ []byte) (err error) {
		switch {
		case num == 1 && typ == protowire.BytesType:
			b.Data = content
		case num == 2 && typ == protowire.BytesType && b.Sizes == nil && b.Small == nil && allSmall(content):
			b.Small = content
		case num == 2:
			for _, s := range b.Small { // the field has come in several pieces
				b.Sizes = append(b.Sizes, uint32(s))
			}
			b.Small = nil
			b.Sizes, err = list(b.Sizes, typ, v, content)
		case num == 3 && typ == protowire.VarintType:
			b.ItemSize = uint32(v)
		case num == 4 && typ == protowire.VarintType:
			b.Count = uint32(v)
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(b.Sizes) == 0 {
		b.Sizes = nil
	}
	if len(b.Small) == 0 {
		b.Small = nil
	}
	if b.Varied() { // sizes win, as the protocol says
		b.ItemSize, b.Count = 0, 0
	}
	return nil
}

// allSmall tells whether packed varints all have one byte.
func allSmall(packed []byte) bool {
	for len(packed) >= 8 {
		if binary.LittleEndian.Uint64(packed)&0x8080808080808080 != 0 {
			return false
		}
		packed = packed[8:]
	}
	for _, b := range packed {
		if b >= smallSize {
			return false
		}
	}
	return true
}

// unmarshalNew decodes a message into a new T.
func unmarshalNew[T any, P interface {
	*T
	proto.Message
}](content []byte) (P, error) {
	p := P(new(T))
	if err := proto.Unmarshal(content, p); err != nil {
		return nil, fmt.Errorf("decode %s: %w", p.ProtoReflect().Descriptor().Name(), err)
	}
	return p, nil
}
