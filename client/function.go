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

// encodingsOf is how fn encodes and decodes many small values without a call for each, if it says so: see payload.Encoding. What is left over is done by
// its methods.
func encodingsOf[A, R any](fn Function[A, R]) (e payload.Encodings[A, R]) {
	if f, ok := fn.(interface {
		Encodings() payload.Encodings[A, R]
	}); ok {
		if e = f.Encodings(); e.Of != any(fn) {
			return payload.Encodings[A, R]{} // fn is made of it, and may have methods of its own
		}
	}
	return e
}

// Func is the function that workers offer under name. The encodings follow from the types: []byte travels as it is, protobuf messages as
// protobuf, everything else as JSON. They have to be the worker's; a call with another encoding ends with [ErrEncoding].
func Func[A, R any](name string) Function[A, R] {
	return &remote[A, R]{name: name, arg: payload.For[A](), result: payload.For[R]()}
}

type remote[A, R any] struct {
	name   string
	arg    payload.Encoding[A]
	result payload.Encoding[R]
}

func (f *remote[A, R]) Name() string { return f.name }

// Encoding is the arguments' one: it decides what a caller may send.
func (f *remote[A, R]) Encoding() string { return f.arg.Name }

func (f *remote[A, R]) AppendArg(dst []byte, arg A) ([]byte, error) { return f.arg.Append(dst, arg) }

func (f *remote[A, R]) DecodeResult(b []byte) (R, error) { return f.result.Decode(b) }

// Encodings is for encodingsOf.
func (f *remote[A, R]) Encodings() payload.Encodings[A, R] {
	return payload.Encodings[A, R]{Of: f, Arg: f.arg, Result: f.result}
}
