package flags

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ParseBytes reads a size: a number of bytes, or of KiB, MiB or GiB with K, M or G behind it. Nothing is 0.
func ParseBytes(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	number, shift := s, 0
	if i := strings.IndexByte("KMG", s[len(s)-1]); i >= 0 {
		number, shift = s[:len(s)-1], 10*(i+1)
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is not a size: write bytes, or a number with K, M or G, as 500M", s)
	}
	return n << shift, nil
}

// FormatBytes writes a size for people.
func FormatBytes(n int64) string {
	for _, unit := range []struct {
		name  string
		bytes int64
	}{{"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}} {
		if n >= unit.bytes {
			return fmt.Sprintf("%.3g%s", float64(n)/float64(unit.bytes), unit.name)
		}
	}
	return strconv.FormatInt(n, 10)
}
