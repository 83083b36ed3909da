package main_test

import (
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// identities are those of the workers of a pool.
func identities(t *testing.T, c *client.Client, pool string) (list []string) {
	t.Helper()
	workers, err := c.Workers(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range workers {
		list = append(list, w.Identity)
	}
	return list
}

func TestAWorkerIsTheProcessThatWasStarted(t *testing.T) {
	d := startDaemon(t)
	pool := d.create("p", 1)
	if v, err := client.Apply(t.Context(), pool, nap, 1); v != 1 || err != nil {
		t.Fatal(v, err)
	}
	got := strings.Join(identities(t, d.dial(), "p"), " ")
	if got != "token+uid+pidfd" && got != "token+uid+pid" { // the latter before Linux 6.9
		t.Errorf("the worker's identity is %q", got)
	}
	t.Logf("identity: %s", got)
}

func TestAWrapperNeedsPeerGroup(t *testing.T) {
	d := startWatched(t)
	worker := filepath.Join(bin, "e2eworker")
	const wait = `"$0"; exit $?`             // a shell that stays
	const escape = `setsid -w "$0"; exit $?` // and one that leads its worker out of the group

	for _, c := range []struct {
		name, peer, script string
		identity           string
		says               []string // when it is refused
	}{
		{name: "exact", peer: "exact", script: wait, says: []string{"peer = exact", "peer = group", "was started"}},
		{name: "exec", peer: "exact", script: `exec "$0"`, identity: "token+uid+pid"},
		{name: "group", peer: "group", script: wait, identity: "token+uid+group"},
		{name: "group-exec", peer: "group", script: `exec "$0"`, identity: "token+uid+pid"},
		{name: "escaped", peer: "group", script: escape, says: []string{"peer = group", "not in the process group"}},
		{name: "cgroup", peer: "cgroup", script: wait, says: []string{"peer = cgroup"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			promptly(t, "the answer", crashBound, func() time.Duration {
				before := d.holdings(t)
				began := time.Now()
				if _, stderr, code := d.run("procpool", "create", c.name, "-j", "1", "--peer", c.peer, "--", "sh", "-c", c.script, worker); code != 0 {
					t.Fatal(stderr)
				}
				pool, err := d.client.Pool(t.Context(), c.name)
				if err != nil {
					t.Fatal(err)
				}
				got, err := client.Map(t.Context(), pool, nap, []int{1})
				took := time.Since(began)
				if c.identity != "" {
					if who := strings.Join(identities(t, d.client, c.name), " "); err != nil || got[0] != 1 || !strings.HasPrefix(who, c.identity) {
						t.Errorf("got %v, %v and identity %q, want 1 and %q", got, err, who, c.identity)
					}
				} else if !errors.Is(err, client.ErrBootFailure) {
					t.Fatalf("got %v, want a boot failure", err)
				}
				for _, says := range c.says {
					if !strings.Contains(err.Error(), says) {
						t.Errorf("got %q, want it to say %q", err, says)
					}
				}
				state := pb.PoolState_POOL_STATE_OPEN
				if c.identity == "" {
					state = pb.PoolState_POOL_STATE_DEGRADED
				}
				if info, err := pool.Info(t.Context()); err != nil || info.State != state {
					t.Errorf("the pool is %v, %v; want %v", info.GetState(), err, state)
				}
				if err := pool.Terminate(); err != nil {
					t.Error(err)
				}
				d.back(t, before)
				return took
			})
		})
	}
}

func TestAnotherProtocolVersionIsAStateOfThePool(t *testing.T) {
	d := startDaemon(t)
	for _, versions := range [][2]string{{"7", "9"}, {"0", "0"}} {
		name := "speaks" + versions[0]
		_, stderr, code := d.run("procpool", "create", name, "-j", "2", "--", filepath.Join(bin, "e2eworker"), "speaks", versions[0], versions[1])
		if code != 0 {
			t.Fatal(stderr)
		}
		pool, err := d.dial().Pool(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Apply(t.Context(), pool, nap, 1)
		want := "protocol versions " + versions[0] + " to " + versions[1] + ", this daemon 1 to 1"
		if !errors.Is(err, client.ErrBootFailure) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want a boot failure with %q", err, want)
		}
		info, err := pool.Info(t.Context())
		if err != nil || info.State != pb.PoolState_POOL_STATE_DEGRADED || !strings.Contains(info.GetLastExit().GetReason(), want) {
			t.Errorf("the pool is %v with %v, %v; want degraded with both ranges", info.GetState(), info.GetLastExit(), err)
		}
		if last := info.GetLastExit().GetWorker(); last != name+"-1" && last != name+"-2" {
			t.Errorf("the last worker was %s: it is tried again and again", last)
		}
	}
}

func TestEveryDeadlineOfAWorkerHasItsOwnMessage(t *testing.T) {
	d := startDaemon(t)
	for _, c := range []struct {
		name, says string
		opts       []client.PoolOption
	}{
		{"silent", "it did not say Hello within the start timeout of 200ms",
			[]client.PoolOption{client.Program("sleep", "1000"), client.StartTimeout(200 * time.Millisecond)}},
		{"initialising", "its init function did not return within the ready timeout of 200ms",
			[]client.PoolOption{client.Program(filepath.Join(bin, "e2eworker"), "slow-init"), client.ReadyTimeout(200 * time.Millisecond)}},
	} {
		pool, err := d.dial().CreatePool(t.Context(), c.name, append(c.opts, client.Workers(1))...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Apply(t.Context(), pool, nap, 1); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.says)
		}
	}
}

func TestSilentConnectionsKeepNoWorkerOut(t *testing.T) {
	d := startDaemon(t)
	for range 200 {
		conn, err := net.Dial("unix", filepath.Join(filepath.Dir(d.addr), "private", "worker.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	pool := d.create("p", 2)
	if v, err := client.Apply(t.Context(), pool, nap, 1); v != 1 || err != nil {
		t.Errorf("got %d, %v", v, err)
	}
}
