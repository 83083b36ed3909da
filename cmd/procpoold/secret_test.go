package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// What a task is given, returns and complains of is between its program and its client: nothing of it is in the daemon's log, metrics and events, nor in the
// arguments and the environment of a process.
func TestPayloadsAreSeenNowhere(t *testing.T) {
	const secret = "hunter2-hunter2"
	socket := filepath.Join(socketDir(t), "metrics.sock")
	d := startDaemon(t, "--log-level", "trace", "--metrics", "unix:"+socket)
	pool := d.create("p", 1)

	conn, err := grpc.NewClient("unix:"+d.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	watch, err := pb.NewPoolServiceClient(conn).Watch(t.Context(), &pb.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil { // how things stand: from now on nothing is missed
		t.Fatal(err)
	}

	if got, err := client.Apply(t.Context(), pool, client.Func[[]byte, []byte]("raw"), []byte(secret)); err != nil || string(got) != secret {
		t.Fatalf("got %q, %v", got, err)
	}
	var failed *client.TaskError
	if _, err := client.Apply(t.Context(), pool, client.Func[string, int]("count_chars"), secret); !errors.As(err, &failed) || !strings.Contains(err.Error(), secret) {
		t.Fatalf("got %v, want what the function says of a file that is not there", err)
	}
	w := d.worker(pool)

	var seen strings.Builder
	for calls := 0; calls < 2; {
		m, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range m.Events {
			fmt.Fprintln(&seen, "event:", e)
			if e.Kind == pb.WatchKind_WATCH_KIND_CALL_ENDED {
				calls++
			}
		}
	}
	for _, pid := range []int{d.cmd.Process.Pid, int(w.Pid)} {
		for _, file := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if err != nil {
				t.Skipf("processes are NOT looked at here: %v", err)
			}
			fmt.Fprintf(&seen, "%s: %q\n", file, b)
		}
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("http://procpoold/metrics")
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !strings.Contains(string(page), `outcome="task_error"`) {
		t.Fatalf("the metrics are %s, %v", page, err)
	}
	seen.Write(page)
	d.cmd.Process.Signal(os.Interrupt)
	<-d.done
	seen.WriteString(d.log.String())
	for line := range strings.Lines(seen.String()) {
		if strings.Contains(line, secret) {
			t.Errorf("there it is: %s", line)
		}
	}
}
