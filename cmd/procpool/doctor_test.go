package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// diagnosis is what doctor says as JSON.
func diagnosis(t *testing.T, args ...string) (*pb.DescribeResponse, map[string]*pb.Guarantee) {
	t.Helper()
	d := &pb.DescribeResponse{}
	if err := protojson.Unmarshal([]byte(run0(t, append([]string{"doctor", "-o", "json"}, args...)...)), d); err != nil {
		t.Fatal(err)
	}
	byName := make(map[string]*pb.Guarantee)
	for _, g := range d.Guarantees {
		byName[g.Name] = g
		if g.How == "" || (!g.Active && g.Advice == "") {
			t.Errorf("%v does not say how, or what to do", g)
		}
	}
	return d, byName
}

func TestDoctorSeesTheEmbeddedDaemonAtWork(t *testing.T) {
	d, byName := diagnosis(t)
	if !d.Embedded || d.Pid == 0 || int(d.Uid) != os.Getuid() || d.Socket == "" || d.Version == "" || d.Started == nil {
		t.Errorf("the daemon is %v", d)
	}
	want := []string{"workers start", "private sockets", "lifeline"}
	if runtime.GOOS == "linux" {
		want = append(want, "worker identity", "guardian", "progress record", "client death")
	}
	eventually(t, func() string { // it may take longer to start than doctor waits for it
		if g := byName["guardian"]; slices.Contains(want, "guardian") && !g.GetActive() {
			_, byName = diagnosis(t)
			return fmt.Sprint(g)
		}
		return ""
	})
	for _, name := range want {
		if !byName[name].GetActive() {
			t.Errorf("%s: %v, want it active", name, byName[name])
		}
	}
	table := run0(t, "doctor")
	if !strings.HasPrefix(table, "embedded daemon ") || !strings.Contains(table, "\nok  workers start ") || !strings.Contains(table, "→ ") {
		t.Errorf("the table is\n%s", table)
	}
}

func TestDoctorAsksTheDaemonThatIsNamed(t *testing.T) {
	addr := newDaemon(t)
	d, byName := diagnosis(t, addr...)
	if d.Embedded || int(d.Pid) != os.Getpid() {
		t.Errorf("the daemon is %v", d)
	}
	if byName["systemd"].GetActive() || byName["workers start"] != nil {
		t.Errorf("it says %v", d)
	}
}

func TestDoctorMissesWhatIsEssential(t *testing.T) {
	addr := newDaemon(t)
	var shown struct{ Socket string }
	if err := json.Unmarshal([]byte(run0(t, append([]string{"doctor", "-o", "json"}, addr...)...)), &shown); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(filepath.Dir(shown.Socket), "private"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := finish(t, procpool(t, append([]string{"doctor"}, addr...)...))
	if r.status != 1 || !strings.Contains(r.stdout, "MISSING  private sockets") || !strings.Contains(r.stdout, "→ chmod 0700") {
		t.Errorf("got %+v, want status 1 and what is missing", r)
	}
}
