package config

import (
	"os"
	"slices"
	"strings"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/server"
	"github.com/procpool/procpool/workerproc/lines"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Pool is a pool of conf.d, as its file has it. What the file does not say is zero.
type Pool struct {
	Name string // the file's, without .toml
	File string

	command   []string
	dir       string
	env       map[string]string
	workers   int
	peer      string
	lines     bool
	jsonLines bool
	null      bool
	dedicated bool

	taskTimeout time.Duration
	maxAttempts int
	cancelGrace time.Duration
	killDelay   time.Duration

	startTimeout time.Duration
	readyTimeout time.Duration
	maxTasks     int
	maxAge       time.Duration
	maxIdle      time.Duration
	minWorkers   int
	spares       int
	drainMemory  int64
	maxMemory    int64
	maxProcesses int

	calls        int
	callsPerUser int

	origin map[string]string
}

// Config is the pool for the daemon.
func (p *Pool) Config() server.PoolConfig {
	spec := &pb.PoolSpec{
		Name: p.Name, Workers: uint32(p.workers), Peer: peers[p.peer],
		Program:   p.program(),
		MaxMemory: uint64(p.maxMemory), MaxProcesses: uint32(p.maxProcesses),

		MaxTasksPerWorker: uint32(p.maxTasks), MinWorkers: uint32(p.minWorkers), Spares: uint32(p.spares), DrainMemory: uint64(p.drainMemory),
	}
	for _, d := range []struct {
		from time.Duration
		to   **durationpb.Duration
	}{
		{p.cancelGrace, &spec.CancelGrace}, {p.killDelay, &spec.KillDelay},
		{p.startTimeout, &spec.StartTimeout}, {p.readyTimeout, &spec.ReadyTimeout},
		{p.maxAge, &spec.MaxWorkerAge}, {p.maxIdle, &spec.MaxWorkerIdle},
	} {
		if d.from != 0 {
			*d.to = durationpb.New(d.from)
		}
	}
	return server.PoolConfig{
		Spec: spec, File: p.command[0], TaskTimeout: p.taskTimeout, MaxAttempts: p.maxAttempts, Calls: p.calls, CallsPerUser: p.callsPerUser, Dedicated: p.dedicated,
	}
}

// program is what its workers run: the command, or for lines the adapter with the command, which is this program once more.
func (p *Pool) program() *pb.Program {
	program := &pb.Program{Path: p.command[0], Args: p.command[1:]}
	if p.lines || p.jsonLines {
		form := lines.Strings
		if p.jsonLines {
			form = lines.Values
		}
		self, err := os.Executable()
		if err != nil {
			self = "/proc/self/exe" // it has no /proc, and the pool will say so
		}
		program = lines.Spec{Command: p.command, Form: form, Null: p.null}.Program(self)
	}
	program.Dir, program.Env = p.dir, p.environment()
	return program
}

var peers = map[string]pb.PeerMatch{
	"exact": pb.PeerMatch_PEER_MATCH_EXACT, "group": pb.PeerMatch_PEER_MATCH_GROUP, "cgroup": pb.PeerMatch_PEER_MATCH_CGROUP,
}

// environment is the daemon's, without what is meant for the daemon alone, and what the file adds.
func (p *Pool) environment() []string {
	env := slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		_, replaced := p.env[name]
		return replaced || strings.HasPrefix(name, envPrefix) || strings.HasPrefix(name, "LISTEN_") || strings.HasPrefix(name, "WATCHDOG_") || name == "NOTIFY_SOCKET"
	})
	for name, value := range p.env {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env
}

// explain finds the place in the file of what the daemon says about a pool.
func (p *Pool) explain(err error, d document) Problem {
	what := err.Error()
	for _, k := range poolKeys {
		if k.field != "" && strings.Contains(what, "spec."+k.field) {
			if _, given := p.origin[k.name]; given {
				return d.problem(inKeys(what), "", strings.Split(k.name, ".")...)
			}
		}
	}
	return d.problem(inKeys(what), "", "command")
}

// inKeys puts the keys of the file in the place of the protocol's names.
func inKeys(text string) string {
	for _, k := range poolKeys {
		if k.field == "" {
			continue
		}
		name := k.name
		if table, key, ok := strings.Cut(k.name, "."); ok {
			name = "[" + table + "] " + key
		}
		text = strings.ReplaceAll(text, "spec."+k.field, name)
	}
	return text
}
