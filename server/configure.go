package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/server/internal/sched"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// This file is about pools that come from the daemon's configuration rather than from a client.

// PoolConfig is a pool of the daemon's configuration.
type PoolConfig struct {
	// Spec is the pool, with its name. It must not be changed any more.
	Spec *pb.PoolSpec
	// TaskTimeout and MaxAttempts are for calls that do not say. Zero: no timeout, and one attempt.
	TaskTimeout time.Duration
	MaxAttempts int
	// Calls and CallsPerUser are how many calls there may be at a time. Zero: no limit but the daemon's.
	Calls, CallsPerUser int
	// File is what Configure looks at to see whether the program has been replaced: for an adapter, the program that it runs. Empty: the program's own.
	File string
	// Dedicated keeps the pool to one user: the first who makes a call, as long as the pool lives.
	Dedicated bool
}

// MaxAttempts is how often a task may be tried at most.
const MaxAttempts = 1000

// CheckPool says what is wrong with a pool of the configuration, as far as that can be known without starting it.
func CheckPool(c PoolConfig) error {
	spec := proto.CloneOf(c.Spec)
	if err := completeSpec(spec); err != nil {
		return err
	}
	return checkProgram(spec.Program)
}

// configured is what the daemon made of a PoolConfig.
type configured struct {
	PoolConfig        // what the pool is, rather than what it should be where that cannot be changed
	pool       *pool  // may have ended since
	file       string // which file the program was
}

// Configure makes the pools of the configuration what it says. It may be called again: new pools are made, those that are gone are drained, and others
// are changed. Another number of workers holds at once, another program after a rolling restart, for which nobody waits here. What it does it logs; its
// error has a line for everything that could not be done.
func (s *Server) Configure(pools []PoolConfig) error {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	wanted := make(map[string]bool)
	for _, c := range pools {
		wanted[c.Spec.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(s.configured)) {
		if !wanted[name] {
			s.configured[name].pool.log.Info("no longer in the configuration: draining")
			s.configured[name].pool.close()
			delete(s.configured, name)
		}
	}
	var errs []error
	for _, c := range pools {
		if err := s.configure(c); err != nil {
			errs = append(errs, fmt.Errorf("pool %s: %w", c.Spec.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Server) configure(c PoolConfig) error {
	name := c.Spec.Name
	if have := s.configured[name]; have != nil && !have.pool.hasEnded() {
		return s.reconfigure(have, c)
	}
	spec := proto.CloneOf(c.Spec)
	file := c.fileID()
	p, err := s.newPool(spec, ownUID(), false, &c)
	var refused *refusal
	if errors.As(err, &refused) && refused.detail.Reason == pb.Reason_REASON_POOL_EXISTS {
		return errors.New("there is a pool of that name, which somebody has made or which is being drained; reload again when it has ended")
	}
	if err != nil {
		return err
	}
	s.configured[name] = &configured{PoolConfig: c, pool: p, file: file}
	return nil
}

// reconfigure changes what can be changed of a pool that runs.
func (s *Server) reconfigure(have *configured, c PoolConfig) error {
	p := have.pool
	var errs []error
	if fixed := fixedDifferences(have.PoolConfig, c); len(fixed) > 0 {
		errs = append(errs, fmt.Errorf("%s cannot be changed while the pool runs; close it (procpool close %s) and reload when it has ended", strings.Join(fixed, ", "), p.name))
	}
	c.Dedicated = have.Dedicated
	if have.TaskTimeout != c.TaskTimeout || have.MaxAttempts != c.MaxAttempts {
		have.TaskTimeout, have.MaxAttempts = c.TaskTimeout, c.MaxAttempts
		p.log.Info("new defaults for calls", "task_timeout", c.TaskTimeout, "max_attempts", c.MaxAttempts)
	}
	have.Calls, have.CallsPerUser = c.Calls, c.CallsPerUser
	p.config.Store(&c)
	if have.Spec.Workers != c.Spec.Workers {
		workers := c.Spec.Workers
		if workers == 0 {
			workers = uint32(usableCPUs())
		}
		if err := p.resize(context.Background(), workers); err != nil {
			errs = append(errs, err)
		} else {
			have.setSpec(func(spec *pb.PoolSpec) { spec.Workers = c.Spec.Workers })
		}
	}
	if file := c.fileID(); file != have.file || !proto.Equal(have.Spec.Program, c.Spec.Program) {
		if err := s.replaceProgram(have, c.Spec.Program, file); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// replaceProgram begins a rolling restart to another program. Should that fail, the pool has its old one still, and the next Configure tries again.
func (s *Server) replaceProgram(have *configured, program *pb.Program, file string) error {
	if err := s.checkProgram(program); err != nil {
		return err
	}
	wait, err := have.pool.beginRestart(context.Background(), proto.CloneOf(program))
	if err != nil {
		return err
	}
	before, was := have.Spec.Program, have.file
	have.setSpec(func(spec *pb.PoolSpec) { spec.Program = program })
	have.file = file
	s.running.Go(func() { // ends with the restart, or with the pool
		select {
		case <-wait.done:
		case <-have.pool.joined:
			return
		}
		if wait.refused == nil {
			return
		}
		s.configuring.Lock()
		defer s.configuring.Unlock()
		have.setSpec(func(spec *pb.PoolSpec) { spec.Program = before })
		have.file = was
	})
	return nil
}

func (c *configured) setSpec(change func(*pb.PoolSpec)) {
	c.Spec = proto.CloneOf(c.Spec)
	change(c.Spec)
}

// fixedDifferences names what differs and cannot be changed while the pool runs.
func fixedDifferences(a, b PoolConfig) (names []string) {
	x, y := proto.CloneOf(a.Spec), proto.CloneOf(b.Spec)
	for _, spec := range []*pb.PoolSpec{x, y} {
		spec.Workers, spec.Program = 0, nil
	}
	fields := x.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); !sameField(x.ProtoReflect(), y.ProtoReflect(), f) {
			names = append(names, "spec."+string(f.Name()))
		}
	}
	if a.Dedicated != b.Dedicated {
		names = append(names, "dedicated")
	}
	return names
}

func sameField(a, b protoreflect.Message, f protoreflect.FieldDescriptor) bool {
	return a.Has(f) == b.Has(f) && a.Get(f).Equal(b.Get(f))
}

// fileID tells the file of the program from another that is put there later. Empty: there is none.
func (c *PoolConfig) fileID() string {
	info, err := os.Stat(cmp.Or(c.File, c.Spec.Program.GetPath()))
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprint(st.Dev, st.Ino, info.ModTime().UnixNano())
}

func (p *pool) hasEnded() bool {
	select {
	case <-p.joined:
		return true
	default:
		return false
	}
}

// claim is the right of a user to make calls. A dedicated pool belongs to the first who does.
func (p *pool) claim(uid uint32) *refusal {
	c := p.config.Load()
	if c == nil || !c.Dedicated || p.claimed.CompareAndSwap(nobody, int64(uid)) || p.claimed.Load() == int64(uid) {
		return nil
	}
	return refuse(pb.Reason_REASON_DENIED, "pool %q is dedicated to one user, and that is somebody else; ask the administrator for a pool of your own", p.name).of(p.name)
}

// fillIn adds what the client did not say, and the configuration does.
func (p *pool) fillIn(m *pb.MapRequest, spec *sched.CallSpec) {
	c := p.config.Load()
	if c == nil {
		return
	}
	if m.TaskTimeout == nil {
		spec.TaskTimeout = c.TaskTimeout
	}
	if m.MaxAttempts == 0 {
		spec.MaxAttempts = max(1, c.MaxAttempts)
	}
}
