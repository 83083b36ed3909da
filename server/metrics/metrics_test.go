package metrics_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/server"
	"github.com/procpool/procpool/server/metrics"
	"github.com/procpool/procpool/workerproc"
)

// The test binary is the workers too.
var (
	double = workerproc.Func("double", func(_ context.Context, n int) (int, error) {
		if n < 0 {
			return 0, errors.New("it is negative")
		}
		return 2 * n, nil
	})
	die   = workerproc.Func("die", func(context.Context, int) (int, error) { return 0, syscall.Kill(os.Getpid(), syscall.SIGKILL) })
	leave = workerproc.Func("leave", func(context.Context, int) (int, error) { os.Exit(3); return 0, nil })
	hang  = workerproc.Func("hang", func(ctx context.Context, _ int) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
	deaf  = workerproc.Func("deaf", func(context.Context, int) (int, error) { select {} })
	spin  = workerproc.Func("spin", func(_ context.Context, ms int) (int, error) {
		for began := time.Now(); time.Since(began) < time.Duration(ms)*time.Millisecond; {
		}
		return 0, nil
	})
	grow = workerproc.Func("grow", func(ctx context.Context, mib int) (int, error) {
		b := bytes.Repeat([]byte("x"), mib<<20)
		<-ctx.Done()
		return len(b), ctx.Err()
	})
	flood = workerproc.Func("flood", func(_ context.Context, lines int) (int, error) {
		line := append(bytes.Repeat([]byte("x"), 32<<10), '\n')
		for range lines {
			if _, err := os.Stdout.Write(line); err != nil {
				return 0, err
			}
		}
		return 0, nil
	})
	write = workerproc.Func("write", func(_ context.Context, lines int) (int, error) {
		w := bufio.NewWriter(os.Stdout)
		for range lines {
			fmt.Fprintln(w, "a line")
		}
		return 0, w.Flush()
	})
)

func TestMain(m *testing.M) {
	workerproc.Main()
	os.Exit(m.Run())
}

// daemon is a daemon in this process, with real workers, a client and its metrics.
type daemon struct {
	*client.Client
	url  string
	http *http.Client
}

func serve(t *testing.T) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "p") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := server.New(server.Config{Dir: dir, DrainTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "metrics.sock")
	l, err := metrics.Listen("unix:" + socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- s.Run(ctx) }()
	go func() { done <- metrics.Serve(ctx, l, metrics.New(s, "v1.2.3")) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket of the metrics is still there: %v", err)
		}
	})
	c, err := client.Dial(t.Context(), s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &daemon{c, "http://procpoold/metrics", &http.Client{Transport: transport}}
}

func (d *daemon) create(t *testing.T, name string, opts ...client.PoolOption) *client.Pool {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.CreatePool(t.Context(), name, append([]client.PoolOption{
		client.Workers(1), client.Program(self), client.CancelGrace(500 * time.Millisecond), client.KillDelay(50 * time.Millisecond),
		client.Env(append(os.Environ(), "GORACE=atexit_sleep_ms=0")...),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// numbers is a scrape: series by name and labels, histograms by their count and, with "_sum", their sum.
type numbers map[string]float64

func (d *daemon) scrape(t *testing.T) numbers {
	t.Helper()
	resp, err := d.http.Get(d.url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %v", resp.StatusCode, err)
	}
	all := make(numbers)
	for name, family := range families {
		for _, m := range family.Metric {
			labels := ""
			for _, l := range m.Label {
				labels += fmt.Sprintf(" %s=%s", l.GetName(), l.GetValue())
			}
			switch family.GetType() {
			case dto.MetricType_COUNTER:
				all[name+labels] = m.Counter.GetValue()
			case dto.MetricType_HISTOGRAM:
				all[name+labels], all[name+"_sum"+labels] = float64(m.Histogram.GetSampleCount()), m.Histogram.GetSampleSum()
			default:
				all[name+labels] = m.Gauge.GetValue()
			}
		}
	}
	return all
}

// want waits until the series have these values.
func (d *daemon) want(t *testing.T, want numbers) numbers {
	t.Helper()
	var got numbers
	eventually(t, func() string {
		got = d.scrape(t)
		var wrong []string
		for _, series := range slices.Sorted(maps.Keys(want)) {
			if v, ok := got[series]; !ok || v != want[series] {
				name, _, _ := strings.Cut(series, " ")
				others := maps.Clone(got)
				maps.DeleteFunc(others, func(other string, _ float64) bool { return !strings.HasPrefix(other, name+" ") })
				wrong = append(wrong, fmt.Sprintf("%s is %v (there: %t), want %v, among %v", series, v, ok, want[series], others))
			}
		}
		return strings.Join(wrong, "\n")
	})
	return got
}

// patience is how long anything here may take at most, on a busy machine; nothing waits for it to pass.
const patience = 2 * time.Minute

func eventually(t *testing.T, wrong func() string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		complaint := wrong()
		if complaint == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(complaint)
		}
	}
}

func TestOutcomesAreCounted(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := d.create(t, "p")
	if _, err := client.Map(t.Context(), p, double, []int{1, 2, -3, 4, -5}); err == nil {
		t.Fatal("no error for negative numbers")
	}
	client.Map(t.Context(), p, die, []int{1, 2}, client.ChunkSize(1))
	client.Apply(t.Context(), p, leave, 0)
	unhurried := d.create(t, "unhurried", client.CancelGrace(patience)) // however busy the machine is, its worker is not ended for being slow
	client.Map(t.Context(), unhurried, hang, []int{1}, client.TaskTimeout(20*time.Millisecond))
	client.Map(t.Context(), p, deaf, []int{1}, client.TaskTimeout(20*time.Millisecond))
	client.Map(t.Context(), p, die, []int{1}, client.MaxAttempts(3))
	if _, err := client.Apply(t.Context(), p, client.Func[int, int]("nobody"), 1); !errors.Is(err, client.ErrUnknownFunction) {
		t.Fatalf("unknown function: %v", err)
	}
	long := make([]string, 10)
	for i := range long {
		long[i] = strings.Repeat("x", 1000)
	}
	client.Map(t.Context(), p, client.Func[string, int]("double"), long) // not numbers: task errors

	d.want(t, numbers{
		"procpool_tasks_total function=double outcome=value pool=p":            3,
		"procpool_tasks_total function=double outcome=task_error pool=p":       12,
		"procpool_tasks_total function=die outcome=worker_lost pool=p":         3,
		"procpool_tasks_total function=leave outcome=worker_lost pool=p":       1,
		"procpool_tasks_total function=hang outcome=timeout pool=unhurried":    1,
		"procpool_tasks_total function=deaf outcome=timeout pool=p":            1,
		"procpool_tasks_retried_total pool=p":                                  2,
		"procpool_calls_total function=double pool=p result=ended":             2,
		"procpool_calls_refused_total pool=p reason=unknown_function":          1,
		"procpool_worker_exits_total pool=p reason=signal":                     5,
		"procpool_worker_exits_total pool=p reason=exit_status":                1,
		"procpool_worker_exits_total pool=p reason=task_timeout":               1,
		"procpool_worker_starts_total pool=p":                                  8,
		"procpool_tasks_pending pool=p":                                        0,
		"procpool_calls pool=p":                                                0,
		"procpool_task_run_seconds function=double pool=p":                     15,
		"procpool_workers_wanted pool=p":                                       1,
		"procpool_build_info goversion=" + goVersion(t, d) + " version=v1.2.3": 1,
	})
}

func goVersion(t *testing.T, d *daemon) string {
	t.Helper()
	for series := range d.scrape(t) {
		if rest, ok := strings.CutPrefix(series, "go_info version="); ok {
			return rest
		}
	}
	t.Fatal("there is no go_info")
	return ""
}

func TestQueueIsSeen(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := d.create(t, "p", client.Workers(2))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := client.MapAsync(ctx, p, hang, make([]int, 7), client.ChunkSize(1))
	got := d.want(t, numbers{
		"procpool_workers pool=p state=busy":      2,
		"procpool_tasks_pending pool=p":           7,
		"procpool_tasks_queued pool=p":            5,
		"procpool_calls pool=p":                   1,
		"procpool_pools state=open":               1,
		"procpool_chunks_dispatched_total pool=p": 2,
		"procpool_tasks_dispatched_total pool=p":  2,
		"procpool_task_wait_seconds pool=p":       2,
	})
	if b := got["procpool_item_bytes_total pool=p"]; b != 7 {
		t.Errorf("got %v bytes of items, want 7", b)
	}
	cancel()
	r.Wait(t.Context())
	d.want(t, numbers{
		"procpool_tasks_pending pool=p":                               0,
		"procpool_tasks_queued pool=p":                                0,
		"procpool_calls_total function=hang pool=p result=cancelled":  1,
		"procpool_tasks_total function=hang outcome=cancelled pool=p": 7,
		"procpool_workers pool=p state=busy":                          0,
	})
}

func TestPoolThatIsClosedIsSeen(t *testing.T) {
	t.Parallel()
	began := float64(time.Now().Unix())
	d := serve(t)
	p := d.create(t, "p")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := client.MapAsync(ctx, p, hang, []int{1})
	d.want(t, numbers{"procpool_workers pool=p state=busy": 1})
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	got := d.want(t, numbers{"procpool_pools state=closed": 1, "procpool_pools state=open": 0})
	if at := got["procpool_start_time_seconds"]; at < began-1 || at > float64(time.Now().Unix())+1 {
		t.Errorf("the daemon was started at %v, which is not now (%v)", at, began)
	}
	cancel()
	r.Wait(t.Context())
	d.want(t, numbers{"procpool_pools state=closed": 0})
}

func TestWorkerThatIsOutOfMemoryIsCounted(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := d.create(t, "p", client.MaxMemory(64<<20))
	_, err := client.Apply(t.Context(), p, grow, 200)
	if !errors.Is(err, client.ErrWorkerLost) {
		t.Errorf("a worker of 200 MiB in a pool of 64 MiB: %v, want %v", err, client.ErrWorkerLost)
	}
	d.want(t, numbers{"procpool_worker_exits_total pool=p reason=oom": 1})
}

func TestTimeAndBytesAreMeasured(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := d.create(t, "p")
	client.Map(t.Context(), p, spin, []int{50, 50}, client.ChunkSize(1))
	client.Map(t.Context(), p, double, []int{1111, 2222})
	got := d.want(t, numbers{
		"procpool_task_run_seconds function=spin pool=p": 2,
		"procpool_task_wait_seconds pool=p":              4,
		"procpool_item_bytes_total pool=p":               12,
		"procpool_result_bytes_total pool=p":             10,
	})
	if run := got["procpool_task_run_seconds_sum function=spin pool=p"]; run < 0.1 {
		t.Errorf("two tasks of 50ms ran for %vs", run)
	}
	if wait := got["procpool_task_wait_seconds_sum pool=p"]; wait <= 0 {
		t.Errorf("tasks waited for %vs", wait)
	}
	client.Apply(t.Context(), p, client.Func[string, int]("double"), strings.Repeat("x", 1<<20)) // a large one travels by another way
	d.want(t, numbers{"procpool_item_bytes_total pool=p": 12 + 1<<20 + 2})
	cpu, known := got["procpool_worker_cpu_seconds_total pool=p"]
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		if known {
			t.Error("CPU time is told on a system that does not know it")
		}
		t.Skip("this system has no /proc: CPU time and memory are NOT tested here")
	}
	if memory := got["procpool_worker_memory_bytes pool=p"]; memory < 1<<20 {
		t.Errorf("a worker has %v bytes", memory)
	}
	client.Apply(t.Context(), p, die, 0) // what the dead have used stays
	eventually(t, func() string {
		again := d.scrape(t)
		if again["procpool_worker_exits_total pool=p reason=signal"] != 1 {
			return "the worker has not died"
		}
		if now := again["procpool_worker_cpu_seconds_total pool=p"]; now < cpu || now <= 0 {
			return fmt.Sprintf("workers used %vs, then %vs", cpu, now)
		}
		return ""
	})
}

func TestOutputIsCounted(t *testing.T) {
	t.Parallel()
	d := serve(t)
	p := d.create(t, "p")
	client.Apply(t.Context(), p, write, 3)
	d.want(t, numbers{"procpool_output_lines_total pool=p": 3, "procpool_output_lines_dropped_total pool=p": 0})
	eventually(t, func() string {
		client.Apply(t.Context(), p, flood, 500) // 16 MiB; 1 MiB a second may pass, after a burst of 4
		if n := d.scrape(t)["procpool_output_lines_dropped_total pool=p"]; n == 0 {
			return "nothing was dropped"
		}
		return ""
	})
}

func TestLifeOfWorkersIsCounted(t *testing.T) {
	t.Parallel()
	d := serve(t)
	unhurried := client.CancelGrace(patience) // however busy the machine is, none of those that leave is ended for being slow
	p := d.create(t, "p", client.MaxTasksPerWorker(2), client.Spares(1), unhurried)
	for range 4 {
		if _, err := client.Apply(t.Context(), p, double, 1); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() string {
		got := d.scrape(t)
		if got["procpool_worker_exits_total pool=p reason=max_tasks"] < 1 || got["procpool_workers pool=p state=spare"] != 1 {
			maps.DeleteFunc(got, func(series string, _ float64) bool { return !strings.HasPrefix(series, "procpool_worker") })
			return fmt.Sprint(got)
		}
		return ""
	})
	q := d.create(t, "q", client.Workers(2), unhurried)
	d.want(t, numbers{"procpool_workers pool=q state=idle": 2})
	if _, err := q.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := q.Resize(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	d.want(t, numbers{
		"procpool_pool_restarts_total pool=q result=done":      1,
		"procpool_worker_exits_total pool=q reason=restart":    2,
		"procpool_worker_exits_total pool=q reason=not_needed": 1,
		"procpool_workers_wanted pool=q":                       1,
	})
	if _, err := q.Restart(t.Context(), client.Program("/bin/false")); err == nil {
		t.Error("a restart with /bin/false went well")
	}
	d.want(t, numbers{"procpool_pool_restarts_total pool=q result=failed": 1, "procpool_worker_exits_total pool=q reason=start_failure": 1})
	bad := d.create(t, "bad", client.Program("/bin/false"))
	if _, err := client.Apply(t.Context(), bad, double, 1); !errors.Is(err, client.ErrBootFailure) {
		t.Errorf("a call of workers that do not start: %v", err)
	}
	d.want(t, numbers{"procpool_calls_refused_total pool=bad reason=boot_failure": 1, "procpool_pools state=degraded": 1})

	// The series of a named pool go with it.
	q.Terminate()
	if err := q.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		for series := range d.scrape(t) {
			if strings.Contains(series, "pool=q") {
				return series + " is still there"
			}
		}
		return ""
	})
}

// Pools that live with their opener have names without end. What they did stays, under one name.
func TestOpenedPoolsAreCountedTogether(t *testing.T) {
	t.Parallel()
	d := serve(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		p, err := d.OpenPool(t.Context(), client.Workers(1), client.Program(self))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Map(t.Context(), p, double, []int{1, 2}); err != nil {
			t.Fatal(err)
		}
		d.want(t, numbers{
			"procpool_tasks_total function= outcome=value pool=(opened)": float64(2 * (i + 1)),
			"procpool_worker_starts_total pool=(opened)":                 float64(i + 1),
			"procpool_workers pool=(opened) state=idle":                  1,
		})
		p.Terminate()
		if err := p.Join(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.want(t, numbers{"procpool_worker_exits_total pool=(opened) reason=terminated": float64(i + 1), "procpool_workers pool=(opened) state=idle": 0})
	}
	for series := range d.scrape(t) {
		if strings.Contains(series, "pool=") && !strings.Contains(series, "pool=(opened)") {
			t.Errorf("%s has a name of its own", series)
		}
	}
}

func TestNamesKeepToTheConventions(t *testing.T) {
	t.Parallel()
	problems, err := testutil.CollectAndLint(metrics.New(full{}, "v1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// full is a source that has something for every metric.
type full struct{}

func (full) Stats(context.Context) (*server.Stats, error) {
	return &server.Stats{Started: time.Unix(1, 0), Pools: []server.PoolStats{{Name: "p", Measured: true, Tally: server.Tally{
		Functions: map[string]*server.FunctionTally{"f": {}}, Exits: map[string]uint64{"signal": 1}, Refused: map[pb.Reason]uint64{1: 1},
	}}}}, nil
}

func TestWhatIsUnknownIsAbsent(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.New(unknown{}, "v1"))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if n := f.GetName(); strings.HasPrefix(n, "procpool_worker_memory") || strings.HasPrefix(n, "procpool_worker_cpu") {
			t.Errorf("%s is there", n)
		}
	}
}

type unknown struct{}

func (unknown) Stats(context.Context) (*server.Stats, error) {
	return &server.Stats{Pools: []server.PoolStats{{Name: "p"}}}, nil
}

// The page has every metric with its kind and labels, and no other.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `(procpool_[a-z_]+)` \\| ([a-z]+) \\| ([^|]*)\\|").FindAllStringSubmatch(string(page), -1) {
		labels := strings.NewReplacer("`", "", " ", "").Replace(m[3])
		sorted := strings.Split(labels, ",")
		slices.Sort(sorted)
		documented[m[1]] = m[2] + " " + strings.Join(sorted, ",")
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.New(full{}, "v1"))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[string]string)
	for _, f := range families {
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		there[f.GetName()] = strings.ToLower(f.GetType().String()) + " " + strings.Join(labels, ",")
	}
	for name := range maps.Keys(there) {
		if documented[name] != there[name] {
			t.Errorf("%s is %q, docs/metrics.md has %q", name, there[name], documented[name])
		}
	}
	for name := range documented {
		if there[name] == "" {
			t.Errorf("docs/metrics.md has %s, which does not exist", name)
		}
	}
	descs := make(chan *prometheus.Desc, 1000)
	metrics.New(full{}, "v1").Describe(descs)
	if len(descs) != len(there) {
		t.Errorf("%d metrics are described and %d seen by this test", len(descs), len(there))
	}
}

func TestOnlyTheMachineItselfMayAsk(t *testing.T) {
	t.Parallel()
	for addr, ok := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:0": true, "localhost:0": true, "127.5.5.5:0": true,
		"0.0.0.0:0": false, ":0": false, "[::]:0": false, "192.0.2.1:9464": false, "example.org:80": false, "9464": false, "/tmp/m.sock": false, "": false,
	} {
		l, err := metrics.Listen(addr)
		if l != nil {
			l.Close()
		}
		if strings.Contains(addr, "::1") && err != nil && !strings.Contains(err.Error(), "unix:PATH") {
			continue // this machine has no IPv6
		}
		if (err == nil) != ok {
			t.Errorf("%q: %v", addr, err)
		}
		if !ok && err != nil && !strings.Contains(err.Error(), "127.0.0.1:PORT") {
			t.Errorf("%q: %v does not say what to write", addr, err)
		}
	}
}
