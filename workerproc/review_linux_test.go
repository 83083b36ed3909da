package workerproc

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

func TestAProgramInAClosedDirectoryIsDiagnosed(t *testing.T) {
	dir, err := os.MkdirTemp("", "wp")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // root may look everywhere; this thread may not
		runtime.LockOSThread() // and is not used again
		if err := syscall.Setfsuid(65534); err != nil {
			t.Skipf("root cannot give up its rights here, so a program out of reach is NOT tested; run the tests as an ordinary user: %v", err)
		}
		defer syscall.Setfsuid(0)
	}
	path := filepath.Join(dir, "program")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrPermission) {
		t.Skipf("stat reaches into a directory without rights here (%v), so a program out of reach is NOT tested; run the tests as an ordinary user", err)
	}
	if err := diagnose(&pb.Program{Path: path}, syscall.EACCES); err == nil {
		t.Error("no diagnosis")
	}
}
