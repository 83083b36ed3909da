package bench

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/procpool/procpool/client"
)

// fullRound is the default of --time: a round that long or longer has at least as many samples as sample is told, a shorter one in proportion.
const fullRound = 250 * time.Millisecond

// sample does f until that has taken so many seconds, and so many times at least, and returns what each took, the shortest first.
func sample(seconds float64, times int, f func() (time.Duration, error)) ([]time.Duration, error) {
	times = max(1, int(float64(times)*min(1, seconds/fullRound.Seconds())))
	var all []time.Duration
	for sum := time.Duration(0); len(all) < times || sum.Seconds() < seconds; {
		d, err := f()
		if err != nil {
			return nil, err
		}
		all = append(all, d)
		sum += d
	}
	slices.Sort(all)
	return all, nil
}

// rate does the same number of things again and again, and returns how many there were in a second.
func rate(w work, things int, f func() (time.Duration, error)) (*answer, error) {
	took, err := sample(w.Seconds, 1, f)
	if err != nil {
		return nil, err
	}
	sum := time.Duration(0)
	for _, d := range took {
		sum += d
	}
	return &answer{Values: values(float64(things*len(took)) / sum.Seconds()), Checked: w.Items * len(took)}, nil
}

// Samples of a latency that a round has at least: enough for its 99th percentile; and where each costs tens of milliseconds.
const (
	manySamples = 200
	fewSamples  = 5
)

// latency is the percentiles of what f takes.
func latency(w work, times int, f func() (time.Duration, error), percents ...float64) (*answer, error) {
	took, err := sample(w.Seconds, times, f)
	if err != nil {
		return nil, err
	}
	a := &answer{Checked: len(took)}
	for _, p := range percents {
		a.Values = append(a.Values, values(percentile(took, p).Seconds())...)
	}
	return a, nil
}

func wrong(what string, index int, got, want any) error {
	return fmt.Errorf("wrong result: %s %d gave %v, want %v", what, index, got, want)
}

func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

func checkNext(got []int, n int) error {
	if len(got) != n {
		return wrong("all", n, len(got), n)
	}
	for i, v := range got {
		if v != i+1 {
			return wrong("item", i, v, i+1)
		}
	}
	return nil
}

func (o *ours) mapInts(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	items := upTo(w.Items)
	return rate(w, w.Items, func() (time.Duration, error) {
		start := time.Now()
		got, err := client.Map(ctx, pool, nextFunc, items, client.ChunkSize(w.Chunk))
		took := time.Since(start)
		return took, errors.Join(err, checkNext(got, w.Items))
	})
}

func (o *ours) imap(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	items := upTo(w.Items)
	return rate(w, w.Items, func() (time.Duration, error) {
		got := make([]int, 0, w.Items)
		start := time.Now()
		for out, err := range client.IMap(ctx, pool, nextFunc, slices.Values(items), client.ChunkSize(w.Chunk)) {
			if err != nil || out.Err != nil {
				return 0, errors.Join(err, out.Err)
			}
			got = append(got, out.Value)
		}
		took := time.Since(start)
		return took, checkNext(got, w.Items)
	})
}

func (o *ours) applyAsync(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	return rate(w, w.Items, func() (time.Duration, error) {
		results := make([]*client.Result[int], w.Items)
		got := make([]int, w.Items)
		start := time.Now()
		for i := range results {
			results[i] = client.ApplyAsync(ctx, pool, nextFunc, i)
		}
		for i, r := range results {
			var err error
			if got[i], err = r.Get(ctx); err != nil {
				return 0, err
			}
		}
		took := time.Since(start)
		return took, checkNext(got, w.Items)
	})
}

// applied is what one Apply takes.
func applied(ctx context.Context, pool *client.Pool, i int) (time.Duration, error) {
	start := time.Now()
	v, err := client.Apply(ctx, pool, nextFunc, i)
	took := time.Since(start)
	if err == nil && v != i+1 {
		err = wrong("item", i, v, i+1)
	}
	return took, err
}

func (o *ours) apply(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	return latency(w, manySamples, func() (time.Duration, error) { return applied(ctx, pool, 7) }, 50, 99)
}

func (o *ours) argument(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	for i := len(o.blobs); i < w.Items; i++ { // each is another object, as users' items are
		b := make([]byte, w.Bytes)
		for k := range b {
			b[k] = byte(i)
		}
		o.blobs = append(o.blobs, b)
	}
	return rate(w, w.Items*w.Bytes, func() (time.Duration, error) {
		start := time.Now()
		got, err := client.Map(ctx, pool, sumFunc, o.blobs, client.ChunkSize(w.Chunk))
		took := time.Since(start)
		for i, v := range got {
			if want := sumOf(o.blobs[i]); v != want && err == nil {
				err = wrong("item", i, v, want)
			}
		}
		return took, err
	})
}

func (o *ours) result(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	items := slices.Repeat([]int{w.Bytes}, w.Items)
	want := sumOf(blob(w.Bytes))
	return rate(w, w.Items*w.Bytes, func() (time.Duration, error) {
		start := time.Now()
		got, err := client.Map(ctx, pool, blobFunc, items, client.ChunkSize(w.Chunk))
		took := time.Since(start)
		for i, b := range got {
			if err == nil && (len(b) != w.Bytes || sumOf(b) != want) {
				err = wrong("item", i, fmt.Sprint(len(b), " bytes"), fmt.Sprint(w.Bytes, " of x"))
			}
		}
		return took, err
	})
}

// firstResult opens a pool, waits for a first result, and terminates the pool outside of the time.
func (o *ours) firstResult(ctx context.Context, workers int) (time.Duration, error) {
	start := time.Now()
	pool, err := o.open(ctx, workers)
	if err != nil {
		return 0, err
	}
	_, err = applied(ctx, pool, 1)
	took := time.Since(start)
	return took, errors.Join(err, pool.Terminate())
}

func (o *ours) startCold(ctx context.Context, w work) (*answer, error) {
	return latency(w, fewSamples, func() (time.Duration, error) { return o.firstResult(ctx, w.Workers) }, 50)
}

func (o *ours) startWorker(ctx context.Context, w work) (*answer, error) {
	if _, err := o.kept(ctx, w); err != nil { // it keeps an embedded daemon running, too
		return nil, err
	}
	return latency(w, fewSamples, func() (time.Duration, error) { return o.firstResult(ctx, 1) }, 50)
}

// startWarm is a call of its own each time, so that it does not find a stream of applies. Through procpoold it connects anew, too.
func (o *ours) startWarm(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	name := pool.Name()
	return latency(w, manySamples, func() (took time.Duration, err error) {
		start, pool := time.Now(), pool
		if o.client != nil {
			c, err := client.Dial(ctx, o.addr)
			if err != nil {
				return 0, err
			}
			defer c.Close()
			if pool, err = c.Pool(ctx, name); err != nil {
				return 0, err
			}
		}
		got, err := client.Map(ctx, pool, nextFunc, []int{0})
		took = time.Since(start)
		return took, errors.Join(err, checkNext(got, 1))
	}, 50, 99)
}

// napUs is how long a task of the fairness measures sleeps. It sleeps: what is measured is who has its turn, not who has the CPU.
const napUs = 1000

func (o *ours) fairApply(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	mapping, cancel := context.WithCancel(ctx)
	defer cancel()
	long := client.MapAsync(mapping, pool, napFunc, slices.Repeat([]int{napUs}, w.Items))
	if _, err := sample(w.Seconds, manySamples/10, func() (time.Duration, error) { return applied(ctx, pool, 3) }); err != nil { // the map gets into its stride
		return nil, err
	}
	a, err := latency(w, manySamples, func() (time.Duration, error) { return applied(ctx, pool, 3) }, 50, 99, 100)
	if long.Ready() {
		_, mapped := long.Get(ctx)
		return nil, fmt.Errorf("the map ended before the applies: %w", mapped)
	}
	cancel()
	<-long.Done()
	return a, err
}

func (o *ours) fairQueue(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	w.Seconds = 0 // once: a side whose applies wait for the whole queue would take no longer
	a, err := latency(w, 1, func() (time.Duration, error) {
		long := client.MapAsync(ctx, pool, napFunc, slices.Repeat([]int{napUs}, w.Items))
		if err := pause(ctx, 20*time.Millisecond); err != nil { // the queue fills
			return 0, err
		}
		took, err := applied(ctx, pool, 3)
		naps, mapped := long.Get(ctx)
		return took, errors.Join(err, mapped, checkNaps(naps, napUs))
	}, 50)
	if a != nil {
		a.Checked *= w.Items + 1
	}
	return a, err
}

func checkNaps(naps []int, us int) error {
	for i, got := range naps {
		if got < us {
			return wrong("nap", i, got, fmt.Sprint("at least ", us))
		}
	}
	return nil
}

// fairShares lets two clients work against each other for a while, one with tasks ten times as long. Each counts the run time that it gets.
func (o *ours) fairShares(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	other := pool
	if o.client != nil { // a connection of its own
		c, err := client.Dial(ctx, o.addr)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		if other, err = c.Pool(ctx, pool.Name()); err != nil {
			return nil, err
		}
	}
	begin := time.Now().Add(200 * time.Millisecond) // both are in their stride by then
	end := begin.Add(max(time.Duration(w.Seconds*float64(time.Second)), time.Second))
	type share struct {
		us, tasks int
		err       error
	}
	run := func(pool *client.Pool, us int) (s share) {
		for out, err := range client.IMapUnordered(ctx, pool, napFunc, forever(us)) {
			now := time.Now()
			if err = errors.Join(err, out.Err); err == nil {
				err = checkNaps([]int{out.Value}, us)
			}
			switch {
			case err != nil:
				s.err = err
				return s
			case now.After(end):
				return s
			case now.After(begin):
				s.us += out.Value
				s.tasks++
			}
		}
		return s
	}
	long := make(chan share, 1)
	go func() { long <- run(other, 10*napUs) }()
	a := run(pool, napUs)
	b := <-long
	if err := errors.Join(a.err, b.err); err != nil {
		return nil, err
	}
	if a.us+b.us == 0 {
		return nil, errors.New("no task ended")
	}
	return &answer{Values: values(float64(min(a.us, b.us)) / float64(a.us+b.us)), Checked: a.tasks + b.tasks}, nil
}

func forever[T any](v T) iter.Seq[T] {
	return func(yield func(T) bool) {
		for yield(v) {
		}
	}
}

// memoryIMap reads an endless IMap slowly, and looks how much more memory that takes than nothing, and how far the input is ahead.
func (o *ours) memoryIMap(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	debug.FreeOSMemory()
	idle, err := o.resident()
	if err != nil {
		return nil, err
	}
	item := blob(w.Bytes)
	read, peak := 0, 0
	var drawn atomic.Int64 // by the input, on a goroutine of its own
	input := func(yield func([]byte) bool) {
		for drawn.Add(1); yield(item); drawn.Add(1) {
		}
	}
	for out, err := range client.IMap(ctx, pool, echoFunc, input) {
		if err = errors.Join(err, out.Err); err == nil && string(out.Value) != string(item) {
			err = wrong("item", out.Index, len(out.Value), w.Bytes)
		}
		if err != nil {
			return nil, err
		}
		now, err := o.resident()
		if err != nil {
			return nil, err
		}
		read++
		peak = max(peak, now)
		if read >= slowReads {
			break
		}
		if err := pause(ctx, time.Second/slowRate); err != nil {
			return nil, err
		}
	}
	return &answer{Values: values(float64(max(peak-idle, 0)), float64(int(drawn.Load())-read)), Checked: read}, nil
}

// memoryCalls begins many endless IMaps whose tasks never end, and looks how much memory that takes when no more items are taken.
func (o *ours) memoryCalls(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	debug.FreeOSMemory()
	idle, err := o.resident()
	if err != nil {
		return nil, err
	}
	item := blob(w.Bytes)
	var drawn atomic.Int64
	input := func(yield func([]byte) bool) {
		for drawn.Add(1); yield(item); drawn.Add(1) {
		}
	}
	calls, cancel := context.WithCancel(ctx)
	var ended sync.WaitGroup
	for range w.Items {
		ended.Go(func() { // ends with calls
			for _, err := range client.IMap(calls, pool, waitFunc, input) {
				_ = err // it is cancelled
			}
		})
	}
	peak, before := 0, int64(-1)
	for drawn.Load() != before {
		before = drawn.Load()
		if err = pause(ctx, time.Second/2); err != nil {
			break
		}
		var now int
		if now, err = o.resident(); err != nil {
			break
		}
		peak = max(peak, now)
	}
	cancel()
	ended.Wait()
	return &answer{Values: values(float64(max(peak-idle, 0)), float64(before)), Checked: w.Items}, err
}

// The slow reader of an endless input: how often it reads in a second, and how often in all.
const (
	slowRate  = 100
	slowReads = 150
)

// resident is the memory of the client and of the daemon.
func (o *ours) resident() (int, error) {
	own, err := memoryOf("self")
	if err != nil || o.daemon == nil {
		return own[0], err
	}
	daemon, err := memoryOf(strconv.Itoa(o.daemon.cmd.Process.Pid))
	return own[0] + daemon[0], err
}

func (o *ours) memoryIdle(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	who := "self"
	if o.daemon != nil {
		who = strconv.Itoa(o.daemon.cmd.Process.Pid)
	}
	daemon, err := memoryOf(who)
	if err != nil {
		return nil, err
	}
	worker, err := client.Apply(ctx, pool, memoryFunc, 0)
	if err != nil {
		return nil, err
	}
	return &answer{Values: values(float64(daemon[0]), float64(worker[0]), float64(worker[1])), Checked: 1}, nil
}

// memoryOf is the resident memory of a process, in bytes, and its proportional part of what it shares with others. It is two zeros with an error.
func memoryOf(pid string) ([]int, error) {
	text, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
	if err != nil {
		return []int{0, 0}, fmt.Errorf("memory is not measured here: %w", err)
	}
	memory := []int{0, 0}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		for i, name := range []string{"Rss:", "Pss:"} {
			if len(f) == 3 && f[0] == name {
				kib, err := strconv.Atoi(f[1])
				if err != nil {
					return memory, err
				}
				memory[i] = kib << 10
			}
		}
	}
	return memory, nil
}

// crash lets a worker of a new pool die each time, so that no back-off of its slot is measured. The pool must go on.
func (o *ours) crash(ctx context.Context, w work) (*answer, error) {
	return latency(w, 4*fewSamples, func() (time.Duration, error) {
		pool, err := o.open(ctx, w.Workers)
		if err != nil {
			return 0, err
		}
		_, err = applied(ctx, pool, 1)
		start := time.Now()
		_, died := client.Apply(ctx, pool, dieFunc, 0)
		took := time.Since(start)
		if !errors.Is(died, client.ErrWorkerLost) {
			err = errors.Join(err, fmt.Errorf("a task whose worker was killed ended with %q, want %w", fmt.Sprint(died), client.ErrWorkerLost))
		}
		_, after := applied(ctx, pool, 2)
		return took, errors.Join(err, after, pool.Terminate())
	}, 50, 99)
}

// cpu is what a task costs all processes together, without what the pool itself costs.
func (o *ours) cpu(ctx context.Context, w work) (*answer, error) {
	items := upTo(w.Items)
	run := func(items []int) (time.Duration, error) {
		before, err := o.cpuTime()
		if err != nil {
			return 0, err
		}
		pool, err := o.open(ctx, w.Workers)
		if err != nil {
			return 0, err
		}
		err = o.mapBy(ctx, pool, max(1, w.Clients), items, w.Chunk)
		if err := errors.Join(err, pool.Terminate()); err != nil {
			return 0, err
		}
		after, err := o.cpuTime()
		return after - before, err
	}
	empty, err := run(items[:1])
	if err != nil {
		return nil, err
	}
	full, err := run(items)
	if err != nil {
		return nil, err
	}
	return &answer{Values: values(math.Max(0, (full-empty).Seconds()) / float64(w.Items)), Checked: w.Items}, nil
}

// mapBy lets so many clients map a part of the items each, at the same time; through procpoold with a connection each.
func (o *ours) mapBy(ctx context.Context, pool *client.Pool, clients int, items []int, chunk int) error {
	failed := make(chan error, clients)
	for i := range clients {
		from, to := i*len(items)/clients, (i+1)*len(items)/clients
		go func() {
			failed <- func() error {
				pool := pool
				if o.client != nil && clients > 1 {
					c, err := client.Dial(ctx, o.addr)
					if err != nil {
						return err
					}
					defer c.Close()
					if pool, err = c.Pool(ctx, pool.Name()); err != nil {
						return err
					}
				}
				got, err := client.Map(ctx, pool, nextFunc, items[from:to], client.ChunkSize(chunk))
				for k, v := range got {
					if err == nil && v != items[from+k]+1 {
						err = wrong("item", from+k, v, items[from+k]+1)
					}
				}
				return err
			}()
		}()
	}
	var err error
	for range clients {
		err = errors.Join(err, <-failed)
	}
	return err
}

// recycleEvery is after how many tasks a worker is replaced.
const recycleEvery = 25

// recycle is what replacing workers costs: the same naps on a pool whose workers stay, and on one whose workers are replaced all the time.
func (o *ours) recycle(ctx context.Context, w work) (*answer, error) {
	const us = 100
	run := func(opts ...client.PoolOption) (float64, error) {
		pool, err := o.open(ctx, w.Workers, opts...)
		if err != nil {
			return 0, err
		}
		_, err = client.Map(ctx, pool, dozeFunc, slices.Repeat([]int{us}, w.Workers), client.ChunkSize(1))
		start := time.Now()
		naps, mapped := client.Map(ctx, pool, dozeFunc, slices.Repeat([]int{us}, w.Items), client.ChunkSize(1))
		took := time.Since(start)
		return float64(len(naps)) / took.Seconds(), errors.Join(err, mapped, checkNaps(naps, us), pool.Terminate())
	}
	stay, err := run()
	if err != nil {
		return nil, err
	}
	replaced, err := run(client.MaxTasksPerWorker(recycleEvery), client.Spares(w.Workers))
	if err != nil {
		return nil, err
	}
	return &answer{Values: values(stay, replaced, replaced/stay), Checked: 2 * w.Items}, nil
}

// cpuTime is what this process and those it has waited for have used, and a daemon and its.
func (o *ours) cpuTime() (sum time.Duration, err error) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			return 0, err
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	if o.daemon == nil {
		return sum, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", o.daemon.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("CPU time of the daemon: %w", err)
	}
	// PID (NAME) STATE, and from the 14th on: utime stime cutime cstime, in ticks, of which every Linux has 100 in a second.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for i := 11; i < 15 && i < len(fields); i++ {
		ticks, err := strconv.Atoi(fields[i])
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ticks) * 10 * time.Millisecond
	}
	return sum, nil
}

// pause lets time pass.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
