package client

import "github.com/procpool/procpool/proto/payload"

// Function is a function that workers offer, as its caller sees it: a name, and how to turn an argument into bytes and bytes into a
// result. Functions registered by package workerproc are Functions; [Func] makes one for a program that does not contain the worker's code.
//
// The methods are called from several goroutines at once. An error or a panic in AppendArg or DecodeResult fails that task only.
type Function[A, R any] interface {
	// Name is the name under which the workers know the function.
	Name() string
	// Encoding names the encoding of arguments and results: "json", "proto", "bytes" or another. Empty if it is not known.
	Encoding() string
	// AppendArg appends the encoded argument to dst.
	AppendArg(dst []byte, arg A) ([]byte, error)
	// DecodeResult decodes a result. It may keep b, or a part of it; b may be a part of a message of up to 1 MiB.
	DecodeResult(b []byte) (R, error)
}

// many is what a Function may be besides: one that encodes and decodes many small values without a call for each. What these methods leave over is
// done by AppendArg and DecodeResult.
type many[A, R any] interface {
	// AppendArgs appends the encoded arguments to dst and their sizes, which are less than 128, to sizes. It returns how many.
	AppendArgs(dst, sizes []byte, args []A) (data, newSizes []byte, n int)
	// DecodeResults decodes results that lie one after the other in data. Each has one of sizes, or, if that is nil, size bytes. It returns how many.
	DecodeResults(results []R, data, sizes []byte, size int) (n int)
}

// Func is the function that workers offer under name. The encodings follow from the types: []byte travels as it is, protobuf messages as
// protobuf, everything else as JSON. They have to be the worker's; a call with another encoding ends with [ErrEncoding].
func Func[A, R any](name string) Function[A, R] {
	return remote[A, R]{name: name, arg: payload.For[A](), result: payload.For[R]()}
}

type remote[A, R any] struct {
	name   string
	arg    payload.Encoding[A]
	result payload.Encoding[R]
}

func (f remote[A, R]) Name() string { return f.name }

// Encoding is the arguments' one: it decides what a caller may send.
func (f remote[A, R]) Encoding() string { return f.arg.Name }

func (f remote[A, R]) AppendArg(dst []byte, arg A) ([]byte, error) { return f.arg.Append(dst, arg) }

func (f remote[A, R]) DecodeResult(b []byte) (R, error) { return f.result.Decode(b) }

func (f remote[A, R]) AppendArgs(dst, sizes []byte, args []A) (data, newSizes []byte, n int) {
	return f.arg.AppendMany(dst, sizes, args)
}

func (f remote[A, R]) DecodeResults(results []R, data, sizes []byte, size int) (n int) {
	return f.result.DecodeMany(results, data, sizes, size)
}
