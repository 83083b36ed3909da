package workerproc

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/procpool/procpool/proto/payload"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// Function is a function that this program offers when it is a worker, and that it may call through a pool when it is not. It is a
// client.Function.
type Function[A, R any] struct {
	name   string
	f      func(context.Context, A) (R, error)
	arg    payload.Encoding[A]
	result payload.Encoding[R]
}

// Func registers f under name. Call it when the program initialises, in a package-level variable:
//
//	var countChars = workerproc.Func("count_chars", func(ctx context.Context, file string) (int, error) { … })
//
// Arguments and results are encoded by type: []byte as it is, protobuf messages as protobuf, everything else as JSON. f runs in worker
// processes, one task at a time in each. Its context ends when the task is cancelled, runs into its timeout, or the call's
// deadline passes. An error, a panic or runtime.Goexit fails the task and nothing else.
//
// Func panics if name is empty, has more than 200 bytes, or is registered already.
func Func[A, R any](name string, f func(ctx context.Context, arg A) (R, error)) *Function[A, R] {
	return FuncWith(name, payload.For[A](), payload.For[R](), f)
}

// FuncWith is Func with encodings of your own. People can call a function by JSON (with grpcurl, say) if its argument's encoding is
// named "json".
func FuncWith[A, R any](name string, arg payload.Encoding[A], result payload.Encoding[R], f func(ctx context.Context, arg A) (R, error)) *Function[A, R] {
	fn := &Function[A, R]{name: name, f: f, arg: arg, result: result}
	register(&registered{Function: &pb.Function{Name: name, Encoding: arg.Name}, run: fn.run, runSmall: fn.runSmall})
	return fn
}

// Name is the name under which the function was registered.
func (f *Function[A, R]) Name() string { return f.name }

// Encoding names the encoding of its arguments.
func (f *Function[A, R]) Encoding() string { return f.arg.Name }

// AppendArg appends the encoded argument to dst.
func (f *Function[A, R]) AppendArg(dst []byte, arg A) ([]byte, error) { return f.arg.Append(dst, arg) }

// DecodeResult decodes a result.
func (f *Function[A, R]) DecodeResult(b []byte) (R, error) { return f.result.Decode(b) }

// Encodings are what a client needs to encode and decode many small values without a call for each of them.
func (f *Function[A, R]) Encodings() payload.Encodings[A, R] {
	return payload.Encodings[A, R]{Of: f, Arg: f.arg, Result: f.result}
}

// Call runs the function here, without a pool.
func (f *Function[A, R]) Call(ctx context.Context, arg A) (R, error) { return f.f(ctx, arg) }

// run is the function as the worker sees it: bytes in, bytes appended to dst out.
func (f *Function[A, R]) run(ctx context.Context, arg, dst []byte) ([]byte, error) {
	a, err := f.arg.Decode(arg)
	if err != nil {
		return dst, fmt.Errorf("decode the argument of %s as %T: %w", f.name, a, err)
	}
	r, err := f.f(ctx, a)
	if err != nil {
		return dst, err
	}
	out, err := f.result.Append(dst, r)
	if err != nil {
		return dst, fmt.Errorf("encode the result of %s: %w", f.name, err)
	}
	return out, nil
}

// runSmall runs the tasks of a claim. Their results are written one behind the other; a larger one is taken out, and ends it. The loop is here, where the
// types are known, and integers are decoded together: a few calls less are a third of what a trivial task costs.
func (f *Function[A, R]) runSmall(s *session, t *task) {
	c, w, own := t.chunk, s.progress, t.own
	var args []A // that have been decoded
	if f.arg.DecodeAll != nil {
		all, ok := t.args.([]A)
		if !ok {
			all = make([]A, strideMost)
			t.args = all
		}
		all = all[:t.end-t.offset]
		data, sizes, size := c.items.Rest()
		args = all[:f.arg.DecodeAll(all, data, sizes[:min(len(all), len(sizes))], size)]
	}
	for {
		var arg A
		var err error
		space := w.space()
		result := space
		t.started = true
		if len(args) > 0 {
			arg, args = args[0], args[1:]
			c.items.Skip(1)
		} else {
			c.items.Next()
			if arg, err = f.arg.Decode(c.items.Item()); err != nil {
				err = fmt.Errorf("decode the argument of %s as %T: %w", f.name, arg, err)
			}
		}
		if err == nil {
			var r R
			if r, err = f.f(own, arg); err == nil {
				if result, err = f.result.Append(space, r); err != nil {
					err = fmt.Errorf("encode the result of %s: %w", f.name, err)
				}
			}
		}
		t.started = false
		if err != nil || !w.append(space, result) {
			t.result, t.failed, t.ended = result, err, true
			t.small = err != nil
			return
		}
		t.offset++
		if t.offset == t.end {
			return
		}
		w.begin(t.offset)
		if s.held.Load() { // then this task has not been started; see hold
			return
		}
	}
}

// registered is a function with its types forgotten.
type registered struct {
	*pb.Function
	run func(ctx context.Context, arg, dst []byte) ([]byte, error)
	// runSmall is session.runClaim for tasks whose results have been small so far.
	runSmall func(s *session, t *task)
}

// registry is what this program offers.
var registry struct {
	sync.Mutex
	functions []*registered
	init      func(ctx context.Context, arg []byte) error
	pipe      Pipe // the one function, if it is one
}

func register(f *registered) {
	registry.Lock()
	defer registry.Unlock()
	if f.Name == "" || len(f.Name) > 200 {
		panic(fmt.Sprintf("workerproc.Func: the name %.200q has %d bytes; 1 to 200 are allowed", f.Name, len(f.Name)))
	}
	for _, other := range registry.functions {
		if other.Name == f.Name {
			panic(fmt.Sprintf("workerproc.Func: there are two functions %q; give one of them another name", f.Name))
		}
	}
	registry.functions = append(registry.functions, f)
}

// Init registers what a worker does before its first task. f gets the pool's init argument (client.InitArg), or the zero value if it has
// none. A worker whose init fails does not start; a pool whose workers do not start tells its clients why.
//
// Init panics when it is called a second time.
func Init[A any](f func(ctx context.Context, arg A) error) {
	registry.Lock()
	defer registry.Unlock()
	if registry.init != nil {
		panic("workerproc.Init: there is an init function already; a program has one")
	}
	encoding := payload.For[A]()
	registry.init = func(ctx context.Context, b []byte) error {
		var arg A
		if len(b) > 0 {
			var err error
			if arg, err = encoding.Decode(b); err != nil {
				return fmt.Errorf("decode the init argument as %T: %w", arg, err)
			}
		}
		return f(ctx, arg)
	}
}

// taskError is an error in the words of the protocol. The error is the function's: a method of it that panics costs the rest of what it had
// to say, and nothing else.
func taskError(err error) (out *pb.TaskError) {
	out = &pb.TaskError{Type: fmt.Sprintf("%T", err), Message: fmt.Sprint(err)} // Sprint survives an Error that panics
	defer func() {
		if r := recover(); r != nil {
			out.Message += fmt.Sprintf(" (the error's own methods panic: %v)", r)
		}
		out.Message = cut(out.Message, 64<<10)
	}()
	var crashed *crash
	if errors.As(err, &crashed) {
		out.Type = crashed.kind
	}
	var stacked interface{ Stack() string }
	if errors.As(err, &stacked) {
		out.Stack = cut(stacked.Stack(), 64<<10)
	}
	var detailed interface{ Detail() []byte }
	if errors.As(err, &detailed) {
		if out.Detail = detailed.Detail(); len(out.Detail) > 1<<20 {
			out.Detail = nil
			out.Message += " (its detail is over 1 MiB and left out)"
		}
	}
	return out
}

func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return validUTF8(s)
}
