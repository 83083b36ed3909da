//go:build !linux

package mapping

import (
	"fmt"
	"os"
)

// newShared makes a file that workers open by its path.
func newShared(what string) (shared, error) {
	f, err := os.CreateTemp("", "procpool-*")
	if err != nil {
		return shared{}, fmt.Errorf("make a file for %s: %w", what, err)
	}
	return shared{file: f, path: f.Name(), close: func() { f.Close(); os.Remove(f.Name()) }}, nil
}
