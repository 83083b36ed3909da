package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// soakTime is how long chaos lasts. PROCPOOL_SOAK=60s says otherwise.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	if s := os.Getenv("PROCPOOL_SOAK"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if testing.Short() {
		return 2 * time.Second
	}
	if raceEnabled {
		return 15 * time.Second
	}
	return 5 * time.Second
}

// soak is a daemon under load, and what is done to it.
type soak struct {
	t       *testing.T
	mark    string // in the environment of everything that belongs to it
	addr    string
	daemon  *exec.Cmd
	log     *bytes.Buffer
	control *client.Client
	clients []*soakClient
	chaos   chaos
	report  soakReport
	slowest time.Duration // from the death of a daemon to that of its last process
}

type soakClient struct {
	cmd   *exec.Cmd
	out   bytes.Buffer
	errs  bytes.Buffer
	kills int // of daemons, when it began
}

// soakReport is what clients got; see testdata/soak.
type soakReport struct {
	Calls, Left, Cut, CutByCancel, Refused                                           int
	Tasks, Values, TaskErrors, Lost, Killers, Timeouts, Cancelled, Rejected, Cancels int
}

const (
	soakClients = 6
	soakWorkers = 3 // of the shared pool

	// Everything has happened in it, but where the race detector slows it down.
	soakEnough = 30 * time.Second
)

// TestSoak does to a daemon what can happen to it, at random, while clients check every outcome they get: each task has one, and it is right, or
// is explained by what happened. When it is over, nothing is left, and the daemon holds no more than a fresh one.
func TestSoak(t *testing.T) {
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Skip("this system has no /proc, in which this test finds what is left")
	}
	dir, err := os.MkdirTemp("", "p") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &soak{
		t: t, mark: "PROCPOOL_TEST_SOAK=" + strconv.Itoa(os.Getpid()), addr: filepath.Join(dir, "api.sock"),
		chaos: chaos{did: make(map[string]int), paused: make(map[int]time.Time), cancelled: make(map[string]bool), restarted: make(chan error, 1)},
	}
	t.Cleanup(s.clear)
	s.start()
	s.rest()
	fresh := s.usage()
	fresh.goroutines = s.quit()
	s.start()
	for range soakClients {
		s.clients = append(s.clients, s.newClient())
	}

	length := soakTime(t)
	s.wreak(length)
	s.calm()
	for _, c := range s.clients {
		s.finish(c)
	}
	s.resize(soakWorkers)
	s.rest()
	s.settle()
	after := s.usage()
	eventually(t, 40*time.Second, func() string { // an idle daemon gives memory back
		if after = s.usage(); after.memory > fresh.memory+soakMemory() {
			return fmt.Sprintf("the daemon at rest uses %v, the fresh one used %v", after, fresh)
		}
		return ""
	})
	if zombies := s.zombies(); len(zombies) > 0 {
		t.Errorf("zombies are left: %v", zombies)
	}
	after.goroutines = s.quit()
	t.Logf("soak of %v: %+v; what was done: %v; the last process of a killed daemon was gone after %v; fresh daemon: %v, soaked daemon: %v",
		length, s.report, s.chaos.did, s.slowest.Round(time.Millisecond), fresh, after)
	if after.files > fresh.files || after.goroutines > fresh.goroutines {
		t.Errorf("the daemon at rest uses %v, want no more than the fresh one's %v", after, fresh)
	}
	s.judge(length)
}

// judge compares what clients got with what was done.
func (s *soak) judge(length time.Duration) {
	s.t.Helper()
	r, did := &s.report, s.chaos.did
	if ran := r.Tasks - r.Cancelled - r.Rejected; r.Values < ran/2 || r.Values == 0 { // how many are rejected depends on how fast workers start on this machine
		s.t.Errorf("%d of the %d tasks that ran have a value; want most of them", r.Values, ran)
	}
	if length >= time.Minute && r.Values < r.Tasks/2 {
		s.t.Errorf("%d of %d tasks have a value; want most of them", r.Values, r.Tasks)
	}
	if others := r.Lost - r.Killers; others > did[killAWorker] {
		s.t.Errorf("%d tasks that kill no worker were lost with one, but only %d workers were killed", others, did[killAWorker])
	}
	if r.CutByCancel > s.chaos.cutting {
		s.t.Errorf("%d calls were cut by a cancel, but only %d were cancelled before all their items had come", r.CutByCancel, s.chaos.cutting)
	}
	if most := s.chaos.cancels + did[terminateAWorker]; r.Cancels > most {
		s.t.Errorf("%d calls have a cancelled task, but only %d were cancelled or had a worker that was told to end", r.Cancels, most)
	}
	if length < soakEnough || raceEnabled {
		return
	}
	for _, a := range s.actions() {
		if did[a.name] == 0 {
			s.t.Errorf("in %v nothing did %q to its end", length, a.name)
		}
	}
	if r.Timeouts == 0 || r.Cancelled == 0 || r.Killers == 0 {
		s.t.Errorf("in %v clients got %+v; want some of everything", length, *r)
	}
}

// soakMemory is how much more memory a daemon at rest may have than a fresh one: it knows the ends and the output of many workers.
func soakMemory() int {
	if raceEnabled {
		return 256 << 20 // the detector's own grows with what has run
	}
	return 32 << 20
}

// daemonBound is how soon every process of a dead daemon is gone, as published.
const daemonBound = 2 * time.Second

func (s *soak) env() []string { return append(os.Environ(), s.mark) }

// start starts a daemon with a shared pool.
func (s *soak) start() {
	s.t.Helper()
	s.log = new(bytes.Buffer)
	s.daemon = exec.Command(filepath.Join(bin, "procpoold"), "--addr", s.addr)
	s.daemon.Env = append(s.env(), "GOTRACEBACK=all")
	s.daemon.Stderr = s.log
	if err := s.daemon.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, patience, func() (wrong string) {
		c, err := client.Dial(s.t.Context(), s.addr)
		if err != nil {
			return err.Error()
		}
		s.control = c
		return ""
	})
	if _, err := s.control.CreatePool(s.t.Context(), "shared", client.Workers(soakWorkers), client.Program(filepath.Join(bin, "soak")), client.Env(s.env()...),
		client.CancelGrace(100*time.Millisecond), client.KillDelay(100*time.Millisecond)); err != nil {
		s.t.Fatal(err)
	}
}

// rest waits until the daemon has nothing but its idle workers.
func (s *soak) rest() {
	s.t.Helper()
	eventually(s.t, patience, func() string {
		pools, err := s.control.Pools(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		if len(pools) != 1 || pools[0].Idle != soakWorkers || pools[0].Busy+pools[0].Starting != 0 || pools[0].Calls != 0 || pools[0].State != pb.PoolState_POOL_STATE_OPEN {
			return fmt.Sprintf("the daemon has %v, want one pool with %d idle workers and nothing else", pools, soakWorkers)
		}
		return ""
	})
}

// usage is what a daemon uses.
type usage struct{ files, goroutines, memory int }

func (u usage) String() string {
	return fmt.Sprintf("%d files, %d goroutines, %d MiB", u.files, u.goroutines, u.memory>>20)
}

// usage reads what can be read of the daemon from outside. It waits until nothing is opened or closed any more.
func (s *soak) usage() (u usage) {
	s.t.Helper()
	proc := fmt.Sprintf("/proc/%d", s.daemon.Process.Pid)
	same := 0
	eventually(s.t, patience, func() string {
		files, err := os.ReadDir(proc + "/fd")
		if err != nil {
			s.t.Fatal(err)
		}
		if same++; len(files) != u.files {
			u.files, same = len(files), 0
		}
		if same < 50 {
			return "the number of open files changes"
		}
		return ""
	})
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, _ := strconv.Atoi(strings.Fields(rest)[0])
	u.memory = kib << 10
	return u
}

// quit ends the daemon with a list of its goroutines, and counts them.
func (s *soak) quit() (goroutines int) {
	s.t.Helper()
	s.daemon.Process.Signal(syscall.SIGQUIT)
	_ = s.daemon.Wait() // exit status 2, as it should be
	s.control.Close()
	s.gone()
	for line := range strings.Lines(s.log.String()) {
		if strings.HasPrefix(line, "created by ") && !strings.HasPrefix(line, "created by runtime.") {
			goroutines++
		}
	}
	return goroutines
}

// gone waits for the end of everything that a daemon that is dead has started.
func (s *soak) gone() {
	s.t.Helper()
	began := time.Now()
	eventually(s.t, 20*daemonBound, func() string {
		for _, pid := range marked(s.mark) {
			if !s.isClient(pid) {
				cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				return fmt.Sprintf("process %d (%q) of the daemon is left", pid, cmd)
			}
		}
		return ""
	})
	s.slowest = max(s.slowest, time.Since(began))
}

func (s *soak) isClient(pid int) bool {
	return slices.ContainsFunc(s.clients, func(c *soakClient) bool { return c.cmd.Process.Pid == pid })
}

// zombies is the children of the daemon and of this process that nobody has reaped.
func (s *soak) zombies() (pids []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // the name may contain anything
		f := strings.Fields(rest)
		if len(f) > 1 && f[0] == "Z" && (f[1] == strconv.Itoa(os.Getpid()) || f[1] == strconv.Itoa(s.daemon.Process.Pid)) {
			pids = append(pids, string(stat))
		}
	}
	return pids
}

// marked is the processes with an entry in their environment that no others have.
func marked(entry string) (pids []int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range paths {
		env, err := os.ReadFile(path)
		if err != nil || !strings.Contains("\x00"+string(env), "\x00"+entry+"\x00") {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		pids = append(pids, pid)
	}
	return pids
}

// clear ends whatever a failed test has left.
func (s *soak) clear() {
	for _, pid := range marked(s.mark) {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = s.daemon.Wait() // it writes no more to its log
	if s.t.Failed() {
		s.t.Logf("end of the daemon's log:\n%s", s.log.Bytes()[max(0, s.log.Len()-5000):])
	}
}

func (s *soak) newClient() *soakClient {
	s.t.Helper()
	c := &soakClient{cmd: exec.Command(filepath.Join(bin, "soak"), s.addr), kills: s.chaos.did[killTheDaemon]}
	c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = s.env(), &c.out, &c.errs
	if err := c.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// finish asks a client to stop and adds up what it got.
func (s *soak) finish(c *soakClient) {
	s.t.Helper()
	c.cmd.Process.Signal(syscall.SIGTERM)
	err := c.cmd.Wait()
	if ws, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signal() == syscall.SIGTERM {
		return // it had not begun
	}
	if err != nil {
		s.t.Errorf("a client: %v\n%s", err, c.errs.String())
	}
	s.count(c)
}

// count adds up what a client got until its last call that ended: that is its last line.
func (s *soak) count(c *soakClient) {
	s.t.Helper()
	lines := bytes.Split(bytes.TrimSuffix(c.out.Bytes(), []byte("\n")), []byte("\n"))
	last := lines[len(lines)-1]
	if len(last) == 0 {
		return // none did
	}
	var r soakReport
	if err := json.Unmarshal(last, &r); err != nil {
		s.t.Errorf("a client reports %q: %v", last, err)
	}
	if kills := s.chaos.did[killTheDaemon] - c.kills; r.Cut > kills { // it makes one call at a time
		s.t.Errorf("%d calls of a client ended with their daemon, but only %d daemons were killed in its time", r.Cut, kills)
	}
	s.report.add(r)
}

func (sum *soakReport) add(r soakReport) {
	sum.Calls += r.Calls
	sum.Left += r.Left
	sum.Cut += r.Cut
	sum.CutByCancel += r.CutByCancel
	sum.Refused += r.Refused
	sum.Tasks += r.Tasks
	sum.Values += r.Values
	sum.TaskErrors += r.TaskErrors
	sum.Lost += r.Lost
	sum.Killers += r.Killers
	sum.Timeouts += r.Timeouts
	sum.Cancelled += r.Cancelled
	sum.Rejected += r.Rejected
	sum.Cancels += r.Cancels
}
