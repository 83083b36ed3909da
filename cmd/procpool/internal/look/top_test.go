package look

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// busy is a daemon that has something to show, a second after another moment.
func busy() change {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }
	look := func(at time.Time, done uint64, run, cpu time.Duration) *moment {
		return &moment{
			at:    at,
			about: &pb.DescribeResponse{Version: "v0.1.0", Pid: 4711, Started: ago(3 * time.Hour), Socket: "/run/user/1000/procpool/api.sock"},
			pools: []*pb.Pool{
				{
					Name: "counting", State: pb.PoolState_POOL_STATE_OPEN, Workers: 4, Busy: 3, Idle: 1, Calls: 2, Created: ago(2 * time.Hour), PendingTasks: 12345, QueuedTasks: 12000,
					DoneTasks: done, FailedTasks: 17, RunTime: durationpb.New(run), DispatchedTasks: done, WaitTime: durationpb.New(run * 2),
					Functions: []*pb.PoolFunction{{Name: "count_chars"}, {Name: "count_words_and_other_things"}},
				},
				{
					Name: "a-pool-with-a-very-long-name-indeed", State: pb.PoolState_POOL_STATE_DEGRADED, Workers: 2, Created: ago(time.Minute),
					LastExit: &pb.WorkerExit{Reason: "it did not say Hello within the start timeout of 10s", Time: ago(5 * time.Second)},
				},
			},
			workers: []*pb.Worker{
				{Name: "counting-1", Pool: "counting", Pid: 100, State: pb.WorkerState_WORKER_STATE_BUSY, Started: ago(time.Hour), DoneTasks: done / 2, CallId: strings.Repeat("ab", 16), Index: 77, Since: ago(90 * time.Second), Memory: 300 << 20, CpuTime: durationpb.New(cpu)},
				{Name: "counting-2", Pool: "counting", Pid: 101, State: pb.WorkerState_WORKER_STATE_IDLE, Started: ago(time.Hour), DoneTasks: done / 2, Memory: 20 << 20, CpuTime: durationpb.New(0)},
			},
			calls: []*pb.Call{{
				Id: strings.Repeat("ab", 16), Pool: "counting", Function: "count_chars", Uid: 1000, Pid: 555, Program: "/usr/bin/python3", Label: "nightly\x1b[2Jrun", AcceptedTasks: 20000,
				DoneTasks: done / 10, RunningTasks: 3, FailedTasks: 1, Started: ago(100 * time.Second), OldestIndex: 77, OldestSince: ago(90 * time.Second),
			}},
		}
	}
	return change{look(now.Add(-time.Second), 10_000, 10*time.Second, time.Second), look(now, 12_000, 14*time.Second, 1500*time.Millisecond)}
}

func newTop(width, height int) *top {
	return &top{sees: busy(), width: width, height: height, sorts: map[view]order{workersView: {7, true}, callsView: {5, true}}}
}

func TestTopFitsItsScreen(t *testing.T) {
	t.Parallel()
	for _, width := range []int{20, 40, 80, 120, 200} {
		for _, height := range []int{5, 8, 24, 50} {
			for _, v := range []view{poolsView, workersView, callsView} {
				top := newTop(width, height)
				top.show(v, "")
				lines := strings.Split(top.screen(), "\n")
				if len(lines) > max(height, 8) {
					t.Errorf("%s at %dx%d has %d lines", viewNames[v], width, height, len(lines))
				}
				for _, l := range lines {
					if w := ansi.StringWidth(l); w > width {
						t.Errorf("%s at %dx%d has a line of %d: %q", viewNames[v], width, height, w, l)
					}
				}
			}
		}
	}
}

func TestTopShowsWhatMatters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		width int
		view  view
		want  []string
	}{
		{80, poolsView, []string{"procpoold v0.1.0, pid 4711, up 3h00m", "2 pools, 3/6 busy, 1 call, 12000 queued, 2000 tasks/s", "counting", "3/4", "12000", "2000", "2ms", "4ms", "degraded", "start timeout of 10s"}},
		{200, poolsView, []string{"320M", "50", "12000", "17", "2h00m", "count_chars,count_words_and_other_things"}},
		{80, workersView, []string{"counting-1", "100", "busy", "1000", "300M", "50", "1m30s", "77", "count_chars"}},
		{200, workersView, []string{strings.Repeat("ab", 16), "1h00m", "6000"}},
		{80, callsView, []string{"counting", "count_chars", "1000", "555", "1m40s", "200", "1200", "20000+", "1m30s"}},
		{200, callsView, []string{strings.Repeat("ab", 16), "python3", "nightly?[2Jrun"}},
	} {
		top := newTop(c.width, 24)
		top.show(c.view, "")
		screen := ansi.Strip(top.screen())
		for _, want := range c.want {
			if !strings.Contains(screen, want) {
				t.Errorf("%s at %d has no %q:\n%s", viewNames[c.view], c.width, want, screen)
			}
		}
	}
}

func TestTopKeys(t *testing.T) {
	t.Parallel()
	top := newTop(80, 24)
	press := func(keys ...string) string {
		for _, k := range keys {
			top.press(k)
		}
		return ansi.Strip(top.screen())
	}
	if s := press(); !strings.Contains(s, "> a-pool") {
		t.Errorf("the first pool is not selected:\n%s", s)
	}
	if s := press("down", "enter"); !strings.Contains(s, "WORKERS of counting") || !strings.Contains(s, "> counting-1") {
		t.Errorf("Enter does not lead into the pool:\n%s", s)
	}
	if s := press("c"); !strings.Contains(s, "CALLS of counting") {
		t.Errorf("c does not show the pool's calls:\n%s", s)
	}
	if s := press("esc"); !strings.Contains(s, "POOLS") || !strings.Contains(s, "> counting") {
		t.Errorf("Esc does not lead back to the pool:\n%s", s)
	}
	if s := press("s", "s"); !strings.Contains(s, "BUSY↓") || strings.Index(s, "counting") > strings.Index(s, "a-pool") {
		t.Errorf("not sorted by busy workers:\n%s", s)
	}
	if s := press("r"); !strings.Contains(s, "BUSY↑") || strings.Index(s, "counting  ") < strings.Index(s, "a-pool") {
		t.Errorf("not the other way round:\n%s", s)
	}
	if s := press("w"); !strings.Contains(s, "WORKERS\n") {
		t.Errorf("w does not show all workers:\n%s", s)
	}
	if top.press("q") == nil {
		t.Error("q does not end it")
	}
	top.err = errors.New("no connection\nto the daemon")
	if s := press("p"); !strings.Contains(s, "no connection; to the daemon") || !strings.Contains(s, "counting") {
		t.Errorf("a daemon that is gone: want the reason and the last that was seen\n%s", s)
	}
}

func TestTopScrolls(t *testing.T) {
	t.Parallel()
	top := newTop(80, 12)
	for i := range 100 {
		top.sees.now.workers = append(top.sees.now.workers, &pb.Worker{Name: fmt.Sprintf("many-%03d", i), Pool: "many"})
	}
	top.show(workersView, "many")
	top.sorts[workersView] = order{0, false}
	seen := func(key, want string) {
		t.Helper()
		top.press(key)
		if s := ansi.Strip(top.screen()); !strings.Contains(s, "> "+want) {
			t.Errorf("after %s: %s is not selected\n%s", key, want, s)
		}
	}
	seen("down", "many-001")
	seen("pgdown", "many-006")
	seen("end", "many-099")
	seen("up", "many-098")
	seen("home", "many-000")
	// What is selected stays so when rows go, as long as it is there.
	seen("pgdown", "many-005")
	top.sees.now.workers = slices.DeleteFunc(top.sees.now.workers, func(w *pb.Worker) bool { return w.Name < "many-004" })
	seen("none", "many-005")
}

func TestSortingAndFitting(t *testing.T) {
	t.Parallel()
	g := &grid{
		columns: []column{{name: "A"}, {name: "N", right: true, rank: 1}, {name: "LONG", rank: 2, most: 5}},
		rows:    []gridRow{{"x", []cell{textCell("x"), count(9), textCell("a long text")}}, {"y", []cell{textCell("y"), count(10), textCell("b")}}, {"z", []cell{textCell("z"), unknown, textCell("\x07c")}}},
	}
	g.sortBy(1, true)
	if g.rows[0].id != "y" || g.rows[2].id != "z" {
		t.Errorf("numbers are not sorted as such: %v", g.rows)
	}
	for width, want := range map[int]string{40: "x   9  a long text", 14: "x   9  a long…", 12: "x   9  a lo…", 11: "x   9", 9: "x   9", 2: "x"} {
		if _, rows := g.lines(width, 1, true); rows[1] != want {
			t.Errorf("in %d columns: %q, want %q", width, rows[1], want)
		}
	}
}

func TestNumbersAreShort(t *testing.T) {
	t.Parallel()
	for n, want := range map[float64]string{0: "0", 0.04: "0.0", 9.94: "9.9", 10: "10", 9999: "9999", 12345: "12k", 999_499: "999k", 1.25e6: "1.2M", 13e6: "13M"} {
		if got := short(n); got != want {
			t.Errorf("%v is %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		7: "7ns", 1500: "1.5µs", 2 * time.Millisecond: "2ms", 1234 * time.Millisecond: "1.23s", 90 * time.Second: "1m30s", 61 * time.Minute: "1h01m", 240 * time.Hour: "10d",
	} {
		if got := took(d).text; got != want {
			t.Errorf("%d is %s, want %s", d, got, want)
		}
	}
}

func TestTopKeepsLookingThroughARestart(t *testing.T) {
	t.Parallel()
	top := newTop(80, 24)
	other := busy().now
	other.about.Pid = 1
	top.look = func(context.Context) (*moment, error) { return other, nil }
	if _, next := top.Update(top.doLook()); next == nil {
		t.Error("it does not look again")
	}
	if top.sees.before != nil || top.sees.now != other {
		t.Error("rates across two daemons mean nothing")
	}
}
