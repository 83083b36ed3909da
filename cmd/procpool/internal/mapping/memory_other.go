//go:build !linux

package mapping

import "errors"

// availableMemory is known on Linux only.
func availableMemory() (int64, error) {
	return 0, errors.New("how much memory is available can be found out on Linux only")
}
