package main_test

import (
	"encoding/json"
	"errors"
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
	"golang.org/x/sys/unix"
)

// inVM says that these tests run where nothing of them may be skipped.
var inVM = os.Getenv("PROCPOOL_TEST_VM") != ""

const untested = "; `.ci/run cgroups` tests it in a virtual machine"

// newCgroup makes a cgroup for a test, below the one that the test is in, and removes it with all that is in it.
func newCgroup(t *testing.T) string {
	t.Helper()
	own := ""
	b, err := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			own = strings.TrimSpace(path)
		}
	}
	dir := ""
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, serr := os.Stat(filepath.Join(mount, own, "cgroup.procs")); serr == nil && own != "" {
			dir, err = os.MkdirTemp(filepath.Join(mount, own), "test-")
		}
	}
	if err == nil && dir == "" {
		err = errors.New("there is no cgroup of version 2")
	}
	if err != nil && inVM {
		t.Fatal(err)
	}
	if err != nil {
		t.Skipf("cgroups of workers are NOT tested here: %v%s", err, untested)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil {
			t.Error(err)
		}
		eventually(t, patience, func() string {
			for _, below := range slices.Backward(tree(t, dir)) {
				if err := syscall.Rmdir(below); err != nil && !errors.Is(err, os.ErrNotExist) {
					return fmt.Sprintf("%s: %v", below, err)
				}
			}
			return ""
		})
	})
	return dir
}

// tree is a directory and all below it, parents first.
func tree(t *testing.T, dir string) (dirs []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return dirs
}

// below is the names of the cgroups in dir.
func below(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// delegate marks a cgroup as systemd does with Delegate=yes.
func delegate(t *testing.T, dir string) {
	t.Helper()
	err := unix.Setxattr(dir, "user.delegate", []byte("1"), 0)
	if err != nil { // before Linux 5.7
		err = unix.Setxattr(dir, "trusted.delegate", []byte("1"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// within has a program started in a cgroup.
func within(t *testing.T, dir string, cmd *exec.Cmd) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
}

// startWithin starts a daemon in a cgroup.
func startWithin(t *testing.T, dir string, args ...string) *daemon {
	t.Helper()
	d := newDaemon(t, args...)
	within(t, dir, d.cmd)
	d.start()
	return d
}

// startDelegated starts a daemon in a cgroup that it may divide.
func startDelegated(t *testing.T) (d *daemon, dir string) {
	t.Helper()
	dir = newCgroup(t)
	delegate(t, dir)
	return startWithin(t, dir), dir
}

// cgroupOf is the path of a process's cgroup.
func cgroupOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(path)
		}
	}
	return ""
}

// worker is the only worker of a pool, once it is ready.
func (d *daemon) worker(pool *client.Pool) *pb.Worker {
	d.t.Helper()
	if _, err := client.Apply(d.t.Context(), pool, nap, 0); err != nil {
		d.t.Fatal(err)
	}
	list, err := d.dial().Workers(d.t.Context(), pool.Name())
	if err != nil || len(list) != 1 {
		d.t.Fatalf("got workers %v, %v; want one", list, err)
	}
	return list[0]
}

// guarantees are those of the daemon, by name.
func (d *daemon) guarantees() map[string]*pb.Guarantee {
	d.t.Helper()
	about, err := d.dial().Describe(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	byName := make(map[string]*pb.Guarantee)
	for _, g := range about.Guarantees {
		byName[g.Name] = g
	}
	return byName
}

// escape has a worker put a child into a session of its own.
func escape(t *testing.T, pool *client.Pool) (pid int) {
	t.Helper()
	pid, err := client.Apply(t.Context(), pool, client.Func[int, int]("escape"), 0)
	if err != nil || !alive(pid) {
		t.Fatalf("process %d is not there, %v", pid, err)
	}
	return pid
}

func TestEachWorkerHasACgroupWhereThatIsDelegated(t *testing.T) {
	d, dir := startDelegated(t)
	pool := d.create("p", 1)
	w := d.worker(pool)
	guardian := guardianOf(t, d.cmd.Process.Pid, 1)
	for what, pid := range map[string]int{"daemon": d.cmd.Process.Pid, "guardian": guardian} {
		if got := cgroupOf(t, pid); !strings.HasSuffix(got, "/"+filepath.Base(dir)+"/supervisor") {
			t.Errorf("the %s is in %s", what, got)
		}
	}
	if got := cgroupOf(t, int(w.Pid)); filepath.Base(got) != w.Name || !strings.HasPrefix(filepath.Base(filepath.Dir(got)), "procpool-") {
		t.Errorf("worker %s is in %s", w.Name, got)
	}
	escaped := d.guarantees()["escaped children"]
	if !escaped.GetActive() || !strings.Contains(escaped.GetHow(), filepath.Join(dir, "procpool-")) {
		t.Errorf("the daemon says %v", escaped)
	}
	if err := pool.Terminate(); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, func() string {
		places := slices.DeleteFunc(below(t, dir), func(name string) bool { return name == "supervisor" })
		if len(places) != 1 || len(below(t, filepath.Join(dir, places[0]))) != 0 {
			return fmt.Sprintf("when the pool has ended there is %v", tree(t, dir))
		}
		return ""
	})
	d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.done
	if got := below(t, dir); len(got) != 1 || got[0] != "supervisor" {
		t.Errorf("when the daemon has ended there is %v", tree(t, dir))
	}

	// The next one finds its way from there, as one does that systemd has put there.
	d = startWithin(t, filepath.Join(dir, "supervisor"))
	if g := d.guarantees()["escaped children"]; !g.GetActive() {
		t.Errorf("the next daemon says %v", g)
	}
}

func TestAnOrdinaryUserMayDivideACgroupOfTheirs(t *testing.T) {
	const user = 65534
	dir := newCgroup(t)
	for at := bin; at != "/"; at = filepath.Dir(at) {
		if info, err := os.Stat(at); err != nil || info.Mode().Perm()&0o1 == 0 || os.Getuid() != 0 {
			t.Skipf("a daemon of another user in a cgroup of theirs is NOT tested here: this is uid %d, and %s is in the way%s", os.Getuid(), at, untested)
		}
	}
	delegate(t, dir)
	d := newDaemon(t)
	for _, path := range []string{dir, filepath.Join(dir, "cgroup.procs"), filepath.Join(dir, "cgroup.subtree_control"), filepath.Dir(d.addr)} {
		if err := os.Chown(path, user, user); err != nil {
			t.Fatal(err)
		}
	}
	d.cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(d.addr), "XDG_CONFIG_HOME=") // our own may be closed to them
	within(t, dir, d.cmd)
	d.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: user, Gid: user}
	d.start()
	w := d.worker(d.create("p", 1))
	if got := cgroupOf(t, int(w.Pid)); filepath.Base(got) != w.Name || !strings.Contains(got, filepath.Base(dir)+"/procpool-") {
		t.Errorf("the worker is in %s", got)
	}
	if g := d.guarantees()["escaped children"]; !g.GetActive() {
		t.Errorf("the daemon says %v", g)
	}
}

func TestNoChildOfAWorkerEscapesFromItsCgroup(t *testing.T) {
	for how, end := range map[string]func(d *daemon, pool *client.Pool, worker int){
		"the worker is killed": func(_ *daemon, _ *client.Pool, worker int) { syscall.Kill(worker, syscall.SIGKILL) },
		"the task is late": func(d *daemon, pool *client.Pool, _ int) {
			_, err := client.Apply(d.t.Context(), pool, client.Func[int, int]("spin"), 0, client.TaskTimeout(100*time.Millisecond))
			if !errors.Is(err, client.ErrTimeout) {
				d.t.Errorf("got %v", err)
			}
		},
		"the pool is terminated": func(_ *daemon, pool *client.Pool, _ int) { _ = pool.Terminate() },
		"the daemon is killed": func(d *daemon, _ *client.Pool, _ int) {
			guardianOf(d.t, d.cmd.Process.Pid, 1)
			d.cmd.Process.Kill()
		},
	} {
		t.Run(how, func(t *testing.T) {
			d, dir := startDelegated(t)
			c := d.dial()
			pool, err := c.CreatePool(t.Context(), "p", client.Program(filepath.Join(bin, "e2eworker")), client.Workers(1),
				client.CancelGrace(100*time.Millisecond), client.KillDelay(100*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			w := d.worker(pool)
			pid := escape(t, pool)
			end(d, pool, int(w.Pid))
			took := eventually(t, 40*time.Second, gone([]int{pid}))
			t.Logf("it was gone after %v", took)
			if how == "the daemon is killed" {
				return // its successor removes the cgroups
			}
			eventually(t, 40*time.Second, func() string {
				for _, path := range tree(t, dir) {
					if filepath.Base(path) == w.Name {
						return path + " is still there"
					}
				}
				return ""
			})
		})
	}
}

func TestADaemonRemovesTheCgroupsOfOneThatWasKilled(t *testing.T) {
	d, dir := startDelegated(t)
	pool := d.create("p", 1)
	d.worker(pool)
	pid := escape(t, pool)
	stranger := filepath.Join(dir, "procpool-stranger")
	if err := os.Mkdir(stranger, 0o755); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(guardianOf(t, d.cmd.Process.Pid, 1), syscall.SIGSTOP) // it cannot do its duty
	d.cmd.Process.Kill()
	<-d.done
	if !alive(pid) {
		t.Fatal("it has gone by itself, so that this shows nothing")
	}
	left := below(t, dir)

	living := startWithin(t, filepath.Join(dir, "supervisor"))
	livingPool := living.create("p", 1)
	w := living.worker(livingPool)
	eventually(t, patience, gone([]int{pid}))
	third := startWithin(t, filepath.Join(dir, "supervisor")) // which lets the second one be
	third.worker(third.create("p", 1))
	if got := below(t, dir); len(left) != 3 || len(got) != 4 || !slices.Contains(got, "procpool-stranger") {
		t.Errorf("there was %v and is %v; want the stranger, the supervisor, and one for each daemon", left, got)
	}
	if again := living.worker(livingPool); again.Pid != w.Pid {
		t.Errorf("the worker of a living daemon was process %d and is %d", w.Pid, again.Pid)
	}
}

func TestACgroupThatIsNotDelegatedIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		delegated bool
		args      []string
		says      string
	}{
		"not delegated": {says: "has not been delegated"},
		"off":           {delegated: true, args: []string{"--cgroup", "off"}, says: "was told to make none"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newCgroup(t)
			if c.delegated {
				delegate(t, dir)
			}
			d := startWithin(t, dir, c.args...)
			w := d.worker(d.create("p", 1))
			for what, pid := range map[string]int{"daemon": d.cmd.Process.Pid, "worker": int(w.Pid)} {
				if got := cgroupOf(t, pid); filepath.Base(got) != filepath.Base(dir) {
					t.Errorf("the %s is in %s", what, got)
				}
			}
			if got := below(t, dir); len(got) != 0 {
				t.Errorf("there is %v", got)
			}
			g := d.guarantees()
			for _, name := range []string{"escaped children", "OOM detection", "memory limit", "process limit"} {
				if g[name].GetActive() || !strings.Contains(g[name].GetHow(), c.says) || g[name].GetAdvice() == "" {
					t.Errorf("%s: the daemon says %v, want %q and advice", name, g[name], c.says)
				}
			}
		})
	}
}

func TestSomebodyMayNameTheCgroup(t *testing.T) {
	outside := newCgroup(t)
	dir := filepath.Join(outside, "mine")
	d := startDaemon(t, "--cgroup", dir)
	pool := d.create("p", 1)
	w := d.worker(pool)
	if got := cgroupOf(t, int(w.Pid)); !strings.Contains(got, "/mine/procpool-") {
		t.Errorf("the worker is in %s", got)
	}
	if got := cgroupOf(t, d.cmd.Process.Pid); strings.Contains(got, "/mine") {
		t.Errorf("the daemon has moved to %s, where it has no business", got)
	}
	pid := escape(t, pool)
	syscall.Kill(int(w.Pid), syscall.SIGKILL)
	eventually(t, patience, gone([]int{pid}))

	for path, says := range map[string]string{
		t.TempDir():                           "is not in a file system of cgroups",
		"mine":                                "is not in a file system of cgroups", // it is one of the current directory
		filepath.Join(outside, "no", "where"): "no such file or directory",
	} {
		d := newDaemon(t, "--cgroup", path)
		if err := d.cmd.Run(); err == nil || !strings.Contains(d.log.String(), says) {
			t.Errorf("%s: it has ended with %v and says %q, want %q", path, err, d.log, says)
		}
	}
}

func TestACgroupWithOthersInItHasNoControllers(t *testing.T) {
	dir := newCgroup(t)
	delegate(t, dir)
	other := exec.Command(filepath.Join(bin, "e2eworker"), "linger")
	within(t, dir, other)
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	d := startWithin(t, dir)
	pool := d.create("p", 1)
	w := d.worker(pool)
	if got := cgroupOf(t, other.Process.Pid); filepath.Base(got) != filepath.Base(dir) {
		t.Errorf("the other process is in %s now", got)
	}
	g := d.guarantees()
	if !g["escaped children"].GetActive() {
		t.Errorf("the daemon says %v", g["escaped children"])
	}
	want := fmt.Sprintf("there are other processes in %s, so that it cannot hand controllers on: [%d]", dir, other.Process.Pid)
	for _, name := range []string{"OOM detection", "memory limit", "process limit"} {
		if g[name].GetActive() || !strings.Contains(g[name].GetHow(), want) {
			t.Errorf("%s: the daemon says %v, want %q", name, g[name], want)
		}
	}
	pid := escape(t, pool)
	syscall.Kill(int(w.Pid), syscall.SIGKILL)
	eventually(t, patience, gone([]int{pid}))
}

func TestAnEmbeddedDaemonDividesItsCgroupToo(t *testing.T) {
	dir := newCgroup(t)
	delegate(t, dir)
	for _, place := range []string{dir, filepath.Join(dir, "supervisor")} { // which the first one makes
		doctor := exec.CommandContext(t.Context(), filepath.Join(bin, "procpool"), "doctor", "-o", "json")
		within(t, place, doctor)
		doctor.Env = append(os.Environ(), "PROCPOOL_CGROUP=")
		out, err := doctor.Output()
		if err != nil {
			t.Fatal(err)
		}
		var about struct {
			Guarantees []struct {
				Name, How string
				Active    bool
			}
		}
		if err := json.Unmarshal(out, &about); err != nil {
			t.Fatal(err)
		}
		how := make(map[string]string) // of those that are active
		for _, g := range about.Guarantees {
			if g.Active {
				how[g.Name] = g.How
			}
		}
		if !strings.Contains(how["escaped children"], dir) || how["workers start"] == "" {
			t.Errorf("it says %s", out)
		}
		if got := below(t, dir); !slices.Equal(got, []string{"supervisor"}) {
			t.Errorf("when it has ended there is %v", got)
		}
	}
}

func TestAWrapperThatLeavesItsGroupNeedsPeerCgroup(t *testing.T) {
	d, _ := startDelegated(t)
	for peer, want := range map[string]string{"cgroup": "token+uid+cgroup", "group": ""} {
		if _, stderr, code := d.run("procpool", "create", peer, "-j", "1", "--peer", peer, "--", filepath.Join(bin, "e2eworker"), "wrapped"); code != 0 {
			t.Fatal(stderr)
		}
		cl := d.dial()
		pool, err := cl.Pool(t.Context(), peer)
		if err != nil {
			t.Fatal(err)
		}
		v, err := client.Apply(t.Context(), pool, nap, 1)
		if want == "" {
			if !errors.Is(err, client.ErrBootFailure) {
				t.Errorf("peer = %s: got %d, %v; want a boot failure", peer, v, err)
			}
			continue
		}
		if got := strings.Join(identities(t, cl, peer), " "); v != 1 || err != nil || got != want {
			t.Errorf("peer = %s: got %d, %v and identity %q, want %q", peer, v, err, got, want)
		}
	}
}

// limited starts a daemon whose workers can have limits that the kernel keeps.
func limited(t *testing.T) *daemon {
	t.Helper()
	d, _ := startDelegated(t)
	for _, name := range []string{"OOM detection", "memory limit", "process limit"} {
		if g := d.guarantees()[name]; !g.GetActive() {
			if inVM {
				t.Fatalf("%s: %s", name, g.GetHow())
			}
			t.Skipf("limits that the kernel keeps are NOT tested here: %s%s", g.GetHow(), untested)
		}
	}
	return d
}

func TestTheCgroupKeepsTheMemoryLimit(t *testing.T) {
	d := limited(t)
	for _, function := range []string{"hog", "brood"} {
		t.Run(function, func(t *testing.T) {
			pool, err := d.dial().CreatePool(t.Context(), function, client.Program(filepath.Join(bin, "e2eworker")), client.Workers(1), client.MaxMemory(64<<20))
			if err != nil {
				t.Fatal(err)
			}
			// One task among others wants too much: it alone is lost.
			got, err := client.Map(t.Context(), pool, client.Func[int, int](function), []int{0, 1, 200, 1}, client.ChunkSize(4))
			var failed *client.MapError
			if !errors.As(err, &failed) || failed.Failed != 1 || failed.Errors[0].Index != 2 || got[3] == 0 {
				t.Fatalf("got %v, %v; want task 2 alone to fail", got, err)
			}
			lost := failed.Errors[0]
			if !errors.Is(lost, client.ErrWorkerLost) || lost.Exit == nil || !lost.Exit.OOMKilled {
				t.Fatalf("got %v, want a worker killed for memory", lost)
			}
			if peak := lost.Exit.PeakMemory; peak < 60<<20 || peak > 68<<20 { // the kernel lets those who die have a little more
				t.Errorf("the peak was %d bytes", peak)
			}
			if !strings.Contains(lost.Error(), "out of memory: limit 64 MiB, peak 6") {
				t.Errorf("the error says %q", lost)
			}
			t.Log(lost)
			if _, err := client.Apply(t.Context(), pool, client.Func[int, int](function), 1); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestTheCgroupKeepsTheProcessLimit(t *testing.T) {
	d := limited(t)
	multiply := client.Func[int, int]("multiply")
	pool, err := d.dial().CreatePool(t.Context(), "p", client.Program(filepath.Join(bin, "e2eworker")), client.Workers(1), client.MaxProcesses(64))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := client.Apply(t.Context(), pool, multiply, 2); n != 2 || err != nil {
		t.Errorf("two children: got %d, %v", n, err)
	}
	if _, err := client.Apply(t.Context(), pool, multiply, 64); err == nil {
		t.Error("64 children: got no error")
	} else {
		t.Log(err)
	}
	pool, err = d.dial().CreatePool(t.Context(), "few", client.Program(filepath.Join(bin, "e2eworker")), client.Workers(1), client.MaxProcesses(2))
	if err != nil {
		t.Fatal(err)
	}
	const says = "it had reached its limit of 2 processes and threads"
	if _, err := client.Apply(t.Context(), pool, nap, 0); !errors.Is(err, client.ErrBootFailure) || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want a boot failure with %q", err, says)
	}
}

func TestTheMemoryOfAWorkerIsThatOfItsCgroup(t *testing.T) {
	d := limited(t)
	pool, err := d.dial().CreatePool(t.Context(), "p", client.Program(filepath.Join(bin, "e2eworker")), client.Workers(1), client.MaxMemory(1<<30))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Apply(t.Context(), pool, client.Func[int, int]("brood"), 100); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func() string {
		if got := d.worker(pool).Memory; got < 100<<20 || got > 200<<20 {
			return fmt.Sprintf("the worker has %d MiB, its child alone 100", got>>20)
		}
		return ""
	})
}

// Where no cgroup keeps it, the daemon does, once a second.
func TestTheDaemonKeepsTheMemoryLimitWithoutCgroups(t *testing.T) {
	d := startDaemon(t, "--cgroup", "off")
	for _, function := range []string{"hog", "brood"} {
		t.Run(function, func(t *testing.T) {
			if _, stderr, code := d.run("procpool", "create", function, "-j", "1", "--max-memory", "64M", "--", filepath.Join(bin, "e2eworker")); code != 0 {
				t.Fatal(stderr)
			}
			pool, err := d.dial().Pool(t.Context(), function)
			if err != nil {
				t.Fatal(err)
			}
			first, err := client.Apply(t.Context(), pool, client.Func[int, int](function), 100)
			begun, caught := time.Now(), function
			if err == nil { // it was quicker than the second
				caught = "nap"
				_, err = client.Apply(t.Context(), pool, nap, 60_000)
			}
			var lost *client.TaskError
			if !errors.As(err, &lost) || !errors.Is(err, client.ErrWorkerLost) || lost.Exit == nil || lost.Exit.OOMKilled || lost.Exit.PeakMemory < 64<<20 {
				t.Fatalf("got %v, want the worker lost", err)
			}
			if k := lost.Exit.Kill; k.GetBy() != "memory limit" || !strings.HasPrefix(k.GetLimit(), "max_memory of 64 MiB, when it had ") || k.GetFunction() != caught {
				t.Errorf("the kill report is %v", k)
			}
			if !strings.Contains(err.Error(), "out of memory: limit 64 MiB, peak ") {
				t.Errorf("the error says %q", err)
			}
			if function == "brood" && first > 0 {
				eventually(t, patience, gone([]int{first}))
			}
			t.Logf("after %v: %v", time.Since(begun), err)
			if v, err := client.Apply(t.Context(), pool, nap, 1); v != 1 || err != nil {
				t.Errorf("afterwards: got %d, %v", v, err)
			}
		})
	}
}

func TestALimitThatNobodyKeepsIsRefused(t *testing.T) {
	d := startDaemon(t, "--cgroup", "off")
	_, stderr, code := d.run("procpool", "create", "p", "--max-processes", strconv.Itoa(100), "--", filepath.Join(bin, "e2eworker"))
	if code == 0 || !strings.Contains(stderr, "max_processes cannot be kept here: this daemon was told to make none") || !strings.Contains(stderr, "Delegate=") {
		t.Errorf("it ends with %d and says %q", code, stderr)
	}
	_, err := d.dial().CreatePool(t.Context(), "p", client.Program(filepath.Join(bin, "e2eworker")), client.MaxProcesses(100))
	if !errors.Is(err, client.ErrUnsupported) {
		t.Errorf("got %v, want ErrUnsupported", err)
	}
	_, stderr, code = d.run("procpool", "create", "p", "--max-memory", "64M", "--drain-memory", "64M", "--", filepath.Join(bin, "e2eworker"))
	if code == 0 || !strings.Contains(stderr, "it must be less") {
		t.Errorf("it ends with %d and says %q", code, stderr)
	}
}
