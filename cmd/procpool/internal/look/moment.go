package look

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/procpool/procpool/client"
	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// moment is what a daemon does, at a moment.
type moment struct {
	at      time.Time
	about   *pb.DescribeResponse
	pools   []*pb.Pool
	workers []*pb.Worker
	calls   []*pb.Call
}

func look(ctx context.Context, c *client.Client) (*moment, error) {
	s := &moment{}
	var err error
	if s.about, err = c.Describe(ctx); err != nil {
		return nil, err
	}
	if s.pools, err = c.Pools(ctx); err != nil {
		return nil, err
	}
	if s.workers, err = c.Workers(ctx, ""); err != nil {
		return nil, err
	}
	if s.calls, err = c.Calls(ctx, ""); err != nil {
		return nil, err
	}
	s.at = time.Now()
	return s, nil
}

// change is two moments of a daemon: what there is, and what has happened between them. before is nil at first.
type change struct{ before, now *moment }

// passed is the time between them; 0 at first.
func (c change) passed() time.Duration {
	if c.before == nil {
		return 0
	}
	return c.now.at.Sub(c.before.at)
}

// pool is the pool as it was before; nil if it was not there, or another one of that name.
func (c change) pool(now *pb.Pool) *pb.Pool {
	if c.before != nil {
		for _, p := range c.before.pools {
			if p.GetName() == now.GetName() && p.GetCreated().AsTime().Equal(now.GetCreated().AsTime()) {
				return p
			}
		}
	}
	return nil
}

func (c change) worker(now *pb.Worker) *pb.Worker {
	if c.before != nil {
		for _, w := range c.before.workers {
			if w.GetName() == now.GetName() && w.GetPid() == now.GetPid() {
				return w
			}
		}
	}
	return nil
}

func (c change) call(now *pb.Call) *pb.Call {
	if c.before != nil {
		for _, call := range c.before.calls {
			if call.GetId() == now.GetId() {
				return call
			}
		}
	}
	return nil
}

func (c change) age(t *timestamppb.Timestamp) cell {
	if t == nil {
		return unknown
	}
	d := max(0, c.now.at.Sub(t.AsTime()))
	if d < time.Minute {
		return number(float64(d), fmt.Sprintf("%.1fs", d.Seconds()))
	}
	return took(d)
}

// mean is how long one of n took, if there were any.
func mean(sum time.Duration, n uint64) cell {
	if n == 0 {
		return unknown
	}
	return took(sum / time.Duration(n))
}

// cpu is the share of one CPU that a worker has used between the two, in per cent.
func (c change) cpu(w *pb.Worker) cell {
	before := c.worker(w)
	if before.GetCpuTime() == nil || w.GetCpuTime() == nil || c.passed() <= 0 {
		return unknown
	}
	share := 100 * (w.GetCpuTime().AsDuration() - before.GetCpuTime().AsDuration()).Seconds() / c.passed().Seconds()
	return number(share, fmt.Sprintf("%.0f", share))
}

// usage sums up the workers of a pool; of all if the name is empty.
func (c change) usage(pool string) (memory, cpu cell) {
	bytes, share := uint64(0), -1.0
	for _, w := range c.now.workers {
		if pool != "" && w.GetPool() != pool {
			continue
		}
		bytes += w.GetMemory()
		if one := c.cpu(w); one != unknown {
			share = max(0, share) + one.number
		}
	}
	if share < 0 {
		return bytesCell(bytes), unknown
	}
	return bytesCell(bytes), number(share, fmt.Sprintf("%.0f", share))
}

func (c change) poolGrid() *grid {
	g := &grid{columns: []column{
		{name: "POOL", most: 20},
		{name: "STATE"},
		{name: "BUSY", right: true},
		{name: "CALLS", right: true, rank: 3},
		{name: "QUEUED", right: true},
		{name: "TASKS/S", right: true},
		{name: "FAIL/S", right: true, rank: 1},
		{name: "RUN", right: true, rank: 2},
		{name: "WAIT", right: true, rank: 2},
		{name: "OLDEST", right: true, rank: 2},
		{name: "MEM", right: true, rank: 4},
		{name: "CPU%", right: true, rank: 4},
		{name: "DONE", right: true, rank: 5},
		{name: "FAILED", right: true, rank: 6},
		{name: "AGE", right: true, rank: 7},
		{name: "FUNCTIONS", rank: 8, most: 24},
	}}
	for _, p := range c.now.pools {
		before, passed := c.pool(p), c.passed()
		rate, fails, run, wait := unknown, unknown, unknown, unknown
		if before != nil {
			done := p.GetDoneTasks() - before.GetDoneTasks()
			rate = rateCell(float64(done), passed)
			fails = rateCell(float64(p.GetFailedTasks()-before.GetFailedTasks()), passed)
			run = mean(p.GetRunTime().AsDuration()-before.GetRunTime().AsDuration(), done)
			wait = mean(p.GetWaitTime().AsDuration()-before.GetWaitTime().AsDuration(), p.GetDispatchedTasks()-before.GetDispatchedTasks())
		}
		var functions []string
		for _, f := range p.GetFunctions() {
			functions = append(functions, f.GetName())
		}
		memory, cpu := c.usage(p.GetName())
		g.rows = append(g.rows, gridRow{p.GetName(), []cell{
			textCell(p.GetName()), textCell(enumName(p.GetState().String(), "POOL_STATE_")), number(float64(p.GetBusy()), fmt.Sprintf("%d/%d", p.GetBusy(), p.GetWorkers())), count(p.GetCalls()),
			count(p.GetQueuedTasks()), rate, fails, run, wait, c.oldest(p.GetName()), memory, cpu, count(p.GetDoneTasks()), count(p.GetFailedTasks()),
			c.age(p.GetCreated()), textCell(strings.Join(functions, ",")),
		}})
	}
	return g
}

// oldest is how long the running task of a pool that has run longest has run.
func (c change) oldest(pool string) cell {
	oldest := unknown
	for _, call := range c.now.calls {
		if call.GetPool() == pool && call.GetOldestSince() != nil {
			if age := c.age(call.GetOldestSince()); age.number > oldest.number {
				oldest = age
			}
		}
	}
	return oldest
}

// workerGrid is the workers of a pool; of all if the name is empty.
func (c change) workerGrid(pool string) *grid {
	g := &grid{columns: []column{
		{name: "WORKER", most: 28},
		{name: "PID", right: true},
		{name: "STATE"},
		{name: "TASKS/S", right: true},
		{name: "DONE", right: true, rank: 3},
		{name: "MEM", right: true},
		{name: "CPU%", right: true},
		{name: "RUNNING", right: true},
		{name: "INDEX", right: true, rank: 2},
		{name: "AGE", right: true, rank: 4},
		{name: "FUNCTION", rank: 1, most: 20},
		{name: "CALL", rank: 5, most: 32},
	}}
	functions := make(map[string]string)
	for _, call := range c.now.calls {
		functions[call.GetId()] = call.GetFunction()
	}
	for _, w := range c.now.workers {
		if pool != "" && w.GetPool() != pool {
			continue
		}
		rate, running, index := unknown, unknown, unknown
		if before := c.worker(w); before != nil {
			rate = rateCell(float64(w.GetDoneTasks()-before.GetDoneTasks()), c.passed())
		}
		if w.GetCallId() != "" {
			running, index = c.age(w.GetSince()), count(w.GetIndex())
		}
		g.rows = append(g.rows, gridRow{w.GetName(), []cell{
			textCell(w.GetName()), number(float64(w.GetPid()), fmt.Sprint(w.GetPid())), textCell(enumName(w.GetState().String(), "WORKER_STATE_")), rate, count(w.GetDoneTasks()),
			bytesCell(w.GetMemory()), c.cpu(w), running, index, c.age(w.GetStarted()), textCell(functions[w.GetCallId()]), textCell(w.GetCallId()),
		}})
	}
	return g
}

// callGrid is the calls of a pool; of all if the name is empty.
func (c change) callGrid(pool string) *grid {
	g := &grid{columns: []column{
		{name: "CALL", most: 32, rank: 4},
		{name: "POOL", most: 16, rank: 1},
		{name: "FUNCTION", most: 20},
		{name: "UID", right: true},
		{name: "PID", right: true},
		{name: "AGE", right: true},
		{name: "TASKS/S", right: true},
		{name: "DONE", right: true},
		{name: "OF", right: true},
		{name: "RUN", right: true, rank: 3},
		{name: "FAILED", right: true},
		{name: "OLDEST", right: true, rank: 2},
		{name: "PROGRAM", rank: 5, most: 16},
		{name: "LABEL", rank: 6, most: 20},
	}}
	for _, call := range c.now.calls {
		if pool != "" && call.GetPool() != pool {
			continue
		}
		rate := unknown
		if before := c.call(call); before != nil {
			rate = rateCell(float64(call.GetDoneTasks()-before.GetDoneTasks()), c.passed())
		}
		of := count(call.GetAcceptedTasks())
		if !call.GetInputEnded() {
			of.text += "+" // more may come
		}
		g.rows = append(g.rows, gridRow{call.GetId(), []cell{
			textCell(call.GetId()), textCell(call.GetPool()), textCell(call.GetFunction()), count(call.GetUid()), number(float64(call.GetPid()), fmt.Sprint(call.GetPid())), c.age(call.GetStarted()),
			rate, count(call.GetDoneTasks()), of, count(call.GetRunningTasks()), count(call.GetFailedTasks()), c.age(call.GetOldestSince()),
			textCell(filepath.Base(call.GetProgram())), textCell(call.GetLabel()),
		}})
	}
	return g
}

// headline is the daemon in two lines.
func (c change) headline() (about, sums string) {
	a := c.now.about
	about = fmt.Sprintf("procpoold %s, pid %d, up %s, %s", a.GetVersion(), a.GetPid(), c.age(a.GetStarted()).text, a.GetSocket())
	var busy, workers, queued uint64
	done, failed := 0.0, 0.0
	for _, p := range c.now.pools {
		busy += uint64(p.GetBusy())
		workers += uint64(p.GetWorkers())
		queued += p.GetQueuedTasks()
		if before := c.pool(p); before != nil {
			done += float64(p.GetDoneTasks() - before.GetDoneTasks())
			failed += float64(p.GetFailedTasks() - before.GetFailedTasks())
		}
	}
	memory, cpu := c.usage("")
	sums = fmt.Sprintf("%s, %d/%d busy, %s, %d queued, %s tasks/s, %s failed/s, %s mem, %s%% cpu", plural(len(c.now.pools), "pool"), busy, workers, plural(len(c.now.calls), "call"), queued,
		rateCell(done, c.passed()).text, rateCell(failed, c.passed()).text, memory.text, cpu.text)
	return about, sums
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
