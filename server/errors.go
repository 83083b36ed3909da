package server

import (
	"fmt"
	"strings"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// codeOf is the one table from reasons to gRPC codes. The client reads the reason, people and stock tools read the code.
var codeOf = map[pb.Reason]codes.Code{
	pb.Reason_REASON_UNSPECIFIED:      codes.Internal, // a defect of the daemon
	pb.Reason_REASON_UNKNOWN_POOL:     codes.NotFound,
	pb.Reason_REASON_POOL_EXISTS:      codes.AlreadyExists,
	pb.Reason_REASON_POOL_CLOSED:      codes.FailedPrecondition,
	pb.Reason_REASON_POOL_TERMINATED:  codes.Aborted,
	pb.Reason_REASON_POOL_OPEN:        codes.FailedPrecondition,
	pb.Reason_REASON_BOOT_FAILURE:     codes.FailedPrecondition,
	pb.Reason_REASON_UNKNOWN_FUNCTION: codes.NotFound,
	pb.Reason_REASON_ENCODING:         codes.InvalidArgument,
	pb.Reason_REASON_UNKNOWN_CALL:     codes.NotFound,
	pb.Reason_REASON_BAD_REQUEST:      codes.InvalidArgument,
	pb.Reason_REASON_LIMIT:            codes.ResourceExhausted,
	pb.Reason_REASON_STOPPING:         codes.Unavailable,
	pb.Reason_REASON_PROGRAM:          codes.FailedPrecondition,
	pb.Reason_REASON_DENIED:           codes.PermissionDenied,
	pb.Reason_REASON_CALL_EXISTS:      codes.AlreadyExists,
	pb.Reason_REASON_RESTARTING:       codes.FailedPrecondition,
	pb.Reason_REASON_UNSUPPORTED:      codes.FailedPrecondition,
	pb.Reason_REASON_CALL_CANCELLED:   codes.Canceled,
}

// refusal is an RPC that the daemon does not carry out: a sentence for people and a detail for programs.
type refusal struct {
	message string
	detail  pb.Refusal
}

func (r *refusal) Error() string { return r.message }

// GRPCStatus makes a refusal the status of the RPC that returns it.
func (r *refusal) GRPCStatus() *status.Status {
	st := status.New(codeOf[r.detail.Reason], r.message)
	if with, err := st.WithDetails(&r.detail); err == nil {
		return with
	}
	return st
}

func refuse(reason pb.Reason, format string, args ...any) *refusal {
	return &refusal{message: fmt.Sprintf(format, args...), detail: pb.Refusal{Reason: reason}}
}

func badRequest(format string, args ...any) *refusal {
	return refuse(pb.Reason_REASON_BAD_REQUEST, format, args...)
}

// of names the pool that the refusal is about.
func (r *refusal) of(pool string) *refusal {
	r.detail.Pool = pool
	return r
}

// knowing adds what exists instead of what was asked for.
func (r *refusal) knowing(known []string, what string) *refusal {
	r.detail.Known = known
	if len(known) == 0 {
		r.message += "; there is no " + what
		return r
	}
	const most = 20
	list := known
	if len(list) > most {
		list = list[:most:most]
		list = append(list, fmt.Sprintf("and %d more", len(known)-most))
	}
	r.message += "; there is " + strings.Join(list, ", ")
	return r
}

func unknownCall(id string) *refusal {
	return refuse(pb.Reason_REASON_UNKNOWN_CALL, "there is no call %q: it has ended, or it never began", id)
}

var errStopping = refuse(pb.Reason_REASON_STOPPING, "the daemon is stopping; try again when it is back")

// reasonName is a reason in a word of lower case, as in logs and metrics.
func reasonName(r pb.Reason) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "REASON_"))
}
