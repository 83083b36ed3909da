package server

import (
	"context"
	"fmt"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// Identities, from the weakest to the strongest. The last two are between uid and pid.
const (
	byToken  = "token"
	byUID    = "token+uid"
	byPid    = "token+uid+pid"
	byPidfd  = "token+uid+pidfd"
	byGroup  = "token+uid+group"
	byCgroup = "token+uid+cgroup"
)

// identify compares the process at the other end of an Attach stream with the one that was started for w, and says how surely they
// are the same. All is compared while that one has not been reaped: until then its number, and that of its group, is its own.
func (w *worker) identify(ctx context.Context) (string, error) {
	peer := peerOf(ctx)
	if w.pool.server.cfg.InProcess || !peer.known {
		return byToken, nil
	}
	if want := ownUID(); peer.uid != want {
		return "", fmt.Errorf("the worker runs as uid %d, but was started as uid %d", peer.uid, want)
	}
	select {
	case <-w.born: // it may say Hello before fork has returned here
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	var strength string
	var err error
	if !w.child.Hold(func(pid, pidfd int) { strength, err = match(peer, pid, pidfd, w.pool.spec.Peer) }) {
		return "", fmt.Errorf("process %d said Hello for the worker, but the process that was started has ended", peer.pid)
	}
	return strength, err
}

// match compares a peer with a child that has not been reaped.
func match(peer peerInfo, pid, pidfd int, how pb.PeerMatch) (string, error) {
	if inode := pidfsInode(pidfd); inode != 0 && peer.inode != 0 {
		if inode == peer.inode {
			return byPidfd, nil
		}
	} else if int(peer.pid) == pid {
		return byPid, nil
	}
	const advice = "a wrapper that stays (sh -c, go run, uv run) does that: let it exec the worker, or create the pool with peer = "
	switch how {
	case pb.PeerMatch_PEER_MATCH_GROUP:
		if sameGroup(peer, pid) {
			return byGroup, nil
		}
		return "", fmt.Errorf("process %d said Hello, which is not in the process group of process %d, which was started; peer = group asks for that: "+
			"the wrapper has made another group or session; let it exec the worker, or create the pool with peer = cgroup if it has a cgroup of its own", peer.pid, pid)
	case pb.PeerMatch_PEER_MATCH_CGROUP:
		if err := sameCgroup(peer, pid); err != nil {
			return "", fmt.Errorf("process %d said Hello, and process %d was started; peer = cgroup does not let it in: %w", peer.pid, pid, err)
		}
		return byCgroup, nil
	default:
		return "", fmt.Errorf("process %d said Hello, but process %d was started, and peer = exact asks for the same; "+advice+"group", peer.pid, pid)
	}
}
