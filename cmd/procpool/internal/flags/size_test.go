package flags

import "testing"

func TestSizesAreRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"": 0, "0": 0, "1": 1, "3K": 3 << 10, "500M": 500 << 20, "2G": 2 << 30, "8589934591G": 8589934591 << 30} {
		if got, err := ParseBytes(text); got != want || err != nil {
			t.Errorf("%q is read as %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"M", "-1", "1.5G", "1T", "12 M", "8589934592G", "99999999999999999999"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("%q is read as %d, want an error", text, got)
		}
	}
}
