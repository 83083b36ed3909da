package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// stallAfter is how long nothing may end before map says what it waits for.
const stallAfter = 10 * time.Second

// progress knows the items that are under way. Items begin on the goroutine that draws them, end on the one that takes outcomes, and
// are shown by a third.
type progress struct {
	start time.Time

	mu      sync.Mutex
	total   int // -1 while it is not known
	drawn   int
	done    int
	failed  int
	last    time.Time // when an item ended, or the work began
	pending map[int]*pendingItem
}

type pendingItem struct {
	item  string
	begun time.Time
	pid   string // of a command that has run for some time
}

func newProgress(total int, now time.Time) *progress {
	return &progress{start: now, last: now, total: total, pending: map[int]*pendingItem{}}
}

// begin is told the next item and returns its index.
func (p *progress) begin(item string, now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	index := p.drawn
	p.drawn++
	p.pending[index] = &pendingItem{item: item, begun: now}
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

// item is the item of an index that has not ended.
func (p *progress) item(index int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if it := p.pending[index]; it != nil {
		return it.item
	}
	return ""
}

// end is told how an item ended.
func (p *progress) end(index int, ok bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pending, index)
	p.done++
	p.last = now
	if !ok {
		p.failed++
	}
}

// counts are how many items have ended, how many of these failed, and how many there are; -1 if that is not known yet.
func (p *progress) counts() (done, failed, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done, p.failed, p.total
}

// stalled says what is waited for, if nothing has ended for some time. Items start in the order of their indexes, so the lowest has run longest.
func (p *progress) stalled(now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.last) < stallAfter || len(p.pending) == 0 {
		return ""
	}
	oldest := -1
	for index := range p.pending {
		if oldest < 0 || index < oldest {
			oldest = index
		}
	}
	it := p.pending[oldest]
	s := fmt.Sprintf("waiting for item %d (%s)", oldest+1, shorten(it.item, 40))
	if it.pid != "" {
		s += ", pid " + it.pid
	}
	return fmt.Sprintf("%s, for %v", s, now.Sub(p.last).Truncate(time.Second))
}

// watch shows the progress on a terminal until ctx is done.
func (p *progress) watch(ctx context.Context, s *screen) {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	defer s.show("")
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			stalled := p.stalled(now)
			if !s.wantsBar {
				if stalled != "" && said == "" {
					s.say("%s", stalled) // once per stall: a terminal that shows results too is not to be filled
				}
				said = stalled
				continue
			}
			done, failed, total := p.counts()
			line := progressLine(s.width, done, total, failed, now.Sub(p.start))
			if stalled != "" {
				line = shorten(line+"; "+stalled, s.width-1)
			}
			s.show(line)
		}
	}
}

// shorten keeps s to n runes, on one line.
func shorten(s string, n int) string {
	r := []rune(s)
	for i, c := range r {
		if c < ' ' || c == 0x7f {
			r[i] = '?'
		}
	}
	if len(r) > n && n > 0 {
		r = append(r[:n-1], '…')
	}
	return string(r)
}
