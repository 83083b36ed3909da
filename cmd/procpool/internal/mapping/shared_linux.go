package mapping

import (
	"fmt"
	"os"
)

// newShared makes a file that workers open by its path. It has no name, so that nothing is left behind whatever is killed: the path leads through
// the descriptor, and holds while the file is open.
func newShared(what string) (shared, error) {
	f, err := os.CreateTemp("", "procpool-*")
	if err != nil {
		return shared{}, fmt.Errorf("make a file for %s: %w", what, err)
	}
	s := shared{file: f, path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()), close: func() { f.Close() }}
	if _, noProc := os.Stat(s.path); noProc != nil {
		s.path, s.close = f.Name(), func() { f.Close(); os.Remove(f.Name()) }
		return s, nil //nolint:nilerr // the file has a name, then
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return shared{}, fmt.Errorf("make a file for %s: %w", what, err)
	}
	return s, nil
}
