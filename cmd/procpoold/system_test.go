//go:build linux

package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// Users of these tests. Nobody needs to have an account: the kernel knows numbers.
var (
	service  = &person{uid: 12001, gid: clientGroup, groups: []uint32{adminGroup}} // the daemon's user, which is in both groups and yet no administrator
	anna     = &person{uid: 12002, gid: clientGroup}
	bert     = &person{uid: 12003, gid: 12003, groups: []uint32{5, clientGroup}}
	operator = &person{uid: 12004, gid: 12004, groups: []uint32{adminGroup, clientGroup}}
	stranger = &person{uid: 12005, gid: 12005, groups: []uint32{5}}
	root     = &person{}
)

const (
	clientGroup = 12010
	adminGroup  = 12020
)

// person is a user, as the kernel sees one.
type person struct {
	uid, gid uint32
	groups   []uint32
}

// connect connects as the person: a socket keeps the credentials of the thread that has connected it.
func (p *person) connect(ctx context.Context, addr string) (conn net.Conn, err error) {
	if failed := p.become(func() { conn, err = (&net.Dialer{}).DialContext(ctx, "unix", addr) }); failed != nil {
		return nil, failed
	}
	return conn, err
}

// become does something as the person. Credentials belong to a thread.
func (p *person) become(do func()) (err error) {
	done := make(chan struct{})
	go func() { // the thread ends with it, as it is never unlocked
		defer close(done)
		runtime.LockOSThread()
		groups := append([]uint32{p.gid}, p.groups...)
		for _, call := range []struct{ trap, a, b, c uintptr }{
			{syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0},
			{syscall.SYS_SETRESGID, uintptr(p.gid), uintptr(p.gid), uintptr(p.gid)},
			{syscall.SYS_SETRESUID, uintptr(p.uid), uintptr(p.uid), uintptr(p.uid)},
		} {
			if _, _, errno := syscall.RawSyscall(call.trap, call.a, call.b, call.c); errno != 0 {
				err = errno
				return
			}
		}
		do()
	}()
	<-done
	return err
}

// dial is a client of the daemon who is that person.
func (p *person) dial(t *testing.T, d *daemon) *client.Client {
	t.Helper()
	c, err := client.DialFunc(t.Context(), func(ctx context.Context) (net.Conn, error) { return p.connect(ctx, d.addr) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// rpc is the same, to the letter of the protocol.
func (p *person) rpc(t *testing.T, d *daemon) pb.PoolServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///procpool", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.connect(ctx, d.addr) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return pb.NewPoolServiceClient(conn)
}

// command is a command that the person runs.
func (p *person) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: p.uid, Gid: p.gid, Groups: p.groups}}
	return cmd
}

// premises is where a daemon of another user lives: programs that everybody may run, and a configuration that is root's.
type premises struct{ dir string }

func newPremises(t *testing.T) *premises {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can be several users, so what other users may do is NOT tested here; run it with sudo: go test ./cmd/procpoold -run 'System|UserMode'")
	}
	dir, err := os.MkdirTemp("", "p")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for above := filepath.Dir(dir); above != "/"; above = filepath.Dir(above) {
		if info, err := os.Stat(above); err != nil || info.Mode()&0o001 == 0 {
			t.Skipf("other users cannot get into %s (%v), so what they may do is NOT tested here; take another directory: TMPDIR=/tmp go test ./cmd/procpoold -run 'System|UserMode'", above, err)
		}
	}
	s := &premises{dir}
	for _, sub := range []string{"", "bin", "conf.d", "run"} {
		s.make(t, sub)
	}
	if err := os.Chown(s.path("run"), int(service.uid), int(service.gid)); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"procpoold", "procpool", "e2eworker"} {
		b, err := os.ReadFile(filepath.Join(bin, program))
		if err == nil {
			err = os.WriteFile(s.path("bin", program), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.write(t, "procpoold.toml", fmt.Sprintf("mode = \"system\"\naddr = %q\nadmin_group = \"%d\"\nlog_level = \"debug\"\n", s.path("run", "api.sock"), adminGroup))
	return s
}

func (s *premises) path(names ...string) string {
	return filepath.Join(append([]string{s.dir}, names...)...)
}

func (s *premises) make(t *testing.T, sub string) {
	t.Helper()
	if err := os.MkdirAll(s.path(sub), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.path(sub), 0o755); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

func (s *premises) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.path(name), 0o644); err != nil {
		t.Fatal(err)
	}
}

// pool writes the file of a pool of e2eworkers.
func (s *premises) pool(t *testing.T, name, more string) {
	t.Helper()
	s.write(t, "conf.d/"+name+".toml", fmt.Sprintf("command = [%q]\n%s", s.path("bin", "e2eworker"), more))
}

// start starts the daemon as its user.
func (s *premises) start(t *testing.T, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, addr: s.path("run", "api.sock"), log: new(bytes.Buffer), done: make(chan struct{})}
	d.cmd = service.command(s.path("bin", "procpoold"), append([]string{"--config", s.path("procpoold.toml")}, args...)...)
	d.cmd.Dir, d.cmd.Stderr = "/", d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.err = d.cmd.Wait(); close(d.done) }()
	t.Cleanup(func() {
		d.cmd.Process.Signal(syscall.SIGTERM)
		<-d.done
		if t.Failed() {
			t.Logf("log of procpoold:\n%s", d.log)
		}
	})
	eventually(t, patience, func() string {
		select {
		case <-d.done:
			t.Fatalf("procpoold has ended: %v\n%s", d.err, d.log)
		default:
		}
		c, err := client.Dial(t.Context(), d.addr)
		if err != nil {
			return err.Error()
		}
		c.Close()
		return ""
	})
	return d
}

// check runs procpoold --check-config as the service.
func (s *premises) check(t *testing.T, args ...string) string {
	t.Helper()
	out, _ := service.command(s.path("bin", "procpoold"), append([]string{"--config", s.path("procpoold.toml"), "--check-config"}, args...)...).CombinedOutput()
	return string(out)
}

// denied complains unless an RPC was refused with a code and a sentence that has all the words.
func denied(t *testing.T, what string, err error, code codes.Code, words ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("%s: got %v, want %v", what, err, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(status.Convert(err).Message(), w) {
			t.Errorf("%s: the message is %q; it should have %q", what, status.Convert(err).Message(), w)
		}
	}
}

var (
	say    = client.Func[string, int]("say")
	perish = client.Func[string, int]("die")
)

func poolOf(t *testing.T, c *client.Client, name string) *client.Pool {
	t.Helper()
	p, err := c.Pool(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSystemModeAdmitsItsGroup(t *testing.T) {
	t.Parallel()
	s := newPremises(t)
	s.pool(t, "p", "workers = 1\n")
	d := s.start(t)
	info, err := os.Stat(d.addr)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != 0o660 || st.Gid != clientGroup {
		t.Errorf("the socket has mode %v and group %d, want 0660 and %d", info.Mode().Perm(), st.Gid, clientGroup)
	}
	for _, who := range []*person{anna, bert, operator, root} {
		if pid, err := client.Apply(t.Context(), poolOf(t, who.dial(t, d), "p"), say, "hello"); err != nil || pid == 0 {
			t.Errorf("uid %d: %v", who.uid, err)
		}
	}
	cmd := stranger.command(s.path("bin", "procpool"), "--addr", d.addr, "pools")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), fmt.Sprintf("it is for members of the group %d; ask the administrator", clientGroup)) {
		t.Errorf("a stranger at the socket: %v, %s", err, out)
	}

	// Whatever lets a stranger through the door: the daemon asks who it is.
	if err := os.Chmod(d.addr, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = stranger.rpc(t, d).ListPools(t.Context(), &pb.ListPoolsRequest{})
	denied(t, "a stranger", err, codes.PermissionDenied, "members of the group", "ask the administrator")
	if _, err := bert.rpc(t, d).ListPools(t.Context(), &pb.ListPoolsRequest{}); err != nil {
		t.Errorf("a member by a supplementary group: %v", err)
	}
}

func TestUserModeServesItsUserAndRoot(t *testing.T) {
	t.Parallel()
	s := newPremises(t)
	s.write(t, "procpoold.toml", fmt.Sprintf("addr = %q\nsocket_mode = \"0666\"\n", s.path("run", "api.sock")))
	d := s.start(t)
	for _, who := range []*person{service, root} {
		if _, err := who.dial(t, d).CreatePool(t.Context(), fmt.Sprint("of-", who.uid), client.Program(s.path("bin", "e2eworker"))); err != nil {
			t.Errorf("uid %d: %v", who.uid, err)
		}
	}
	_, err := anna.rpc(t, d).ListPools(t.Context(), &pb.ListPoolsRequest{})
	denied(t, "another user", err, codes.PermissionDenied, "serves uid 12001 and root, and you are uid 12002", "start one of your own")
}

func TestSystemModeRules(t *testing.T) {
	t.Parallel()
	s := newPremises(t)
	s.pool(t, "p", "workers = 1\n")
	s.pool(t, "q", "workers = 1\n")
	d := s.start(t)
	spec := &pb.PoolSpec{Name: "mine", Program: &pb.Program{Path: "/bin/true"}}
	verbs := map[string]func(pb.PoolServiceClient) error{
		"resize": func(c pb.PoolServiceClient) error {
			_, err := c.ResizePool(t.Context(), &pb.ResizePoolRequest{Pool: "p", Workers: 2})
			return err
		},
		"restart": func(c pb.PoolServiceClient) error {
			_, err := c.RestartPool(t.Context(), &pb.RestartPoolRequest{Pool: "p"})
			return err
		},
		"close": func(c pb.PoolServiceClient) error {
			_, err := c.ClosePool(t.Context(), &pb.ClosePoolRequest{Pool: "q"})
			return err
		},
		"terminate": func(c pb.PoolServiceClient) error {
			_, err := c.TerminatePool(t.Context(), &pb.TerminatePoolRequest{Pool: "q"})
			return err
		},
		"join": func(c pb.PoolServiceClient) error {
			_, err := c.JoinPool(t.Context(), &pb.JoinPoolRequest{Pool: "q"})
			return err
		},
	}
	for _, who := range []*person{anna, bert, service} {
		for name, verb := range verbs {
			denied(t, fmt.Sprintf("%s by uid %d", name, who.uid), verb(who.rpc(t, d)), codes.PermissionDenied, "is for administrators: root and the members of the group 12020", fmt.Sprint("you are uid ", who.uid))
		}
	}
	for _, who := range []*person{anna, operator, root} {
		c := who.rpc(t, d)
		_, err := c.CreatePool(t.Context(), &pb.CreatePoolRequest{Spec: spec})
		denied(t, fmt.Sprintf("create by uid %d", who.uid), err, codes.PermissionDenied, "procpool map -- COMMAND", "client/local")
		stream, err := c.OpenPool(t.Context(), &pb.OpenPoolRequest{Spec: spec})
		if err == nil {
			_, err = stream.Recv()
		}
		denied(t, fmt.Sprintf("open by uid %d", who.uid), err, codes.PermissionDenied, "procpool map -- COMMAND", "client/local")
	}
	for _, name := range []string{"resize", "restart", "close", "terminate", "join"} {
		for _, who := range []*person{operator, root} {
			if err := verbs[name](who.rpc(t, d)); err != nil {
				t.Errorf("%s by uid %d: %v", name, who.uid, err)
			}
		}
	}
}

func TestSystemModeHidesTheCallsOfOthers(t *testing.T) {
	t.Parallel()
	s := newPremises(t)
	s.pool(t, "p", "workers = 1\n[task]\ncancel_grace = \"100ms\"\nkill_delay = \"100ms\"\n")
	d := s.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	running := make(chan error, 1)
	go func() {
		_, err := client.Apply(ctx, poolOf(t, anna.dial(t, d), "p"), nap, 600_000, client.Label("secret plan"))
		running <- err
	}()
	list := func(who *person) (*pb.Call, *pb.Worker) {
		var call *pb.Call
		var worker *pb.Worker
		eventually(t, patience, func() string {
			c := who.rpc(t, d)
			calls, err := c.ListCalls(t.Context(), &pb.ListCallsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			workers, err := c.ListWorkers(t.Context(), &pb.ListWorkersRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if len(calls.Calls) != 1 || calls.Calls[0].RunningTasks != 1 || len(workers.Workers) != 1 || workers.Workers[0].State != pb.WorkerState_WORKER_STATE_BUSY {
				return fmt.Sprintf("the lists are %v and %v", calls, workers)
			}
			call, worker = calls.Calls[0], workers.Workers[0]
			return ""
		})
		return call, worker
	}
	var id string
	for _, who := range []*person{anna, operator, root} {
		call, worker := list(who)
		if call.Label != "secret plan" || call.Function != "nap" || len(call.Id) != 32 || call.Pid == 0 || worker.CallId != call.Id {
			t.Errorf("uid %d sees %v and %v, want all", who.uid, call, worker)
		}
		id = call.Id
	}
	for _, who := range []*person{bert, service} {
		call, worker := list(who)
		if call.Label+call.Function+call.Id+call.Program+worker.CallId != "" || call.Pid != 0 {
			t.Errorf("uid %d sees %v and %v, want no names", who.uid, call, worker)
		}
		if call.Uid != anna.uid || call.AcceptedTasks != 1 {
			t.Errorf("uid %d sees %v, want whose it is and how much", who.uid, call)
		}
		_, err := who.rpc(t, d).Cancel(t.Context(), &pb.CancelRequest{CallId: id})
		denied(t, fmt.Sprintf("cancel by uid %d", who.uid), err, codes.NotFound, "there is no call")
		_, nothing := who.rpc(t, d).Cancel(t.Context(), &pb.CancelRequest{CallId: strings.Repeat("0", 32)})
		if strings.ReplaceAll(status.Convert(nothing).Message(), strings.Repeat("0", 32), id) != status.Convert(err).Message() {
			t.Errorf("a foreign call is %q, one that is none %q; want the same", err, nothing)
		}
		if pools, err := who.rpc(t, d).ListPools(t.Context(), &pb.ListPoolsRequest{}); err != nil || len(pools.Pools) != 1 || pools.Pools[0].Command != nil || pools.Pools[0].Busy != 1 {
			t.Errorf("uid %d sees %v (%v), want a busy pool without its command", who.uid, pools, err)
		}
	}
	if _, err := anna.rpc(t, d).Cancel(t.Context(), &pb.CancelRequest{CallId: id}); err != nil {
		t.Errorf("cancel by its owner: %v", err)
	}
	if err := <-running; !errors.Is(err, client.ErrCancelled) {
		t.Errorf("the call ended with %v", err)
	}
}

// news is all that a person may read in the logs of the pool.
func news(t *testing.T, who *person, d *daemon) string {
	t.Helper()
	stream, err := who.rpc(t, d).Logs(t.Context(), &pb.LogsRequest{Pool: "p"})
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&all, m)
	}
}

func TestSystemModeHidesTheCallsOfOthersFromWatchers(t *testing.T) {
	t.Parallel()
	s := newPremises(t)
	s.pool(t, "p", "workers = 1\n")
	d := s.start(t)
	annas := poolOf(t, anna.dial(t, d), "p")
	if _, err := client.Map(t.Context(), annas, say, []string{"the worker is there"}); err != nil { // not Apply, whose stream would end later
		t.Fatal(err)
	}
	watch := func(who *person) func() *pb.WatchCall {
		stream, err := who.rpc(t, d).Watch(t.Context(), &pb.WatchRequest{Pool: "p"})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := stream.Recv(); err != nil || m.Snapshot == nil {
			t.Fatalf("the first message is %v, %v; want how things stand", m, err)
		}
		return func() *pb.WatchCall {
			for {
				m, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range m.Events {
					if e.Kind == pb.WatchKind_WATCH_KIND_CALL_ENDED {
						return e.Call
					}
				}
			}
		}
	}
	hers, his := watch(anna), watch(bert)
	if _, err := client.Map(t.Context(), annas, say, []string{"a", "b"}, client.Label("a label of anna")); err != nil {
		t.Fatal(err)
	}
	if c := hers(); c.Id == "" || c.Function == "" || c.Label != "a label of anna" || c.DoneTasks != 2 {
		t.Errorf("anna hears of her call as %v", c)
	}
	if c := his(); c.Id != "" || c.Function != "" || c.Label != "" || c.Pid != 0 || c.DoneTasks != 2 {
		t.Errorf("bert hears of it as %v", c)
	}
}

func TestSystemModeKeepsWhatWorkersSayForItsOwner(t *testing.T) {
	t.Parallel()
	s := newPremises(t)
	s.pool(t, "p", "workers = 1\n")
	d := s.start(t)
	annas, berts := poolOf(t, anna.dial(t, d), "p"), poolOf(t, bert.dial(t, d), "p")
	pid, err := client.Apply(t.Context(), annas, say, "words of anna")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := client.Apply(t.Context(), berts, say, "words of bert"); err != nil || again != pid {
		t.Fatalf("the worker is %d, was %d (%v); want the same for both", again, pid, err)
	}
	_, err = client.Apply(t.Context(), berts, perish, "last words of bert")
	var task *client.TaskError
	if !errors.As(err, &task) || task.Exit == nil {
		t.Fatalf("got %v, want a lost worker", err)
	}
	report := strings.Join(task.Exit.CrashReport, "|")
	if !strings.Contains(report, "last words of bert") || strings.Contains(report, "anna") {
		t.Errorf("the crash report for its owner is %q, want bert's words, and none of anna's", report)
	}
	if !strings.Contains(task.Exit.Reason, "exit status 3") {
		t.Errorf("the reason for its owner is %q", task.Exit.Reason)
	}

	for _, who := range []*person{operator, root} {
		eventually(t, patience, func() string {
			all := news(t, who, d)
			for _, want := range []string{"words of anna", "words of bert", "last words of bert", "exit status 3"} {
				if !strings.Contains(all, want) {
					return fmt.Sprintf("uid %d reads %s; %q is missing", who.uid, all, want)
				}
			}
			return ""
		})
	}
	for who, has := range map[*person][]string{anna: {"words of anna", "p-1"}, bert: {"words of bert", "last words of bert", "exit status 3"}, service: {"p-1"}} {
		all := news(t, who, d)
		for _, want := range has {
			if !strings.Contains(all, want) {
				t.Errorf("uid %d reads %s; %q is missing", who.uid, all, want)
			}
		}
		for _, word := range []string{"anna", "bert", "exit status"} {
			if strings.Contains(all, word) && !strings.Contains(strings.Join(has, " "), word) {
				t.Errorf("uid %d reads %s; %q is none of its business", who.uid, all, word)
			}
		}
		info, err := who.rpc(t, d).GetPool(t.Context(), &pb.GetPoolRequest{Pool: "p"})
		if err != nil || info.Pool.LastExit == nil {
			t.Fatal(info, err)
		}
		if whole := info.Pool.LastExit.Reason != ""; whole != (who == bert) {
			t.Errorf("uid %d sees the last exit as %v", who.uid, info.Pool.LastExit)
		}
	}
}

func TestSystemModeDedicatedPoolBelongsToTheFirst(t *testing.T) {
	t.Parallel()
	s := newPremises(t)
	s.pool(t, "p", "workers = 1\ndedicated = true\n")
	d := s.start(t)
	call := func(who *person) error {
		_, err := client.Apply(t.Context(), poolOf(t, who.dial(t, d), "p"), say, "hello")
		return err
	}
	if err := call(anna); err != nil {
		t.Fatal(err)
	}
	for _, who := range []*person{bert, operator, root} {
		if err := call(who); !errors.Is(err, client.ErrDenied) || !strings.Contains(err.Error(), "dedicated to one user") {
			t.Errorf("uid %d: got %v, want to be refused", who.uid, err)
		}
	}
	if err := call(anna); err != nil {
		t.Errorf("its owner: %v", err)
	}
}

func TestSystemModeDaemonIsClosedToItsWorkers(t *testing.T) {
	t.Parallel()
	s := newPremises(t)
	s.pool(t, "p", "workers = 1\n")
	d := s.start(t)
	for _, file := range []string{"environ", "mem", "fd/0"} {
		path := fmt.Sprintf("/proc/%d/%s", d.cmd.Process.Pid, file)
		if out, err := service.command("/bin/cat", path).CombinedOutput(); err == nil || !strings.Contains(string(out), "ermission denied") {
			t.Errorf("a process with the daemon's user reads %s: %v %.100s", path, err, out)
		}
	}
	pid, err := client.Apply(t.Context(), poolOf(t, anna.dial(t, d), "p"), say, "hello")
	if err != nil {
		t.Fatal(err)
	}
	if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err != nil || bytes.Contains(env, []byte("PROCPOOLD_")) {
		t.Errorf("the worker's environment is %q (%v), want nothing that is for the daemon alone", env, err)
	}
}

func TestSystemModeRefusesRootAsItsUser(t *testing.T) {
	t.Parallel()
	s := newPremises(t)
	out, err := exec.Command(s.path("bin", "procpoold"), "--config", s.path("procpoold.toml")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "a user of their own") {
		t.Errorf("got %v: %s", err, out)
	}
}

func TestSystemModeReadsWhatIsRootsAlone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spoil func(s *premises) error
		want  string
	}{
		"nothing":                  {func(*premises) error { return nil }, "the configuration is right"},
		"a pool of the service":    {func(s *premises) error { return os.Chown(s.path("conf.d/p.toml"), int(service.uid), -1) }, "p.toml: it belongs to uid 12001; in system mode it must belong to root"},
		"a pool of its group":      {func(s *premises) error { return os.Chmod(s.path("conf.d/p.toml"), 0o664) }, "p.toml: others than its owner may write it (mode 0664): chmod go-w"},
		"a directory of somebody":  {func(s *premises) error { return os.Chown(s.path("conf.d"), 12002, -1) }, "/conf.d: it belongs to uid 12002"},
		"a directory for all":      {func(s *premises) error { return os.Chmod(s.path("conf.d"), 0o777) }, "/conf.d: others than its owner may write it"},
		"a parent for all":         {func(s *premises) error { return os.Chmod(s.path(), 0o777) }, "on the way there, "},
		"its own file of somebody": {func(s *premises) error { return os.Chown(s.path("procpoold.toml"), 12002, -1) }, "procpoold.toml: it belongs to uid 12002"},
		"a program of somebody":    {func(s *premises) error { return os.Chown(s.path("bin/e2eworker"), 12002, -1) }, "p.toml:1:1: it belongs to uid 12002; it must belong to root or uid 12001"},
		"a program for all":        {func(s *premises) error { return os.Chmod(s.path("bin/e2eworker"), 0o777) }, "whoever can change the program"},
		"a link through a place of somebody": {func(s *premises) error {
			if err := os.Rename(s.path("conf.d/p.toml"), s.path("p.toml")); err != nil {
				return err
			}
			if err := os.Mkdir(s.path("theirs"), 0o755); err != nil {
				return err
			}
			if err := os.Symlink(s.path("p.toml"), s.path("theirs/p.toml")); err != nil {
				return err
			}
			if err := os.Symlink(s.path("theirs/p.toml"), s.path("conf.d/p.toml")); err != nil {
				return err
			}
			return os.Chown(s.path("theirs"), 12002, -1)
		}, "/theirs: it belongs to uid 12002"},
		"a link to what is root's": {func(s *premises) error {
			if err := os.Rename(s.path("conf.d/p.toml"), s.path("p.toml")); err != nil {
				return err
			}
			return os.Symlink("../p.toml", s.path("conf.d/p.toml"))
		}, "the configuration is right"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newPremises(t)
			s.pool(t, "p", "")
			if err := test.spoil(s); err != nil {
				t.Fatal(err)
			}
			if got := s.check(t); !strings.Contains(got, test.want) {
				t.Errorf("got %s, want %q", got, test.want)
			}
		})
	}
}

// Tiny tasks of two users are handed to a worker ahead, so that it has those of both at the same time.
func TestSystemModeKeepsOutputApartUnderLoad(t *testing.T) {
	t.Parallel()
	s := newPremises(t)
	s.pool(t, "p", "workers = 2\n")
	d := s.start(t)
	var wg sync.WaitGroup
	for who, word := range map[*person]string{anna: "words of anna", bert: "words of bert"} {
		pool := poolOf(t, who.dial(t, d), "p")
		wg.Go(func() {
			items := slices.Repeat([]string{word}, 400) // fewer than the daemon keeps
			if _, err := client.Map(t.Context(), pool, say, items); err != nil {
				t.Errorf("uid %d: %v", who.uid, err)
			}
			if _, err := client.Apply(t.Context(), pool, perish, "last "+word); !errors.Is(err, client.ErrWorkerLost) {
				t.Errorf("uid %d: %v, want a lost worker", who.uid, err)
			} else if other := map[*person]string{anna: "bert", bert: "anna"}[who]; strings.Contains(err.Error(), other) || strings.Contains(fmt.Sprint(crashOf(err)), other) {
				t.Errorf("uid %d is told %v, %q", who.uid, err, crashOf(err))
			}
		})
	}
	wg.Wait()
	for who, foreign := range map[*person][]string{anna: {"bert"}, bert: {"anna"}, service: {"anna", "bert"}} {
		all := news(t, who, d)
		for _, word := range foreign {
			if strings.Contains(all, word) {
				t.Errorf("uid %d reads %d times %q", who.uid, strings.Count(all, word), word)
			}
		}
		t.Logf("uid %d reads %d lines of anna, %d of bert", who.uid, strings.Count(all, "anna"), strings.Count(all, "bert"))
	}
}

// crashOf is the crash report in an error.
func crashOf(err error) []string {
	var task *client.TaskError
	if !errors.As(err, &task) || task.Exit == nil {
		return nil
	}
	return task.Exit.CrashReport
}
