// Package metrics makes Prometheus metrics of what a daemon counts, and serves them. docs/metrics.md has each one and what it is good for.
//
// It is a package of its own so that who links package server, as every program with an embedded daemon does, links no Prometheus library. Such a
// program can have the metrics all the same: register New(server) with its own registry.
package metrics

import (
	"context"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/server"
)

// askTime is how long a scrape waits for the owners of the pools. They answer in microseconds, unless the machine is in trouble.
const askTime = 5 * time.Second

// Source is what has numbers: a *server.Server.
type Source interface {
	Stats(ctx context.Context) (*server.Stats, error)
}

// Collector asks a daemon for its numbers at every scrape. Between scrapes it does nothing.
type Collector struct {
	source  Source
	version string
}

// New is a collector for a daemon. Version is the one to report in procpool_build_info.
func New(source Source, version string) *Collector { return &Collector{source, version} }

var (
	buildInfo = describe("build_info", "Always 1. The version of the daemon and of the Go toolchain that built it.", "version", "goversion")
	startTime = describe("start_time_seconds", "When the daemon was started, in seconds since 1970.")

	pools    = describe("pools", "Pools that have not ended, by state.", "state")
	restarts = describe("pool_restarts_total", "Rolling restarts of a pool that came to their end, by result: done or failed.", "pool", "result")

	workers       = describe("workers", "Worker processes, by what they do.", "pool", "state")
	workersWanted = describe("workers_wanted", "Workers that the pool is meant to have.", "pool")
	starts        = describe("worker_starts_total", "Worker processes started, those that failed to start too.", "pool")
	exits         = describe("worker_exits_total", "Worker processes that have ended, by reason.", "pool", "reason")
	memory        = describe("worker_memory_bytes", "Resident memory of the pool's workers, without their children.", "pool")
	cpu           = describe("worker_cpu_seconds_total", "CPU time that the pool's workers have used, those that have ended too, with the children that they have waited for.", "pool")
	lines         = describe("output_lines_total", "Lines that workers wrote and that were passed on.", "pool")
	linesDropped  = describe("output_lines_dropped_total", "Lines that were dropped because a worker wrote too many.", "pool")

	calls        = describe("calls", "Calls that have not ended.", "pool")
	callsTotal   = describe("calls_total", "Calls that have ended, by how: ended (every task has its outcome) or cancelled.", "pool", "function", "result")
	callsRefused = describe("calls_refused_total", "Calls that were refused, by reason.", "pool", "reason")

	pending     = describe("tasks_pending", "Tasks accepted that have no outcome yet.", "pool")
	queued      = describe("tasks_queued", "Of the pending tasks, those that no worker holds: the depth of the queue.", "pool")
	tasks       = describe("tasks_total", "Tasks that have had their outcome.", "pool", "function", "outcome")
	dispatched  = describe("tasks_dispatched_total", "Tasks given to workers. One that is given back or tried again counts again.", "pool")
	retried     = describe("tasks_retried_total", "Of the dispatched tasks, second and later attempts.", "pool")
	chunks      = describe("chunks_dispatched_total", "Chunks in which tasks were given to workers.", "pool")
	wait        = describe("task_wait_seconds", "How long tasks had waited when they were dispatched. The tasks of a chunk count with its first one.", "pool")
	run         = describe("task_run_seconds", "How long tasks ran. Those that a worker reports together count with their mean.", "pool", "function")
	itemBytes   = describe("item_bytes_total", "Bytes of items that came from clients.", "pool")
	resultBytes = describe("result_bytes_total", "Bytes of results that went back to calls.", "pool")
)

// all is every metric, for Describe. It is filled by describe.
var all []*prometheus.Desc

func describe(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("procpool_"+name, help, labels, nil)
	all = append(all, d)
	return d
}

// Describe sends every metric's description.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range all {
		ch <- d
	}
}

// Collect asks the daemon.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	stats, err := c.source.Stats(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(pools, err)
		return
	}
	m := sender{ch}
	m.gauge(buildInfo, 1, c.version, runtime.Version())
	m.gauge(startTime, float64(stats.Started.UnixNano())/1e9)
	states := map[pb.PoolState]int{pb.PoolState_POOL_STATE_OPEN: 0, pb.PoolState_POOL_STATE_DEGRADED: 0, pb.PoolState_POOL_STATE_CLOSED: 0, pb.PoolState_POOL_STATE_TERMINATED: 0}
	for i := range stats.Pools {
		for state, n := range stats.Pools[i].States {
			if state != pb.PoolState_POOL_STATE_JOINED {
				states[state] += n
			}
		}
		m.pool(&stats.Pools[i])
	}
	for state, n := range states {
		m.gauge(pools, float64(n), word(state.String(), "POOL_STATE_"))
	}
}

// sender makes metrics.
type sender struct{ ch chan<- prometheus.Metric }

func (m sender) gauge(d *prometheus.Desc, v float64, labels ...string) {
	m.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (m sender) counter(d *prometheus.Desc, v float64, labels ...string) {
	m.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (m sender) histogram(d *prometheus.Desc, h *server.Histogram, labels ...string) {
	buckets, n := make(map[float64]uint64, len(server.Bounds)), uint64(0)
	for i, bound := range server.Bounds {
		n += h.Buckets[i]
		buckets[bound.Seconds()] = n
	}
	m.ch <- prometheus.MustNewConstHistogram(d, h.Count(), h.Sum.Seconds(), buckets, labels...)
}

// workerStates are those that a worker can be in.
var workerStates = []pb.WorkerState{
	pb.WorkerState_WORKER_STATE_STARTING, pb.WorkerState_WORKER_STATE_IDLE, pb.WorkerState_WORKER_STATE_BUSY, pb.WorkerState_WORKER_STATE_STOPPING, pb.WorkerState_WORKER_STATE_SPARE,
}

// pool sends what is known of a pool. What nobody can know is absent, not 0.
func (m sender) pool(p *server.PoolStats) {
	m.counter(restarts, float64(p.Restarts), p.Name, "done")
	m.counter(restarts, float64(p.FailedOnes), p.Name, "failed")

	for _, state := range workerStates {
		m.gauge(workers, float64(p.Workers[state]), p.Name, word(state.String(), "WORKER_STATE_"))
	}
	m.gauge(workersWanted, float64(p.Wanted), p.Name)
	m.counter(starts, float64(p.Starts), p.Name)
	for reason, n := range p.Exits {
		m.counter(exits, float64(n), p.Name, reason)
	}
	if p.Measured {
		m.gauge(memory, float64(p.Memory), p.Name)
		m.counter(cpu, p.CPU.Seconds(), p.Name)
	}
	m.counter(lines, float64(p.Lines), p.Name)
	m.counter(linesDropped, float64(p.LostLines), p.Name)

	m.gauge(calls, float64(p.Calls), p.Name)
	for reason, n := range p.Refused {
		m.counter(callsRefused, float64(n), p.Name, word(reason.String(), "REASON_"))
	}
	for name, f := range p.Functions {
		m.counter(callsTotal, float64(f.Ended), p.Name, name, "ended")
		m.counter(callsTotal, float64(f.Cancelled), p.Name, name, "cancelled")
		for o, n := range f.Outcomes {
			if o > 0 { // none has number 0
				m.counter(tasks, float64(n), p.Name, name, word(pb.Outcome(o).String(), "OUTCOME_"))
			}
		}
		m.histogram(run, &f.Run, p.Name, name)
	}

	m.gauge(pending, float64(p.Pending), p.Name)
	m.gauge(queued, float64(p.Queued), p.Name)
	m.counter(dispatched, float64(p.Dispatched), p.Name)
	m.counter(retried, float64(p.Retried), p.Name)
	m.counter(chunks, float64(p.Chunks), p.Name)
	m.histogram(wait, &p.Wait, p.Name)
	m.counter(itemBytes, float64(p.ItemBytes), p.Name)
	m.counter(resultBytes, float64(p.ResultBytes), p.Name)
}

// word is the name of a number of the protocol as a label.
func word(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }
