package mapping

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/procpool/procpool/cmd/procpool/internal/screen"
)

const (
	stallAfter = 10 * time.Second // how long nothing may end before map says what it waits for
	oldAfter   = 2 * time.Second  // how long an item runs before the bar names it
)

// progress knows the items that are under way. Items begin on the goroutine that draws them, end on the one that takes outcomes, and
// are shown by a third.
type progress struct {
	start   time.Time
	workers int // how many run at a time; 0 if nobody knows

	mu      sync.Mutex
	running int // how many have begun to run, as far as can be told: they do in order, and whenever one ends
	total   int // -1 while it is not known
	drawn   int
	lowest  int // no index below it is pending
	done    int
	failed  int
	last    time.Time // when an item ended, or the work began
	pending map[int]*pendingItem
}

type pendingItem struct {
	job   *job
	begun time.Time // to run, as far as can be told
	pid   string    // of a command that has run for some time
}

// String is how an item is called when something is said about it.
func (it *pendingItem) String() string {
	if it.job.Block != nil {
		return fmt.Sprintf("block %d", it.job.Seq)
	}
	return fmt.Sprintf("item %d (%s)", it.job.Seq, screen.Shorten(it.job.name(), 60))
}

func newProgress(total, workers int, now time.Time) *progress {
	return &progress{start: now, last: now, total: total, workers: workers, pending: map[int]*pendingItem{}}
}

// begin is told the next job and returns its index.
func (p *progress) begin(j *job, now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	index := p.drawn
	p.drawn++
	p.pending[index] = &pendingItem{job: j, begun: now}
	if p.workers == 0 || p.running-p.done < p.workers {
		p.running++
	}
	return index
}

// inputEnded is told that begin will not be called again.
func (p *progress) inputEnded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total = p.drawn
}

// runs is told the process id of an item's command.
func (p *progress) runs(index int, pid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if it := p.pending[index]; it != nil {
		it.pid = pid
	}
}

// job is the job of an index that has not ended.
func (p *progress) job(index int) *job {
	p.mu.Lock()
	defer p.mu.Unlock()
	if it := p.pending[index]; it != nil {
		return it.job
	}
	return &job{}
}

// skip is told that an item of the input is done already.
func (p *progress) skip() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.total > 0 {
		p.total--
	}
}

// end is told how an item ended, and returns what was known of it.
func (p *progress) end(index int, ok bool, now time.Time) *pendingItem {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.pending[index]
	delete(p.pending, index)
	p.done++
	p.last = now
	if !ok {
		p.failed++
	}
	if next := p.pending[p.running]; next != nil {
		next.begun = now
		p.running++
	}
	return it
}

// forget is told that a job has not begun after all.
func (p *progress) forget(index int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if it := p.pending[index]; it != nil {
		delete(p.pending, index)
		it.job.release()
	}
}

// releaseAll lets go of what has not ended, when nothing will any more.
func (p *progress) releaseAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, it := range p.pending {
		it.job.release()
	}
	clear(p.pending)
}

// counts are how many items have ended, how many of these failed, and how many there are; -1 if that is not known yet.
func (p *progress) counts() (done, failed, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done, p.failed, p.total
}

// stalled says what is waited for, if nothing has ended for some time.
func (p *progress) stalled(now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.longest()
	if now.Sub(p.last) < stallAfter || it == nil {
		return ""
	}
	s := fmt.Sprintf("waiting for %v", it)
	if it.pid != "" {
		s += ", pid " + it.pid
	}
	return fmt.Sprintf("%s, for %v", s, now.Sub(p.last).Truncate(time.Second))
}

// oldest says what has run longest, if that is some time.
func (p *progress) oldest(now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.longest()
	if it == nil || now.Sub(it.begun) < oldAfter {
		return ""
	}
	return fmt.Sprintf("%v runs for %v", it, now.Sub(it.begun).Truncate(time.Second))
}

// longest is what has run longest. Items start in the order of their indexes, so it is the lowest.
func (p *progress) longest() *pendingItem {
	for ; p.lowest < p.drawn; p.lowest++ {
		if it := p.pending[p.lowest]; it != nil {
			return it
		}
	}
	return nil
}

// watch shows the progress on a terminal until ctx is done.
func (p *progress) watch(ctx context.Context, s *screen.Screen) {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	defer s.Show("")
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			stalled := p.stalled(now)
			if !s.WantsBar {
				if stalled != "" && said == "" {
					s.Say("%s", stalled) // once per stall: a terminal that shows results too is not to be filled
				}
				said = stalled
				continue
			}
			done, failed, total := p.counts()
			line := progressLine(s.Width, done, total, failed, now.Sub(p.start))
			if note := cmp.Or(stalled, p.oldest(now)); note != "" {
				line = screen.Shorten(line+"; "+note, s.Width-1)
			}
			s.Show(line)
		}
	}
}

// progressLine is the bar for width columns: what is done of how many (-1: not known yet), how many failed, and how long it takes.
func progressLine(width, done, total, failed int, elapsed time.Duration) string {
	counts := fmt.Sprintf(" %d", done)
	if total >= 0 {
		counts = fmt.Sprintf(" %d/%d", done, total)
	}
	if failed > 0 {
		counts += fmt.Sprintf(", %d failed", failed)
	}
	if rate := float64(done) / elapsed.Seconds(); elapsed > time.Second && done > 0 {
		counts += fmt.Sprintf(", %.3g/s", rate)
		if total > done {
			left := time.Duration(float64(total-done) / rate * float64(time.Second))
			counts += fmt.Sprintf(", %v left", left.Round(time.Second))
		}
	}
	if room := min(width-len(counts)-3, 40); total > 0 && room >= 5 {
		full := room * done / total
		return "[" + strings.Repeat("#", full) + strings.Repeat("-", room-full) + "]" + counts
	}
	counts = strings.TrimPrefix(counts, " ")
	return counts[:min(len(counts), max(width-1, 0))]
}
