package server_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// watched is what a watcher has heard so far.
type watched struct {
	mu       sync.Mutex
	snapshot *pb.WatchSnapshot
	events   []string // in short
	last     map[string]*pb.WatchEvent
	dropped  uint64
	err      error
	ended    bool
}

func (d *daemon) watch(t *testing.T, pool string) *watched {
	t.Helper()
	w := &watched{last: make(map[string]*pb.WatchEvent)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m, err := range d.Watch(ctx, pool) {
			w.hear(m, err)
		}
		w.mu.Lock()
		w.ended = true
		w.mu.Unlock()
	}()
	t.Cleanup(func() { cancel(); <-done })
	eventually(t, func() string {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.snapshot == nil && w.err == nil {
			return "there is no snapshot yet"
		}
		return ""
	})
	return w
}

func (w *watched) hear(m *pb.WatchResponse, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err = err; err != nil {
		return
	}
	if m.Snapshot != nil {
		w.snapshot = m.Snapshot
	}
	w.dropped += m.Dropped
	for _, e := range m.Events {
		short := strings.ToLower(strings.TrimPrefix(e.Kind.String(), "WATCH_KIND_")) + " " + e.Pool
		switch {
		case e.Kind == pb.WatchKind_WATCH_KIND_CALL_BEGUN:
			short += " " + e.Call.Function // how many tasks have come by then is chance
		case e.Call != nil && e.Cause != "":
			short += " " + e.Call.Function + " " + e.Cause // so is this
		case e.Call != nil:
			short += fmt.Sprintf(" %s %d/%d/%d %t", e.Call.Function, e.Call.AcceptedTasks, e.Call.DoneTasks, e.Call.FailedTasks, e.Call.Cancelled)
		case e.Worker != "":
			short += fmt.Sprintf(" %s %s", e.Worker, e.Cause)
		case e.State != 0:
			short += " " + strings.ToLower(strings.TrimPrefix(e.State.String(), "POOL_STATE_"))
		}
		short = strings.TrimSpace(short)
		w.events = append(w.events, short)
		w.last[short] = e
	}
}

// hears waits until these have come, in this order, with others between them.
func (w *watched) hears(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, func() string {
		w.mu.Lock()
		defer w.mu.Unlock()
		rest := want
		for _, e := range w.events {
			if len(rest) > 0 && e == rest[0] {
				rest = rest[1:]
			}
		}
		if len(rest) > 0 {
			return fmt.Sprintf("%q has not come; there are\n%s", rest[0], strings.Join(w.events, "\n"))
		}
		return ""
	})
}

func (w *watched) event(short string) *pb.WatchEvent {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last[short]
}

func TestWatchTellsWhatHappens(t *testing.T) {
	d := serve(t)
	all := d.watch(t, "")
	p := d.open(t, "", client.Workers(1))
	name := p.Name()
	if _, err := client.Map(t.Context(), p.Pool, do, []string{"a", "b", "c"}); err != nil {
		t.Fatal(err)
	}
	all.hears(t, "pool_made "+name, "worker_started "+name+" "+name+"-1", "worker_ready "+name+" "+name+"-1")
	all.hears(t, "pool_made "+name, "call_begun "+name+" do", "call_ended "+name+" do 3/3/0 false")

	// A later watcher sees how it stands, then what happens.
	one := d.watch(t, name)
	if s := one.snapshot; len(s.Pools) != 1 || s.Pools[0].Name != name || s.Pools[0].DoneTasks != 3 || len(s.Workers) != 1 || s.Workers[0].Name != name+"-1" || len(s.Calls) != 0 {
		t.Errorf("the snapshot is %v, want a pool that has done 3 tasks, with a worker and no call", s)
	}
	if c := one.snapshot.Pools[0].Command; len(c) != 0 {
		t.Errorf("the snapshot has the command %q; watchers need not know arguments", c)
	}
	client.Apply(t.Context(), p.Pool, do, "kills itself")
	if _, err := client.Apply(t.Context(), p.Pool, client.Func[int, int]("nobody"), 1); !errors.Is(err, client.ErrUnknownFunction) {
		t.Fatal(err)
	}
	for _, w := range []*watched{all, one} {
		w.hears(t, "worker_exited "+name+" "+name+"-1 signal", "call_ended "+name+" do 1/1/1 false")
		w.hears(t, "call_ended "+name+" nobody unknown_function")
	}
	exit := all.event("worker_exited " + name + " " + name + "-1 signal")
	if exit.Pid == 0 || !strings.Contains(exit.Reason, "SIGKILL") || exit.Time.AsTime().IsZero() {
		t.Errorf("the exit is %v, want its pid, time and reason", exit)
	}
	p.Terminate()
	one.hears(t, "pool_state "+name+" terminated", "pool_ended "+name)
	eventually(t, func() string {
		one.mu.Lock()
		defer one.mu.Unlock()
		if !one.ended || one.err != nil {
			return fmt.Sprintf("the stream of a pool that has ended: ended %t, error %v", one.ended, one.err)
		}
		return ""
	})
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.ended || all.err != nil {
		t.Errorf("the stream of all pools: ended %t, error %v", all.ended, all.err)
	}
}

func TestWatchOfCancelledCall(t *testing.T) {
	d := serve(t)
	p := d.open(t, "", client.Workers(1))
	w := d.watch(t, p.Name())
	r := client.MapAsync(t.Context(), p.Pool, do, []string{"obeys", "obeys"}, client.Label("a name"))
	w.hears(t, "call_begun "+p.Name()+" do")
	eventually(t, func() string { return p.cancelCalls(t, 1) })
	r.Wait(t.Context())
	ended := "call_ended " + p.Name() + " do 2/2/2 true"
	w.hears(t, ended)
	if e := w.event(ended); e.Call.Label != "a name" || e.Call.Pid == 0 || len(e.Call.Id) != 32 {
		t.Errorf("the call is %v, want its label, process and id", e.Call)
	}
}

func TestWatchOfUnknownPoolIsRefused(t *testing.T) {
	d := serve(t)
	if w := d.watch(t, "nobody"); !errors.Is(w.err, client.ErrUnknownPool) {
		t.Errorf("got %v, want that there is no such pool", w.err)
	}
}

// A reader that does not read holds up nobody, and is told what it has missed.
func TestSlowWatcherMissesTheOldest(t *testing.T) {
	d := serve(t)
	p := d.open(t, "", client.Workers(1))
	hold, first := make(chan struct{}), make(chan struct{})
	var begun, dropped uint64
	done := make(chan error, 1)
	last := ""
	go func() {
		for m, err := range d.Watch(context.Background(), p.Name()) {
			if err != nil {
				done <- err
				return
			}
			if m.Snapshot != nil {
				close(first)
				<-hold // the stream's window fills
			}
			dropped += m.Dropped
			for _, e := range m.Events {
				if e.Kind == pb.WatchKind_WATCH_KIND_CALL_BEGUN {
					begun++
				}
				last = e.Kind.String()
			}
		}
		done <- nil
	}()
	<-first
	const calls = 8000
	conn, err := grpc.NewClient("unix:"+d.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := &pb.ApplyRequest{Pool: p.Name(), Function: "do", Item: []byte(`"a"`), Label: strings.Repeat("x", 200)}
	for range calls { // each a call of its own, which those of the SDK are not
		if _, err := pb.NewPoolServiceClient(conn).Apply(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	p.Terminate()
	close(hold)
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("the stream has not ended with its pool")
	}
	if dropped == 0 || begun == 0 || begun+dropped/2 < calls*9/10 || last != "WATCH_KIND_POOL_ENDED" {
		t.Errorf("%d of %d calls were seen to begin, %d events dropped, and the last one is %s", begun, calls, dropped, last)
	}
}
