package server

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
)

// poolService is what clients may ask for. It is served on the client socket.
type poolService struct {
	pb.UnimplementedPoolServiceServer
	server *Server
}

// maxWorkers is the most workers a pool may have.
const maxWorkers = 4096

// poolName is compiled when it is needed: a worker is often the same program, and need not wait for that when it starts.
var poolName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$`) })

// completeSpec checks a spec and fills in the defaults.
func completeSpec(spec *pb.PoolSpec) *refusal {
	if spec.Name == "" {
		return badRequest("spec.name is missing")
	}
	if !poolName().MatchString(spec.Name) {
		return badRequest("spec.name is %.80q; a name has 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-', and begins with a letter or a digit", spec.Name)
	}
	if err := checkProgramFields("spec.program", spec.Program); err != nil {
		return err
	}
	if spec.Workers > maxWorkers {
		return badRequest("spec.workers is %d; at most %d are allowed", spec.Workers, maxWorkers)
	}
	if spec.Workers == 0 {
		spec.Workers = uint32(usableCPUs())
	}
	switch spec.Peer {
	case pb.PeerMatch_PEER_MATCH_UNSPECIFIED:
		spec.Peer = pb.PeerMatch_PEER_MATCH_EXACT
	case pb.PeerMatch_PEER_MATCH_EXACT, pb.PeerMatch_PEER_MATCH_GROUP, pb.PeerMatch_PEER_MATCH_CGROUP:
	default:
		return badRequest("spec.peer is %d; it must be exact, group or cgroup", spec.Peer)
	}
	for _, d := range []struct {
		name string
		d    **durationpb.Duration
		def  time.Duration
	}{
		{"start_timeout", &spec.StartTimeout, 10 * time.Second},
		{"ready_timeout", &spec.ReadyTimeout, 60 * time.Second},
		{"cancel_grace", &spec.CancelGrace, 5 * time.Second},
		{"kill_delay", &spec.KillDelay, 2 * time.Second},
	} {
		if *d.d == nil {
			*d.d = durationpb.New(d.def)
		}
		if v := (*d.d).AsDuration(); v <= 0 || v > 24*time.Hour {
			return badRequest("spec.%s is %v; it must be more than 0 and at most 24h", d.name, v)
		}
	}
	return checkStaff(spec)
}

// checkStaff checks what a spec says about workers that come and go.
func checkStaff(spec *pb.PoolSpec) *refusal {
	for _, d := range []struct {
		name string
		d    *durationpb.Duration
	}{{"max_worker_age", spec.MaxWorkerAge}, {"max_worker_idle", spec.MaxWorkerIdle}} {
		if v := d.d.AsDuration(); d.d != nil && (d.d.CheckValid() != nil || v < time.Second) {
			return badRequest("spec.%s is %v; it must be at least 1s, or absent for no limit", d.name, v)
		}
	}
	switch {
	case spec.MaxTasksPerWorker > 1<<31-1:
		return badRequest("spec.max_tasks_per_worker is %d; at most %d are allowed, and 0 means no limit", spec.MaxTasksPerWorker, 1<<31-1)
	case spec.MinWorkers > spec.Workers:
		return badRequest("spec.min_workers is %d, but the pool has only %d workers", spec.MinWorkers, spec.Workers)
	case spec.MinWorkers > 0 && spec.MaxWorkerIdle == nil:
		return badRequest("spec.min_workers is %d, but without max_worker_idle all %d workers stay anyway", spec.MinWorkers, spec.Workers)
	case spec.Spares > maxWorkers-spec.Workers:
		return badRequest("spec.spares is %d; a pool with %d workers may have at most %d", spec.Spares, spec.Workers, maxWorkers-spec.Workers)
	case spec.DrainMemory > 0 && (spec.DrainMemory < 1<<20 || spec.DrainMemory > 1<<62):
		return badRequest("spec.drain_memory is %d bytes; it must be at least 1 MiB, or 0 for no limit", spec.DrainMemory)
	case spec.MaxMemory > 0 && (spec.MaxMemory < 1<<20 || spec.MaxMemory > 1<<62):
		return badRequest("spec.max_memory is %d bytes; it must be at least 1 MiB, or 0 for no limit", spec.MaxMemory)
	case spec.MaxMemory > 0 && spec.DrainMemory >= spec.MaxMemory:
		return badRequest("spec.drain_memory is %d bytes, but a worker is killed when it has %d (max_memory); it must be less", spec.DrainMemory, spec.MaxMemory)
	case (spec.DrainMemory > 0 || spec.MaxMemory > 0) && runtime.GOOS != "linux":
		return badRequest("spec.drain_memory and spec.max_memory work on Linux only")
	}
	return nil
}

// checkProgramFields checks what can be checked without a look at the file. name is that of the field.
func checkProgramFields(name string, program *pb.Program) *refusal {
	if program.GetPath() == "" {
		return badRequest("%s.path is missing: which program are the workers?", name)
	}
	if !filepath.IsAbs(program.Path) {
		return badRequest("%s.path is %q; it must be absolute", name, program.Path)
	}
	for _, s := range append(slices.Clone(program.Args), program.Env...) {
		if strings.ContainsRune(s, 0) {
			return badRequest("%s has an argument or environment entry with a zero byte", name)
		}
	}
	return nil
}

func (ps *poolService) CreatePool(ctx context.Context, r *pb.CreatePoolRequest) (*pb.CreatePoolResponse, error) {
	if r.Spec == nil {
		return nil, badRequest("spec is missing")
	}
	p, err := ps.server.newPool(r.Spec, peerOf(ctx).uid, false, nil)
	if err != nil {
		return nil, err
	}
	info, rerr := p.describe(ctx)
	if rerr != nil {
		return nil, rerr
	}
	return &pb.CreatePoolResponse{Pool: info}, nil
}

// OpenPool is a pool's life for its client.
func (ps *poolService) OpenPool(r *pb.OpenPoolRequest, stream grpc.ServerStreamingServer[pb.OpenPoolResponse]) error {
	if r.Spec == nil {
		return badRequest("spec is missing")
	}
	if r.Spec.Name == "" {
		r.Spec.Name = "pool-" + newCallID()[:8]
	}
	p, err := ps.server.newPool(r.Spec, peerOf(stream.Context()).uid, true, nil)
	if err != nil {
		return err
	}
	defer p.terminate(0) // idempotent; what it is for is the client that goes away
	info, rerr := p.describe(stream.Context())
	if rerr != nil {
		return rerr
	}
	if err := stream.Send(&pb.OpenPoolResponse{Opened: info}); err != nil {
		return err
	}
	for {
		select {
		case <-p.opener.awake:
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		}
		for m := p.opener.take(); m != nil; m = p.opener.take() {
			if err := stream.Send(m); err != nil {
				return err
			}
			if m.Ended {
				return nil
			}
		}
	}
}

func (ps *poolService) GetPool(ctx context.Context, r *pb.GetPoolRequest) (*pb.GetPoolResponse, error) {
	p, err := ps.server.pool(r.Pool)
	if err != nil {
		return nil, err
	}
	info, rerr := p.describe(ctx)
	if rerr != nil {
		return nil, rerr
	}
	return &pb.GetPoolResponse{Pool: ps.server.veilPool(ctx, p, info)}, nil
}

func (ps *poolService) ListPools(ctx context.Context, _ *pb.ListPoolsRequest) (*pb.ListPoolsResponse, error) {
	out := &pb.ListPoolsResponse{}
	for _, p := range ps.server.allPools() {
		if info, err := p.describe(ctx); err == nil {
			out.Pools = append(out.Pools, ps.server.veilPool(ctx, p, info))
		}
	}
	return out, context.Cause(ctx)
}

// some is the named pool, or all.
func (ps *poolService) some(name string) ([]*pool, error) {
	if name == "" {
		return ps.server.allPools(), nil
	}
	p, err := ps.server.pool(name)
	if err != nil {
		return nil, err
	}
	return []*pool{p}, nil
}

func (ps *poolService) ListWorkers(ctx context.Context, r *pb.ListWorkersRequest) (*pb.ListWorkersResponse, error) {
	pools, err := ps.some(r.Pool)
	if err != nil {
		return nil, err
	}
	out := &pb.ListWorkersResponse{}
	for _, p := range pools {
		list, err := p.describeWorkers(ctx)
		if err == nil {
			ps.server.veilWorkers(ctx, list)
			out.Workers = append(out.Workers, list...)
		}
	}
	return out, context.Cause(ctx)
}

func (ps *poolService) ListCalls(ctx context.Context, r *pb.ListCallsRequest) (*pb.ListCallsResponse, error) {
	pools, err := ps.some(r.Pool)
	if err != nil {
		return nil, err
	}
	out := &pb.ListCallsResponse{}
	for _, p := range pools {
		list, err := p.describeCalls(ctx)
		if err == nil {
			slices.SortFunc(list, func(a, b *pb.Call) int {
				return cmp.Or(a.Started.AsTime().Compare(b.Started.AsTime()), cmp.Compare(a.Id, b.Id))
			})
			ps.server.veilCalls(ctx, list)
			out.Calls = append(out.Calls, list...)
		}
	}
	return out, context.Cause(ctx)
}

func (ps *poolService) ClosePool(_ context.Context, r *pb.ClosePoolRequest) (*pb.ClosePoolResponse, error) {
	p, err := ps.server.poolOrEnded(r.Pool)
	if err != nil {
		return nil, err
	}
	if p != nil {
		p.close()
	}
	return &pb.ClosePoolResponse{}, nil
}

func (ps *poolService) TerminatePool(_ context.Context, r *pb.TerminatePoolRequest) (*pb.TerminatePoolResponse, error) {
	p, err := ps.server.poolOrEnded(r.Pool)
	if err != nil {
		return nil, err
	}
	if p != nil {
		p.terminate(0)
	}
	return &pb.TerminatePoolResponse{}, nil
}

func (ps *poolService) JoinPool(ctx context.Context, r *pb.JoinPoolRequest) (*pb.JoinPoolResponse, error) {
	p, err := ps.server.poolOrEnded(r.Pool)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return &pb.JoinPoolResponse{}, nil
	}
	open, err := p.isOpen(ctx)
	if err != nil {
		return nil, err
	}
	if open {
		return nil, refuse(pb.Reason_REASON_POOL_OPEN, "pool %q is still open: close or terminate it before you join it", p.name).of(p.name)
	}
	select {
	case <-p.joined:
		return &pb.JoinPoolResponse{}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (ps *poolService) Cancel(ctx context.Context, r *pb.CancelRequest) (*pb.CancelResponse, error) {
	if r.CallId == "" {
		return nil, badRequest("call_id is missing; ListCalls has the calls")
	}
	p, c := ps.server.call(r.CallId)
	if c == nil || !ps.server.sees(peerOf(ctx), int64(c.peer.uid)) {
		return nil, unknownCall(r.CallId)
	}
	by := "Cancel"
	if peer := peerOf(ctx); peer.known {
		by = fmt.Sprintf("Cancel of uid %d, pid %d", peer.uid, peer.pid)
	}
	p.post(func(now time.Time) { p.cancel(now, c, r.Indexes, by) })
	return &pb.CancelResponse{}, nil
}

// stateName is a pool's state in a word.
func stateName(s pb.PoolState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "POOL_STATE_"))
}
