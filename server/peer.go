package server

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// peerInfo is who is at the other end of a connection, as the kernel says.
type peerInfo struct {
	credentials.CommonAuthInfo
	uid    uint32
	gid    uint32
	pid    int32
	groups []uint32 // supplementary ones; asked for in system mode only
	known  bool     // false: this system does not say
	inode  uint64   // what the kernel calls the process, on the worker socket; 0: it does not say

	visit *visit // on the worker socket: the connection, until it has said who it is
}

// AuthType names the scheme, for gRPC.
func (peerInfo) AuthType() string { return "unix" }

// peerOf tells who makes an RPC.
func peerOf(ctx context.Context) peerInfo {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(peerInfo); ok {
			return info
		}
	}
	return peerInfo{}
}

// unixPeer is the transport credentials of our sockets: nothing is encrypted, and the kernel says who the peer is.
//
// A handshake only asks the kernel and never reads, so that it cannot be held up. Each has a goroutine of its own in gRPC; one that fails
// costs its connection and nothing else.
//
// With watch, a connection also ends when the process that made it ends. A forked child that still holds the socket
// does not keep it alive. With a porch, it ends when it does not say in time who it is.
//
// With groups, it is asked for the peer's supplementary groups too.
type unixPeer struct {
	watch  bool
	groups bool
	porch  *porch
}

func (u unixPeer) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return conn, peerInfo{}, nil
	}
	info, err := credentialsOf(unix)
	if err != nil {
		return nil, nil, err
	}
	info.SecurityLevel = credentials.NoSecurity
	if u.groups {
		if info.groups, err = groupsOf(unix); err != nil {
			return nil, nil, err
		}
	}
	switch {
	case u.watch:
		return watchPeer(unix, info), info, nil
	case u.porch != nil:
		info.inode = peerInode(unix)
		info.visit = u.porch.enter(unix)
		return info.visit, info, nil
	default:
		return conn, info, nil
	}
}

func (unixPeer) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("unixPeer is for servers")
}

func (unixPeer) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}

func (u unixPeer) Clone() credentials.TransportCredentials { return u }

func (unixPeer) OverrideServerName(string) error { return nil }
