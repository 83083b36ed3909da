package mapping

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// slowWriter takes its time with every write.
type slowWriter struct {
	each time.Duration
	n    int
}

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(w.each) //nolint:forbidigo // it is slow
	w.n += len(p)
	return len(p), nil
}

// TestAllThatAProgramHasWrittenIsRead, however late its reader is: it has ended long ago, and its output is in a large pipe.
func TestAllThatAProgramHasWrittenIsRead(t *testing.T) {
	t.Parallel()
	perl, err := exec.LookPath("perl")
	if err != nil {
		t.Skip("NOT TESTED: a program with a large pipe, in Perl, which is not installed (apt-get install perl)")
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	const size = 3*captureSize + 1
	const setPipeSize = "1031" // F_SETPIPE_SZ
	w := &slowWriter{each: commandGrace + commandGrace/10}
	stdout, stderr := newCapture(w, false), newCapture(w, false)
	defer stdout.release()
	defer stderr.release()
	script := "fcntl(STDOUT, " + setPipeSize + ", 1 << 20) or die $!; print 'x' x $ARGV[0]"
	r, err := runCaptured(t.Context(), program{perl, []string{"perl", "-e", script, strconv.Itoa(size)}, null}, stdout, stderr, func(int) {})
	if got := w.n + stdout.n; err != nil || r.status != 0 || r.told || got != size {
		t.Errorf("got %d bytes of %d, %+v, %v: %s", got, size, r, err, stderr.rest())
	}
}
