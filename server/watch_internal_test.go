package server

import (
	"testing"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

func TestWatchersSeeNoNamesOfOthers(t *testing.T) {
	p := &pool{name: "p", uid: 1000001, server: &Server{cfg: Config{System: &System{Clients: 1}}}}
	call := &pb.WatchEvent{Pool: "p", Reason: "a reason", Cause: "bad_request", Call: &pb.WatchCall{Id: "id", Uid: 1000002, Pid: 7, Label: "a name", AcceptedTasks: 3}}
	exit := &pb.WatchEvent{Pool: "p", Worker: "p-1", Reason: "a reason", Cause: "signal"}
	for _, c := range []struct {
		uid        uint32
		call, exit bool // with names and reasons
	}{{0, true, true}, {1000001, false, true}, {1000002, true, false}, {1000003, false, false}} {
		reader := peerInfo{known: true, uid: c.uid}
		if e := p.forReader(reader, call); (e.Call.Label != "") != c.call || (e.Reason != "") != c.call || (e.Call.Pid != 0) != c.call || (e.Call.Id != "") != c.call || e.Call.AcceptedTasks != 3 || e.Cause == "" {
			t.Errorf("uid %d hears %v of a call", c.uid, e)
		}
		if e := p.forReader(reader, exit); (e.Reason != "") != c.exit || e.Worker != "p-1" || e.Cause != "signal" {
			t.Errorf("uid %d hears %v of a worker", c.uid, e)
		}
	}
	p.config.Store(&PoolConfig{}) // its uid is the daemon's, who is no administrator
	if e := p.forReader(peerInfo{known: true, uid: 1000001}, exit); e.Reason != "" {
		t.Errorf("the user of the daemon hears %v of a worker of the configuration", e)
	}
	if call.Call.Label == "" || exit.Reason == "" {
		t.Error("the event that others get has changed")
	}
}
