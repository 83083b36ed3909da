package client

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// Errors of a call, a pool or a daemon, for errors.Is. The daemon's own words are in the [*RefusedError] that carries them.
var (
	ErrUnavailable     = errors.New("no connection to the daemon")            // not running, or gone in the middle of a call
	ErrClosed          = errors.New("client is closed")                       // after Client.Close
	ErrUnknownPool     = errors.New("unknown pool")                           // RefusedError.Known lists those that exist
	ErrPoolExists      = errors.New("pool exists already")                    // choose another name, or use Client.Pool
	ErrPoolClosed      = errors.New("pool is closed")                         // it takes no new calls
	ErrPoolTerminated  = errors.New("pool is terminated")                     // its work has been dropped
	ErrPoolOpen        = errors.New("pool is still open")                     // close or terminate it before joining it
	ErrBootFailure     = errors.New("workers do not start")                   // RefusedError.Exit has the last one's end
	ErrProgram         = errors.New("program cannot be used")                 // not there, not executable, or rebuilt since
	ErrUnknownFunction = errors.New("unknown function")                       // RefusedError.Known lists those that exist
	ErrEncoding        = errors.New("function has another encoding")          // client and worker do not agree
	ErrUnknownCall     = errors.New("unknown call")                           // it has ended, or is another user's
	ErrCallExists      = errors.New("call exists already")                    // its id is in use
	ErrBadRequest      = errors.New("bad request")                            // a setting is wrong
	ErrLimit           = errors.New("limit reached")                          // the message names it
	ErrStopping        = errors.New("daemon is stopping")                     // ask again when it is back
	ErrRestarting      = errors.New("pool is being restarted already")        // wait for the end of that
	ErrUnsupported     = errors.New("not supported here")                     // a setting of the pool cannot be kept: for want of cgroups, or in an inline pool
	ErrDenied          = errors.New("permission denied")                      // the caller may not do this
	ErrNotReady        = errors.New("result is not ready")                    // Result.Successful before the end
	ErrNotServing      = errors.New(notServing)                               // a pool opened by a worker that does not serve
	ErrInput           = errors.New("input failed")                           // the iterator given to IMap panicked
	ErrProtocol        = errors.New("daemon and client disagree on the call") // a defect of one of the two
)

const notServing = "this process was started as a procpool worker, but it does not serve: call workerproc.Main() first in main (and in TestMain)"

// reasons is the one table from the daemon's reasons to errors.
var reasons = map[pb.Reason]error{
	pb.Reason_REASON_UNKNOWN_POOL:     ErrUnknownPool,
	pb.Reason_REASON_POOL_EXISTS:      ErrPoolExists,
	pb.Reason_REASON_POOL_CLOSED:      ErrPoolClosed,
	pb.Reason_REASON_POOL_TERMINATED:  ErrPoolTerminated,
	pb.Reason_REASON_POOL_OPEN:        ErrPoolOpen,
	pb.Reason_REASON_BOOT_FAILURE:     ErrBootFailure,
	pb.Reason_REASON_UNKNOWN_FUNCTION: ErrUnknownFunction,
	pb.Reason_REASON_ENCODING:         ErrEncoding,
	pb.Reason_REASON_UNKNOWN_CALL:     ErrUnknownCall,
	pb.Reason_REASON_BAD_REQUEST:      ErrBadRequest,
	pb.Reason_REASON_LIMIT:            ErrLimit,
	pb.Reason_REASON_STOPPING:         ErrStopping,
	pb.Reason_REASON_PROGRAM:          ErrProgram,
	pb.Reason_REASON_DENIED:           ErrDenied,
	pb.Reason_REASON_CALL_EXISTS:      ErrCallExists,
	pb.Reason_REASON_RESTARTING:       ErrRestarting,
	pb.Reason_REASON_UNSUPPORTED:      ErrUnsupported,
	pb.Reason_REASON_CALL_CANCELLED:   ErrCancelled,
}

// statusCodes says what a status without a Refusal means: one that gRPC itself made.
var statusCodes = map[codes.Code]error{
	codes.Unavailable:       ErrUnavailable,
	codes.Canceled:          context.Canceled,
	codes.DeadlineExceeded:  context.DeadlineExceeded,
	codes.ResourceExhausted: ErrLimit,
	codes.PermissionDenied:  ErrDenied,
	codes.InvalidArgument:   ErrBadRequest,
}

// RefusedError is an RPC that the daemon refused, or that never reached it. errors.Is tells which of this package's errors it is.
type RefusedError struct {
	// Code is the gRPC status.
	Code codes.Code
	// Reason is the daemon's; unspecified if it did not come so far.
	Reason pb.Reason
	// Message is for a person.
	Message string
	// Pool is the name of the pool, if there is one.
	Pool string
	// Known lists what exists instead of an unknown pool or function.
	Known []string
	// Exit is the last worker's end, for ErrBootFailure.
	Exit *WorkerExit
}

// Error is the daemon's message, with a hint if there is no daemon.
func (e *RefusedError) Error() string {
	if e.Is(ErrUnavailable) {
		return fmt.Sprintf("no connection to the daemon: %s (is procpoold running?)", e.Message)
	}
	return e.Message
}

// Is reports whether e is target, one of this package's errors or one of context's.
func (e *RefusedError) Is(target error) bool {
	if err, ok := reasons[e.Reason]; ok {
		return err == target
	}
	err, ok := statusCodes[e.Code]
	return ok && err == target
}

// rpcError is err, the end of an RPC under ctx, with what was attempted. The context's own end wins: gRPC reports it less precisely.
func rpcError(ctx context.Context, err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, contextError(ctx))
	}
	return fmt.Errorf("%s: %w", what, refused(err))
}

// contextError is the end of ctx, with its cause if there is another one.
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if ours := (*ending)(nil); errors.As(cause, &ours) {
		return ours.error
	}
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// ending is the cause of a cancel by the SDK itself. Its error stands alone: the caller has cancelled nothing.
type ending struct{ error }

// refused is a gRPC status as an error of this package.
func refused(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	e := &RefusedError{Code: s.Code(), Message: s.Message()}
	for _, d := range s.Details() {
		r, ok := d.(*pb.Refusal)
		if !ok {
			continue
		}
		e.Reason, e.Pool, e.Known = r.GetReason(), r.GetPool(), r.GetKnown()
		if r.WorkerExit != nil {
			e.Exit = newWorkerExit(r.WorkerExit)
		}
	}
	return e
}

// PanicError is a panic of code that the SDK called on another goroutine than the caller's, or for one task: an input iterator, an
// encoder or a decoder; or one of these, or a callback for output, that has called runtime.Goexit.
type PanicError struct {
	// Value is what panic was given; nil for runtime.Goexit.
	Value any
	// Stack is where.
	Stack string
}

func newPanicError(v any) *PanicError { return &PanicError{Value: v, Stack: string(debug.Stack())} }

// Error is the panic's value.
func (e *PanicError) Error() string {
	if e.Value == nil {
		return "runtime.Goexit was called"
	}
	return fmt.Sprintf("panic: %v", e.Value)
}

// Unwrap is the value, if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
