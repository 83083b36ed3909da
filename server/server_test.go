package server

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"github.com/procpool/procpool/server/internal/sched"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

func TestJSONThatSurvivesComesBack(t *testing.T) {
	for _, text := range []string{`1`, `-1.5`, `"käse"`, `null`, `true`, `[1,"a",{"b":[]}]`, `9007199254740992`, `1e300`} {
		v := &structpb.Value{}
		if err := protojson.Unmarshal([]byte(text), v); err != nil {
			t.Fatal(err)
		}
		item, err := jsonItem(v)
		if text == `1e300` { // an integer beyond 2^53, however it is written
			if err == nil {
				t.Errorf("%s was accepted as %s, though it may have been rounded", text, item)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, lost := jsonValue(item)
		if lost != "" || got.String() != v.String() {
			t.Errorf("%s came back as %v (text %q) by way of %s", text, got, lost, item)
		}
	}
}

func TestResultsThatADoubleCannotHoldComeAsText(t *testing.T) {
	for _, text := range []string{`9007199254740993`, `[1, 12345678901234567890]`, `not JSON`, `1e400`} {
		v, got := jsonValue([]byte(text))
		if got != text {
			t.Errorf("%s came as %v and text %q, want the text", text, v, got)
		}
	}
}

// recorded is a call that keeps what is delivered to it.
func recorded(ids []uint64, n int) (*pool, *call, *segment) {
	p := &pool{name: "p"}
	c := newCall("id", sched.CallSpec{}, "", peerInfo{})
	seg := &segment{ids: ids, left: n}
	if ids != nil {
		c.named = append(c.named, seg)
	}
	return p, c, seg
}

// outcomes is what a call has for its client, in words.
func outcomes(c *call) string {
	var words []string
	for i := range c.next.Results {
		r := &c.next.Results[i]
		it := r.Values.Items()
		for k := 0; it.Next(); k++ {
			index := r.First + uint64(k)
			if r.Indexes != nil {
				index = r.Indexes[k]
			}
			words = append(words, fmt.Sprintf("%d=%s", index, it.Item()))
		}
	}
	for _, f := range c.next.Failures {
		words = append(words, fmt.Sprintf("%d!%s", f.Index, f.Message))
	}
	return strings.Join(words, " ")
}

func TestValuesAndFailuresOfAReportFindTheirTasks(t *testing.T) {
	report := &wire.ChunkResults{Chunk: 1, First: 2, Failures: []*pb.TaskFailure{
		{Offset: 3, Error: &pb.TaskError{Message: "bad"}}, {Offset: 6, Error: &pb.TaskError{Message: "worse"}},
	}}
	for _, v := range []string{"a", "b", "c", "d"} { // of tasks 2, 4, 5 and 7 of the chunk
		report.Values.Append([]byte(v))
	}
	for _, test := range []struct {
		ids      []uint64
		first, n int
		want     string
	}{
		{nil, 2, 6, "102=a 104=b 105=c 107=d 103!bad 106!worse"},
		{nil, 4, 2, "104=b 105=c"},
		{nil, 6, 2, "107=d 106!worse"},
		{[]uint64{9, 8, 7, 6, 5, 4, 3, 2}, 2, 4, "7=a 5=b 4=c 6!bad"},
	} {
		p, c, seg := recorded(test.ids, 8)
		c.deliver(p, &sched.Delivery{
			N: test.n, Attempts: 1, Outcome: sched.Value, Report: sched.Report{First: 2, N: 6, Ref: report}, First: test.first,
			Parts: []sched.Part{{Ref: seg, Seq: uint64(100 + test.first), From: test.first, N: test.n}},
		})
		if got := outcomes(c); got != test.want {
			t.Errorf("tasks %d to %d: got %q, want %q", test.first, test.first+test.n-1, got, test.want)
		}
	}
}

func TestSmallResultsOfSeveralReportsBecomeOne(t *testing.T) {
	p, c, seg := recorded(nil, 4)
	for i, v := range []string{"a", "b", "c"} {
		r := &wire.ChunkResults{}
		r.Values.Append([]byte(v))
		c.deliver(p, &sched.Delivery{
			N: 1, Attempts: 1, Outcome: sched.Value, Report: sched.Report{N: 1, Ref: r},
			Parts: []sched.Part{{Ref: seg, Seq: uint64(i), From: i, N: 1}},
		})
	}
	if got := outcomes(c); got != "0=a 1=b 2=c" || len(c.next.Results) != 1 {
		t.Errorf("got %q in %d results, want one", got, len(c.next.Results))
	}
}

func TestIdsAreFoundAgainForCancel(t *testing.T) {
	_, c, _ := recorded([]uint64{70, 71, 72}, 3)
	if got := fmt.Sprint(c.seqs([]uint64{72, 70, 5})); got != "[0 2]" {
		t.Errorf("got tasks %s, want 0 and 2", got)
	}
	if got := c.index(1); got != 71 {
		t.Errorf("task 1 is called %d, want 71", got)
	}
}

func TestFeedDropsTheOldestAndCounts(t *testing.T) {
	f := newFeed(feedSize, feedBytes)
	for i := range feedSize + 10 {
		f.output(&pb.WorkerOutput{Line: fmt.Append(nil, i)}, nobody)
	}
	f.exit(&ending{exit: &pb.WorkerExit{Worker: "w"}})
	f.end()
	var lines []string
	var dropped uint64
	for m := f.take(); m != nil; m = f.take() {
		for _, o := range m.Outputs {
			lines = append(lines, string(o.Line))
		}
		dropped += m.Dropped
		if len(m.Exits) > 0 && len(lines) != feedSize {
			t.Errorf("the exit came after %d lines, want all %d", len(lines), feedSize)
		}
		if m.Ended {
			break
		}
	}
	if dropped != 10 || len(lines) != feedSize || lines[0] != "10" {
		t.Errorf("dropped %d, kept %d from %q on; want 10, %d, \"10\"", dropped, len(lines), lines[0], feedSize)
	}
}

func TestFeedIsBoundedInBytes(t *testing.T) {
	f := newFeed(feedSize, feedBytes)
	for range 1000 {
		f.output(&pb.WorkerOutput{Line: bytes.Repeat([]byte("x"), 64<<10)}, nobody)
	}
	if f.bytes > feedBytes {
		t.Errorf("it holds %d bytes, want at most %d", f.bytes, feedBytes)
	}
}

// shortDir is a directory whose sockets have short paths.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "p") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestSocketOfALivingDaemonIsNotTaken(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	first, err := listen(path, 0o600, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listen(path, 0o600, -1); err == nil || !strings.Contains(err.Error(), "another procpoold") {
		t.Errorf("got %v, want to hear of the other daemon", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has %v, %v; want mode 0600", info, err)
	}
	// A daemon that was killed leaves its socket; its lock goes with it.
	if err := first.lock.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := listen(path, 0o600, -1)
	if err != nil {
		t.Fatalf("a stale socket was not replaced: %v", err)
	}
	second.Close()
	second.remove()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestOtherFilesAreNotRemoved(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(path, 0o600, -1); err == nil {
		t.Error("a file was taken for a stale socket")
	}
	if b, err := os.ReadFile(path); string(b) != "mine" {
		t.Errorf("the file has %q, %v", b, err)
	}
}

func TestEveryReasonHasACode(t *testing.T) {
	for n, name := range pb.Reason_name {
		if n == 0 {
			continue
		}
		st := status.Convert(refuse(pb.Reason(n), "no"))
		if st.Code() == codes.OK || st.Code() == codes.Unknown || len(st.Details()) != 1 {
			t.Errorf("%s has code %v and details %v", name, st.Code(), st.Details())
		}
	}
}

func TestConfigReportsEverythingThatIsWrong(t *testing.T) {
	_, err := Config{Dir: "relative", DrainTimeout: -1, WindowItems: -1}.withDefaults()
	for _, want := range []string{"relative", "drain timeout", "window"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name the %s", err, want)
		}
	}
}

func TestHeadWaitsForTheChunksItMayBeAbout(t *testing.T) {
	var o outbox
	o.init()
	large := wire.Batch{Data: make([]byte, maxBatch), ItemSize: maxBatch, Count: 1}
	o.chunk(wire.Chunk{ID: 1, Items: large})
	o.chunk(wire.Chunk{ID: 2, Items: large})
	o.head(func(h *pb.AttachResponse) { h.Revokes = append(h.Revokes, &pb.Revoke{Chunk: 2}) })
	first, _ := o.take()
	second, _ := o.take()
	if len(first.Chunks) != 1 || first.Head != nil || len(second.Chunks) != 1 || len(second.Head.GetRevokes()) != 1 {
		t.Errorf("got %d chunks with head %v, then %d with %v", len(first.Chunks), first.Head, len(second.Chunks), second.Head)
	}
	if m, _ := o.take(); m != nil {
		t.Errorf("there is another message: %v", m)
	}
}
