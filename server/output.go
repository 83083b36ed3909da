package server

import (
	"fmt"
	"sync"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/workerproc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// A worker's lines are passed on as long as there are not more in a second, nor more bytes of them, but for a burst. The rest is dropped and counted:
// one worker that writes in a loop must not fill the log, nor push the lines of the others out of it.
const (
	lineRate  = 1000
	lineBurst = 4000
	byteRate  = 1 << 20
	byteBurst = 4 << 20

	// reportDropped is how long after the first dropped line the number of them is said, and how far apart such reports are at least.
	reportDropped = time.Second
)

// tap is where a worker's lines come through. Nobody waits at it.
type tap struct {
	mu      sync.Mutex
	started bool
	lines   float64 // that may come at once
	bytes   float64
	last    time.Time   // when these two were right
	dropped uint64      // not reported yet
	report  *time.Timer // runs while there is something to report
}

// take reports whether a line of n bytes may pass. One that may not is counted, and report will be called.
func (t *tap) take(now time.Time, n int, report func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.started {
		t.started, t.lines, t.bytes, t.last = true, lineBurst, byteBurst, now
	}
	if passed := now.Sub(t.last).Seconds(); passed > 0 { // two readers may come in another order than they looked at the clock
		t.lines = min(lineBurst, t.lines+passed*lineRate)
		t.bytes = min(byteBurst, t.bytes+passed*byteRate)
		t.last = now
	}
	if t.lines < 1 || t.bytes < float64(n) {
		if t.dropped++; t.report == nil {
			t.report = time.AfterFunc(reportDropped, report)
		}
		return false
	}
	t.lines--
	t.bytes -= float64(n)
	return true
}

// reported is how many lines have been dropped since it was asked last.
func (t *tap) reported() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.report != nil {
		t.report.Stop()
		t.report = nil
	}
	n := t.dropped
	t.dropped = 0
	return n
}

// wrote gets a line that the worker wrote. It is called by the readers of its output, one for stdout and one for stderr.
func (w *worker) wrote(line workerproc.Line) {
	now := time.Now()
	if !w.tap.take(now, len(line.Text), func() { w.reportDropped(line.Pid) }) {
		return
	}
	p := w.pool
	p.lines.Add(1)
	p.events.output(&pb.WorkerOutput{
		Worker: w.name, Pid: int64(line.Pid), Stream: uint32(line.Stream), Line: line.Text, Truncated: line.Truncated, Partial: line.Partial,
		Time: timestamppb.New(now),
	}, w.tenant.wroteFor(line.Page))
	if !p.opened {
		p.log.Info("output", "worker", w.name, "pid", line.Pid, "stream", [...]string{1: "stdout", 2: "stderr"}[line.Stream], "line", string(line.Text))
	}
}

// reportDropped says how many lines of the worker are missing, if there are any.
func (w *worker) reportDropped(pid int) {
	n := w.tap.reported()
	if n == 0 {
		return
	}
	w.pool.lostLines.Add(n)
	w.pool.events.output(&pb.WorkerOutput{
		Worker: w.name, Pid: int64(pid), Stream: 2, Time: timestamppb.Now(),
		Line: fmt.Appendf(nil, "procpool: %d lines dropped: more than %d or %d MiB of them in a second", n, lineRate, byteRate>>20),
	}, nobody)
	if !w.pool.opened {
		w.pool.log.Warn("output dropped", "worker", w.name, "pid", pid, "lines", n)
	}
}
