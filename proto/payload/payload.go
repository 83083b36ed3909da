// Package payload turns Go values into the bytes of items and results, and back.
//
// An encoding is chosen once per type, not per value: []byte travels as it is ("bytes"), protobuf messages as "proto", everything
// else as "json". Integers, floats, booleans and strings are JSON too, but by hand-written code: encoding/json takes
// some 700 ns for an int, strconv 70.
package payload

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
)

// Names of the encodings, as they appear in Function.encoding of the protocol.
const (
	NameJSON  = "json"
	NameProto = "proto"
	NameBytes = "bytes"
)

// Encoding turns values of one type into bytes and back.
type Encoding[T any] struct {
	// Name of the encoding: "json", "proto", "bytes" or one of your own.
	Name string
	// Append appends the encoded value to dst.
	Append func(dst []byte, v T) ([]byte, error)
	// Decode decodes a value. It may keep b, which nobody else uses: see keepFrom.
	Decode func(b []byte) (T, error)
}

// keepFrom is from which size on bytes are not copied once more. They hold on to the message that they came in, which has 1 MiB if it has more than one item.
const keepFrom = 256 << 10

func decodeBytes(b []byte) ([]byte, error) {
	if len(b) >= keepFrom {
		return b, nil
	}
	return bytes.Clone(b), nil
}

// For is the encoding of T.
func For[T any]() Encoding[T] {
	var zero T
	switch any(zero).(type) {
	case []byte:
		return as[T](Encoding[[]byte]{
			Name:   NameBytes,
			Append: func(dst, v []byte) ([]byte, error) { return append(dst, v...), nil },
			Decode: decodeBytes,
		})
	case proto.Message:
		return message[T]()
	}
	return JSON[T]()
}

// as is e, whose type is T although the compiler cannot see it.
func as[T, U any](e Encoding[U]) Encoding[T] { return any(e).(Encoding[T]) }

// message is the encoding of a pointer to a generated message.
func message[T any]() Encoding[T] {
	elem := reflect.TypeFor[T]().Elem()
	return Encoding[T]{
		Name: NameProto,
		Append: func(dst []byte, v T) ([]byte, error) {
			return proto.MarshalOptions{}.MarshalAppend(dst, any(v).(proto.Message))
		},
		Decode: func(b []byte) (T, error) {
			v := reflect.New(elem).Interface()
			err := proto.Unmarshal(b, v.(proto.Message))
			return v.(T), err
		},
	}
}

// JSON is the JSON encoding of T.
func JSON[T any]() Encoding[T] {
	var zero T
	switch any(zero).(type) {
	case int:
		return as[T](integer[int]())
	case int8:
		return as[T](integer[int8]())
	case int16:
		return as[T](integer[int16]())
	case int32:
		return as[T](integer[int32]())
	case int64:
		return as[T](integer[int64]())
	case uint:
		return as[T](unsigned[uint]())
	case uint8:
		return as[T](unsigned[uint8]())
	case uint16:
		return as[T](unsigned[uint16]())
	case uint32:
		return as[T](unsigned[uint32]())
	case uint64:
		return as[T](unsigned[uint64]())
	case float64:
		return as[T](Encoding[float64]{Name: NameJSON, Append: appendFloat, Decode: decodeFloat})
	case bool:
		return as[T](Encoding[bool]{Name: NameJSON, Append: appendBool, Decode: decodeBool})
	case string:
		return as[T](Encoding[string]{Name: NameJSON, Append: appendString, Decode: decodeString})
	}
	return Encoding[T]{Name: NameJSON, Append: appendAny[T], Decode: decodeAny[T]}
}

func appendAny[T any](dst []byte, v T) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

func decodeAny[T any](b []byte) (v T, err error) {
	return v, json.Unmarshal(b, &v)
}

func integer[T int | int8 | int16 | int32 | int64]() Encoding[T] {
	return Encoding[T]{
		Name:   NameJSON,
		Append: func(dst []byte, v T) ([]byte, error) { return strconv.AppendInt(dst, int64(v), 10), nil },
		Decode: func(b []byte) (T, error) {
			if i, ok := smallInt(b); ok && int64(T(i)) == i {
				return T(i), nil
			}
			return decodeAny[T](b)
		},
	}
}

func unsigned[T uint | uint8 | uint16 | uint32 | uint64]() Encoding[T] {
	return Encoding[T]{
		Name:   NameJSON,
		Append: func(dst []byte, v T) ([]byte, error) { return strconv.AppendUint(dst, uint64(v), 10), nil },
		Decode: func(b []byte) (T, error) {
			if i, ok := smallInt(b); ok && i >= 0 && int64(T(i)) == i {
				return T(i), nil
			}
			return decodeAny[T](b)
		},
	}
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

func appendFloat(dst []byte, v float64) ([]byte, error) {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return dst, fmt.Errorf("JSON has no number for %v", v)
	}
	return strconv.AppendFloat(dst, v, 'g', -1, 64), nil
}

func decodeFloat(b []byte) (float64, error) {
	if !json.Valid(b) || len(b) == 0 || b[0] == '"' {
		return decodeAny[float64](b)
	}
	if v, err := strconv.ParseFloat(string(b), 64); err == nil && !math.IsInf(v, 0) && !math.IsNaN(v) {
		return v, nil
	}
	return decodeAny[float64](b)
}

func appendBool(dst []byte, v bool) ([]byte, error) { return strconv.AppendBool(dst, v), nil }

func decodeBool(b []byte) (bool, error) {
	switch string(b) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return decodeAny[bool](b)
}

var errUTF8 = errors.New("the string is not valid UTF-8, which JSON cannot hold; use []byte")

// appendString differs from encoding/json in one point: a string that is not UTF-8 is an error, not another string.
func appendString(dst []byte, v string) ([]byte, error) {
	for i := range len(v) {
		if c := v[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			if !utf8.ValidString(v) {
				return dst, errUTF8
			}
			return appendAny(dst, v)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, v...)
	return append(dst, '"'), nil
}

func decodeString(b []byte) (string, error) {
	if n := len(b); n >= 2 && b[0] == '"' && b[n-1] == '"' {
		plain := true
		for _, c := range b[1 : n-1] {
			if c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
				plain = false
				break
			}
		}
		if plain {
			return string(b[1 : n-1]), nil
		}
	}
	return decodeAny[string](b)
}
