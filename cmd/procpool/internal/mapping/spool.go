package mapping

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

const (
	spoolMemory = 1 << 20  // bytes of one stream of one command that stay in memory
	spoolBudget = 32 << 20 // bytes of all of them together
)

// spool keeps output until its turn comes: in memory while it is small, then in a file that has no name, so that nothing is left behind. The
// zero value with a budget is empty.
type spool struct {
	budget *atomic.Int64 // what all spools together hold in memory
	size   int64         // of everything that has been written
	mem    []byte
	file   *os.File
}

// Write adds output.
func (s *spool) Write(p []byte) (int, error) {
	if s.file == nil {
		if len(s.mem)+len(p) <= spoolMemory && s.budget.Load() < spoolBudget { // a budget, not a limit: one piece more does no harm
			s.budget.Add(int64(len(p)))
			s.size += int64(len(p))
			s.mem = append(s.mem, p...)
			return len(p), nil
		}
		if err := s.spill(); err != nil {
			return 0, err
		}
	}
	n, err := s.file.Write(p)
	s.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("spool output: %w", err)
	}
	return n, nil
}

func (s *spool) spill() error {
	f, err := os.CreateTemp("", "procpool-*")
	if err != nil {
		return fmt.Errorf("spool output: %w", err)
	}
	s.file = f
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("spool output: %w", err)
	}
	if _, err := f.Write(s.mem); err != nil {
		return fmt.Errorf("spool output: %w", err)
	}
	s.budget.Add(-int64(len(s.mem)))
	s.mem = nil
	return nil
}

// WriteTo writes everything to w, from the beginning.
func (s *spool) WriteTo(w io.Writer) (int64, error) {
	if s.file == nil {
		if len(s.mem) == 0 {
			return 0, nil
		}
		n, err := w.Write(s.mem)
		return int64(n), err
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read spooled output: %w", err)
	}
	return io.Copy(w, s.file)
}

// Close throws everything away.
func (s *spool) Close() error {
	s.budget.Add(-int64(len(s.mem)))
	s.mem = nil
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}
