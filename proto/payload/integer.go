package payload

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strconv"
)

// Integers are what most trivial functions take and return, so they are worth code of their own: a million of them should cost a few
// milliseconds. They are written and read eight digits at a time.

type signed interface {
	int | int8 | int16 | int32 | int64
}

type natural interface {
	uint | uint8 | uint16 | uint32 | uint64
}

func integer[T signed]() Encoding[T] {
	return Encoding[T]{
		Name: NameJSON,
		Append: func(dst []byte, v T) ([]byte, error) {
			if v >= 0 {
				return appendNatural(dst, uint64(v)), nil
			}
			return strconv.AppendInt(dst, int64(v), 10), nil
		},
		Decode: func(b []byte) (T, error) {
			if i, ok := smallInt(b); ok && int64(T(i)) == i {
				return T(i), nil
			}
			return decodeAny[T](b)
		},
		AppendAll: appendAll[T],
		DecodeAll: decodeAll[T],
	}
}

func unsigned[T natural]() Encoding[T] {
	return Encoding[T]{
		Name:   NameJSON,
		Append: func(dst []byte, v T) ([]byte, error) { return appendNatural(dst, uint64(v)), nil },
		Decode: func(b []byte) (T, error) {
			if i, ok := smallInt(b); ok && i >= 0 && int64(T(i)) == i {
				return T(i), nil
			}
			return decodeAny[T](b)
		},
		AppendAll: appendAll[T],
		DecodeAll: decodeAll[T],
	}
}

func appendAll[T signed | natural](dst, sizes []byte, values []T) (data, newSizes []byte, n int) {
	sizes = slices.Grow(sizes, len(values))
	for _, v := range values {
		start := len(dst)
		switch {
		case v < 0:
			dst = strconv.AppendInt(dst, int64(v), 10)
		case uint64(v) < 1e8 && cap(dst)-start >= 8:
			text, n := digits(uint64(v))
			binary.LittleEndian.PutUint64(dst[start:start+8], text)
			dst = dst[:start+n]
		default:
			dst = appendNatural(dst, uint64(v))
		}
		sizes = append(sizes, byte(len(dst)-start))
	}
	return dst, sizes, len(values)
}

func decodeAll[T signed | natural](values []T, data, sizes []byte, size int) (n int) {
	if sizes != nil {
		values = values[:len(sizes)]
	}
	for i := range values {
		if sizes != nil {
			size = int(sizes[i])
		}
		v, ok := int64(0), false
		if uint(size-1) < 8 && len(data) >= 8 {
			var u uint64
			u, ok = natural8(binary.LittleEndian.Uint64(data), size)
			v = int64(u)
		}
		if !ok {
			v, ok = smallInt(data[:size])
		}
		if !ok || int64(T(v)) != v || (T(v) < 0) != (v < 0) {
			return i
		}
		values[i] = T(v)
		data = data[size:]
	}
	return len(values)
}

// natural8 reads a decimal number of 1 to 8 digits, the first of which is the lowest byte of v. What follows them is ignored.
func natural8(v uint64, n int) (uint64, bool) {
	if v&0xff == '0' && n > 1 {
		return 0, false
	}
	unused := uint(64 - 8*n)
	return eightDigits(v<<unused | 0x3030303030303030&(1<<unused-1))
}

// smallInt reads a decimal integer of up to 18 digits, in the one form that our own encoders write.
func smallInt(b []byte) (v int64, ok bool) {
	digits := b
	if len(digits) > 0 && digits[0] == '-' {
		digits = digits[1:]
	}
	if len(digits) == 0 || len(digits) > 18 || (digits[0] == '0' && len(b) > 1) {
		return 0, false
	}
	for len(digits) >= 8 {
		eight, ok := eightDigits(binary.LittleEndian.Uint64(digits))
		if !ok {
			return 0, false
		}
		v = v*1e8 + int64(eight)
		digits = digits[8:]
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	if b[0] == '-' {
		v = -v
	}
	return v, true
}

// eightDigits reads eight decimal digits, the first of which is the lowest byte: it adds up neighbours, then pairs, then fours. The method
// is Johnny Lee's; see D. Lemire, "Quickly parsing eight digits", 2018.
func eightDigits(v uint64) (uint64, bool) {
	const zeros, high = 0x3030303030303030, 0xf0f0f0f0f0f0f0f0
	if v&high != zeros || (v+0x0606060606060606)&high != zeros {
		return 0, false
	}
	v -= zeros
	v = v*10 + v>>8
	return ((v&0x000000ff000000ff)*(100+1000000<<32) + (v>>16&0x000000ff000000ff)*(1+10000<<32)) >> 32, true
}

// digits writes v, which is less than 1e8, as n decimal digits, the first of which is the lowest byte of text. It is eightDigits backwards: it splits
// eight digits into fours, these into pairs, these into digits. A quotient is a product with the reciprocal, which is exact for numbers so small.
func digits(v uint64) (text uint64, n int) {
	v = v/1e4 | v%1e4<<32
	hundreds := v * 10486 >> 20 & 0x0000007f0000007f
	v = hundreds | (v-100*hundreds)<<16
	tens := v * 103 >> 10 & 0x000f000f000f000f
	v = tens | (v-10*tens)<<8
	zeros := min(uint(bits.TrailingZeros64(v))&^7, 56)
	return (v | 0x3030303030303030) >> zeros, 8 - int(zeros>>3)
}

// appendNatural appends v in decimal.
func appendNatural(dst []byte, v uint64) []byte {
	if v >= 1e8 {
		return strconv.AppendUint(dst, v, 10)
	}
	text, n := digits(v)
	start := len(dst)
	if cap(dst)-start < 8 {
		dst = slices.Grow(dst, 8)
	}
	binary.LittleEndian.PutUint64(dst[start:start+8], text)
	return dst[:start+n]
}
