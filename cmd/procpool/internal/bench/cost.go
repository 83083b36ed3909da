package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/procpool/procpool/client"
)

// idle is a pool that has nothing to do, and what is resident then.
func (o *ours) idle(ctx context.Context, w work) (pool *client.Pool, resident int, err error) {
	if pool, err = o.kept(ctx, w); err != nil {
		return nil, 0, err
	}
	debug.FreeOSMemory()
	resident, err = o.resident()
	return pool, resident, err
}

// memoryIMap reads an endless IMap slowly, and looks how much more memory that takes than nothing, and how far the input is ahead.
func (o *ours) memoryIMap(ctx context.Context, w work) (*answer, error) {
	pool, idle, err := o.idle(ctx, w)
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
	pool, idle, err := o.idle(ctx, w)
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
