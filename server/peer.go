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
	uid   uint32
	gid   uint32
	pid   int32
	known bool // false: this system does not say
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
// With watch, a connection also ends when the process that made it ends. A forked child that still holds the socket
// does not keep it alive.
type unixPeer struct{ watch bool }

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
	if u.watch {
		return watchPeer(unix, info), info, nil
	}
	return conn, info, nil
}

func (unixPeer) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("unixPeer is for servers")
}

func (unixPeer) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}

func (u unixPeer) Clone() credentials.TransportCredentials { return u }

func (unixPeer) OverrideServerName(string) error { return nil }
