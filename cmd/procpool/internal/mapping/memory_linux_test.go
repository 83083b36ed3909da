package mapping

import "testing"

func TestMemAvailable(t *testing.T) {
	t.Parallel()
	got, err := memAvailable([]byte("MemTotal: 100 kB\nMemFree: 2 kB\nMemAvailable:   1234 kB\n"))
	if want := int64(1234 << 10); got != want || err != nil {
		t.Errorf("got %d, %v; want %d", got, err, want)
	}
	if got, err := memAvailable([]byte("MemTotal: 100 kB\n")); err == nil {
		t.Errorf("got %d from a file without it", got)
	}
}
