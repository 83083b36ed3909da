// Worker is the worker of the test under a real systemd. Its one function leaves a trace of every time that it runs.
package main

import (
	"context"
	"os"
	"time"

	"github.com/procpool/procpool/workerproc"
)

func main() {
	_ = workerproc.Func("note", func(_ context.Context, item string) (string, error) {
		f, err := os.OpenFile("/var/lib/procpool/notes", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return "", err
		}
		defer f.Close()
		if _, err := f.WriteString(item + "\n"); err != nil { // one write: lines of several workers do not mix
			return "", err
		}
		time.Sleep(100 * time.Millisecond) // long enough for a restart in the middle of a call
		return item, nil
	})
	workerproc.Main()
}
