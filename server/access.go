package server

import (
	"context"
	"fmt"
	"os/user"
	"runtime"
	"slices"
	"strconv"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// Who may do what. A client is who the kernel says (SO_PEERCRED), with the groups that it had when it connected (SO_PEERGROUPS).
//
// In user mode, which an embedded daemon is in too, there is one user: the daemon's own, and root. They may do everything.
//
// In system mode the daemon has a user of its own, and clients are root and the members of a group. What they may do is in rules.

// System is what a daemon that serves many users needs to know.
type System struct {
	// Clients is the group whose members may connect, beside root. It becomes the group of the client socket.
	Clients uint32
	// Admins is the group whose members may also close, resize and restart pools, and see whose calls there are. Root may, with and without it.
	// Nil: root alone.
	Admins *uint32
}

// rule is what an RPC asks of its caller in system mode.
type rule int

const (
	forAdmins rule = iota // whatever is not in the table
	forClients
	forOwners // and for admins. The handler decides: what belongs to somebody else is not there
	forNobody
)

// rules is the one table of who may do what in system mode, by the full name of the RPC.
var rules = map[string]rule{
	pb.PoolService_Describe_FullMethodName:      forClients,
	pb.PoolService_GetPool_FullMethodName:       forClients, // rows of others without names, output and reasons
	pb.PoolService_ListPools_FullMethodName:     forClients,
	pb.PoolService_ListWorkers_FullMethodName:   forClients,
	pb.PoolService_ListCalls_FullMethodName:     forClients,
	pb.PoolService_Logs_FullMethodName:          forClients,
	pb.PoolService_Watch_FullMethodName:         forClients,
	pb.PoolService_Map_FullMethodName:           forClients,
	pb.PoolService_ApplyAsync_FullMethodName:    forClients,
	pb.PoolService_Apply_FullMethodName:         forClients,
	pb.PoolService_Cancel_FullMethodName:        forOwners,
	pb.PoolService_ClosePool_FullMethodName:     forAdmins,
	pb.PoolService_JoinPool_FullMethodName:      forAdmins,
	pb.PoolService_TerminatePool_FullMethodName: forAdmins,
	pb.PoolService_ResizePool_FullMethodName:    forAdmins,
	pb.PoolService_RestartPool_FullMethodName:   forAdmins,
	pb.PoolService_CreatePool_FullMethodName:    forNobody,
	pb.PoolService_OpenPool_FullMethodName:      forNobody,

	grpc_health_v1.Health_Check_FullMethodName: forClients,
	grpc_health_v1.Health_Watch_FullMethodName: forClients,
	grpc_health_v1.Health_List_FullMethodName:  forClients,

	// Of Config.Services, by name: their packages cost every program that links them a part of its start.
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      forClients,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": forClients,
	"/grpc.channelz.v1.Channelz/GetTopChannels":                      forAdmins,
	"/grpc.channelz.v1.Channelz/GetServers":                          forAdmins,
	"/grpc.channelz.v1.Channelz/GetServer":                           forAdmins,
	"/grpc.channelz.v1.Channelz/GetServerSockets":                    forAdmins,
	"/grpc.channelz.v1.Channelz/GetChannel":                          forAdmins,
	"/grpc.channelz.v1.Channelz/GetSubchannel":                       forAdmins,
	"/grpc.channelz.v1.Channelz/GetSocket":                           forAdmins,
}

// allow says why a client may not make an RPC.
func (s *Server) allow(ctx context.Context, method string) error {
	peer := peerOf(ctx)
	system := s.cfg.System
	switch {
	case !peer.known && (system != nil || runtime.GOOS == "linux"):
		return refuse(pb.Reason_REASON_DENIED, "this connection does not say who makes it: procpoold serves Unix sockets only")
	case system == nil && peer.known && peer.uid != ownUID() && peer.uid != 0:
		return refuse(pb.Reason_REASON_DENIED, "this procpoold serves uid %d and root, and you are uid %d: start one of your own (procpoold), or ask for one that runs in system mode",
			ownUID(), peer.uid)
	case system == nil || peer.uid == 0:
	case !peer.in(system.Clients) && !s.admin(peer):
		return refuse(pb.Reason_REASON_DENIED, "this procpoold serves members of the group %s, and uid %d is none: ask the administrator for membership (usermod -aG), then log in anew",
			groupName(system.Clients), peer.uid)
	}
	if system == nil {
		return nil
	}
	switch rules[method] {
	case forClients, forOwners:
		return nil
	case forNobody:
		return refuse(pb.Reason_REASON_DENIED, "in system mode pools come from the configuration of procpoold only. To run a program or a command of yours, use workers of your own: "+
			"procpool map -- COMMAND, or the package client/local, needs no daemon; or start procpoold as yourself")
	default:
		if s.admin(peer) {
			return nil
		}
		return refuse(pb.Reason_REASON_DENIED, "%s is for administrators: root%s; you are uid %d", method[1:], s.andAdmins(), peer.uid)
	}
}

// admin tells whether a client may see and do everything. The user that the daemon and its workers run as never may: it is what a worker that has been
// taken over would be.
func (s *Server) admin(peer peerInfo) bool {
	switch system := s.cfg.System; {
	case system == nil || peer.uid == 0: // root, or the daemon itself
		return true
	case peer.uid == ownUID() || system.Admins == nil:
		return false
	default:
		return peer.in(*system.Admins)
	}
}

func (s *Server) andAdmins() string {
	if s.cfg.System.Admins == nil {
		return " (no admin_group is configured)"
	}
	return " and the members of the group " + groupName(*s.cfg.System.Admins)
}

// sees tells whether a client may see what belongs to a user: with names, output and reasons. owner is a uid, or nobody.
func (s *Server) sees(peer peerInfo, owner int64) bool {
	return s.admin(peer) || owner == int64(peer.uid)
}

// itself is the daemon, when it looks at its own pools. No client is that: one whom the kernel does not know is not let in.
var itself peerInfo

// eyes is sees for who makes an RPC; nil for an administrator, who sees everything. The daemon itself is one.
func (s *Server) eyes(ctx context.Context) func(owner int64) bool {
	peer := peerOf(ctx)
	if s.admin(peer) {
		return nil
	}
	return func(owner int64) bool { return s.sees(peer, owner) }
}

// nobody is whose what is that belongs to no single user.
const nobody int64 = -1

func groupName(gid uint32) string {
	if g, err := user.LookupGroupId(strconv.FormatUint(uint64(gid), 10)); err == nil {
		return g.Name
	}
	return fmt.Sprint(gid)
}

// in tells whether the peer was in a group when it connected.
func (p peerInfo) in(gid uint32) bool { return p.gid == gid || slices.Contains(p.groups, gid) }

func (s *Server) allowUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := s.allow(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (s *Server) allowStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := s.allow(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handler(srv, stream)
}
