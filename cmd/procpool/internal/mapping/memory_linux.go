package mapping

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// availableMemory is how much memory new processes can have without swapping, as the kernel estimates it for the machine.
func availableMemory() (int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("find out the available memory: %w", err)
	}
	return memAvailable(b)
}

func memAvailable(meminfo []byte) (int64, error) {
	for line := range bytes.Lines(meminfo) {
		fields := bytes.Fields(line)
		if len(fields) < 2 || string(fields[0]) != "MemAvailable:" {
			continue
		}
		kib, err := strconv.ParseInt(string(fields[1]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("find out the available memory: %w", err)
		}
		return kib << 10, nil
	}
	return 0, fmt.Errorf("find out the available memory: /proc/meminfo has no MemAvailable")
}
