package mapping

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"time"
)

const (
	medianOf   = 999 // so many of the last commands that succeeded
	medianFrom = 3   // not before so many have
	limitPoll  = 50 * time.Millisecond
)

// medianLimit is how long commands may take, in percent of the median of the others. Workers read it from a file, so that it also holds for those that
// ran before it was known.
type medianLimit struct {
	percent float64
	file    *os.File

	last   []time.Duration // as they came
	sorted []time.Duration
	oldest int // in last
}

// add is told how long a command took that succeeded.
func (m *medianLimit) add(d time.Duration) error {
	if len(m.last) < medianOf {
		m.last = append(m.last, d)
	} else {
		i, _ := slices.BinarySearch(m.sorted, m.last[m.oldest])
		m.sorted = slices.Delete(m.sorted, i, i+1)
		m.last[m.oldest] = d
		m.oldest = (m.oldest + 1) % medianOf
	}
	i, _ := slices.BinarySearch(m.sorted, d)
	m.sorted = slices.Insert(m.sorted, i, d)
	if len(m.sorted) < medianFrom {
		return nil
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(m.limit()))
	if _, err := m.file.WriteAt(b[:], 0); err != nil {
		return fmt.Errorf("tell the time limit: %w", err)
	}
	return nil
}

func (m *medianLimit) limit() time.Duration {
	return max(time.Duration(float64(m.sorted[len(m.sorted)/2])*m.percent/100), time.Millisecond)
}

// watchLimit calls late when a command that began at start has taken longer than the file says. The returned function ends that and waits for it.
func watchLimit(file string, start time.Time, late func()) (stop func(), err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the time limit: %w", err)
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer f.Close()
		ticker := time.NewTicker(limitPoll)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case now := <-ticker.C:
				var b [8]byte
				if n, _ := f.ReadAt(b[:], 0); n < len(b) {
					continue // nobody knows yet
				}
				if limit := time.Duration(binary.LittleEndian.Uint64(b[:])); now.Sub(start) > limit {
					late()
					return
				}
			}
		}
	}()
	return func() { close(done); <-ended }, nil
}
