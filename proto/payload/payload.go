// Package payload turns Go values into the bytes of items and results, and back.
//
// An encoding is chosen once per type, not per value: []byte travels as it is ("bytes"), protobuf messages as "proto", everything
// else as "json". Integers, floats, booleans and strings are JSON too, but by hand-written code: encoding/json takes
// some 700 ns for an int, strconv 70.
package payload

import (
	"bytes"
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

	// AppendAll is Append for many values: their bytes go to dst, their sizes to sizes. It returns how many there were before one that it
	// leaves to Append, as it must one of 128 bytes or more. Nil: it leaves all of them.
	AppendAll func(dst, sizes []byte, values []T) (data, newSizes []byte, n int)
	// DecodeAll is Decode for many: sizes are theirs; nil if each has size bytes. It returns how many there were before one that it leaves to
	// Decode, and keeps nothing. Nil: it leaves all of them.
	DecodeAll func(values []T, data, sizes []byte, size int) (n int)
}

// Encodings are those of a function. Of is the function itself: one that is made of another, and has methods of its own, must not be taken for that.
type Encodings[A, R any] struct {
	Of     any
	Arg    Encoding[A]
	Result Encoding[R]
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
