package server

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/workerproc"
)

// A worker that writes in a loop has its burst, then its rate, and the rest is counted. Nothing waits: the bubble's clock stands still while it writes.
func TestFloodIsCutAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		p := &pool{name: "p", events: newNews(), log: hclog.New(&hclog.LoggerOptions{Output: &log})}
		w := &worker{name: "p-1", pool: p}
		f := newFeed(100_000, math.MaxInt)
		p.events.subscribe(f, 0, true)
		write := func(n int, line string) {
			for range n {
				w.wrote(workerproc.Line{Pid: 7, Stream: 1, Text: []byte(line)})
			}
		}
		read := func() (lines int, reports []string) {
			for m := f.take(); m != nil; m = f.take() {
				for _, o := range m.Outputs {
					if o.Stream == 2 {
						reports = append(reports, string(o.Line))
					} else {
						lines++
					}
				}
			}
			return lines, reports
		}
		for _, c := range []struct {
			after       time.Duration
			write       int
			line        string
			want, drops int
		}{
			{0, 10_000, "x", lineBurst, 10_000 - lineBurst},
			{time.Second, 3000, "x", 1000, 2000}, // on top of the second in which the last report came
			{time.Minute, 4000, "x", 4000, 0},
			{time.Minute, 100, strings.Repeat("x", 64<<10), 64, 36},
		} {
			time.Sleep(c.after) //nolint:forbidigo // the bubble's clock
			write(c.write, c.line)
			lines, reports := read()
			if lines < c.want || lines > c.want+lineRate || len(reports) > 0 {
				t.Errorf("%d lines after %v: %d came through and reports %q, want %d and none yet", c.write, c.after, lines, reports, c.want)
			}
			time.Sleep(reportDropped) //nolint:forbidigo // the bubble's clock
			synctest.Wait()
			_, reports = read()
			dropped := 0
			if len(reports) > 0 {
				if _, err := fmt.Sscanf(reports[0], "procpool: %d lines dropped", &dropped); err != nil {
					t.Fatalf("%q: %v", reports[0], err)
				}
			}
			if dropped+lines != c.write || (c.drops == 0) != (len(reports) == 0) || len(reports) > 1 {
				t.Errorf("%d lines after %v: %d came through, reports %q; want all accounted for in at most one", c.write, c.after, lines, reports)
			}
		}
		write(10_000, "x")
		w.reportDropped(7) // the worker has ended
		if _, reports := read(); len(reports) != 1 {
			t.Errorf("at the worker's end: got reports %q, want one", reports)
		}
		time.Sleep(2 * reportDropped) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		if lines, reports := read(); lines+len(reports) > 0 {
			t.Errorf("after the worker's end: got %d lines and reports %q, want none", lines, reports)
		}
		if !strings.Contains(log.String(), "output dropped") || !strings.Contains(log.String(), "lines=") {
			t.Errorf("the log says nothing of dropped lines:\n%.500s", &log)
		}
	})
}

// in is what a feed has, in words, and whether it has ended.
func in(f *feed) (words string, ended bool) {
	var list []string
	for m := f.take(); m != nil && !ended; m = f.take() {
		for _, o := range m.Outputs {
			list = append(list, string(o.Line))
		}
		for _, e := range m.Exits {
			list = append(list, "-"+e.Worker)
		}
		if m.Dropped > 0 {
			list = append(list, fmt.Sprintf("!%d", m.Dropped))
		}
		ended = m.Ended
	}
	return strings.Join(list, " "), ended
}

func TestNewsKeepOrderAndTheLastOfIt(t *testing.T) {
	n := newNews()
	line := func(s string) { n.output(&pb.WorkerOutput{Line: []byte(s)}, nobody) }
	first := newFeed(10, 1000)
	n.subscribe(first, 0, true)
	line("a")
	line("b")
	n.exit(&ending{exit: &pb.WorkerExit{Worker: "1"}})
	n.exit(&ending{exit: &pb.WorkerExit{Worker: "2"}})
	line("c")
	for tail, want := range map[int]string{0: "", 1: "c", 2: "b -1 -2 c", 3: "a b -1 -2 c", math.MaxInt: "a b -1 -2 c"} {
		f := newFeed(10, 1000)
		n.subscribe(f, tail, true)
		if got, _ := in(f); got != want {
			t.Errorf("the last %d lines: got %q, want %q", tail, got, want)
		}
	}
	all := newFeed(10, 1000) // of all pools
	n.subscribe(all, 1, false)
	line("d")
	n.end()
	if got, ended := in(first); got != "a b -1 -2 c d" || !ended {
		t.Errorf("got %q, ended %v; want everything in order, and the end", got, ended)
	}
	if got, ended := in(all); got != "c d" || ended {
		t.Errorf("got %q, ended %v; want the last line and the next, and no end with one pool", got, ended)
	}
	late := newFeed(10, 1000)
	n.subscribe(late, 1, true)
	if got, ended := in(late); got != "d" || !ended {
		t.Errorf("after the end: got %q, ended %v; want the last line and the end", got, ended)
	}
}

func TestRecentNewsAreBounded(t *testing.T) {
	n := newNews()
	for i := range 3 * recentSize {
		n.output(&pb.WorkerOutput{Line: fmt.Append(nil, i)}, nobody)
	}
	f := newFeed(feedSize, feedBytes)
	n.subscribe(f, math.MaxInt, true)
	if got, _ := in(f); !strings.HasPrefix(got, fmt.Sprint(2*recentSize, " ")) {
		t.Errorf("the oldest line kept is %.10q…, want the last %d", got, recentSize)
	}
	for range 100 {
		n.output(&pb.WorkerOutput{Line: make([]byte, 64<<10)}, nobody)
	}
	if n.recent.bytes > recentBytes {
		t.Errorf("it keeps %d bytes, want at most %d", n.recent.bytes, recentBytes)
	}
}
