package server

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/server/internal/sched"
	"google.golang.org/protobuf/proto"
)

// This file is about workers that come and go though nothing is wrong with them: resize and restart, for example. What watches their memory is in limits.go.

func (ps *poolService) ResizePool(ctx context.Context, r *pb.ResizePoolRequest) (*pb.ResizePoolResponse, error) {
	p, err := ps.server.pool(r.Pool)
	if err != nil {
		return nil, err
	}
	if r.Workers == 0 || r.Workers > maxWorkers-p.spec.Spares {
		return nil, badRequest("workers is %d; a pool with %d spares may have 1 to %d", r.Workers, p.spec.Spares, maxWorkers-p.spec.Spares)
	}
	if err := p.resize(ctx, r.Workers); err != nil {
		return nil, err
	}
	info, err := p.describe(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.ResizePoolResponse{Pool: info}, nil
}

// notOpen is why the pool cannot be changed, if it has been closed. It is called by the owner.
func (p *pool) notOpen() *refusal {
	switch p.core.State() {
	case sched.Open, sched.Degraded:
		return nil
	case sched.Closed:
		return refuse(pb.Reason_REASON_POOL_CLOSED, "pool %q has been closed", p.name).of(p.name)
	default:
		return refuse(pb.Reason_REASON_POOL_TERMINATED, "pool %q has ended", p.name).of(p.name)
	}
}

// answer is the error of a question to the owner that may be refused. A typed nil is none.
func (p *pool) answer(err error, refused *refusal) error {
	switch {
	case refused != nil:
		return refused
	case err == errPoolEnded: //nolint:errorlint // ask returns it as it is
		return refuse(pb.Reason_REASON_POOL_TERMINATED, "pool %q has ended", p.name).of(p.name)
	default:
		return err
	}
}

// restart is a restart that somebody waits for.
type restart struct {
	done     chan struct{} // closed at its end
	replaced int
	refused  *refusal // why it failed
}

func (ps *poolService) RestartPool(ctx context.Context, r *pb.RestartPoolRequest) (*pb.RestartPoolResponse, error) {
	p, err := ps.server.pool(r.Pool)
	if err != nil {
		return nil, err
	}
	program := r.Program
	if program == nil {
		err := p.ask(ctx, func(time.Time) { program = proto.CloneOf(p.programs[p.core.Info().Generation]) })
		if err := p.answer(err, nil); err != nil {
			return nil, err
		}
		identifyProgram(program)
	} else if err := checkProgramFields("program", program); err != nil {
		return nil, err
	}
	if err := ps.server.checkProgram(program); err != nil {
		return nil, err
	}
	wait, err := p.beginRestart(ctx, program)
	if err != nil {
		return nil, err
	}
	select {
	case <-wait.done:
	case <-p.joined:
		return nil, p.answer(errPoolEnded, nil)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if wait.refused != nil {
		return nil, wait.refused
	}
	info, err := p.describe(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.RestartPoolResponse{Pool: info, Replaced: uint32(wait.replaced)}, nil
}

// identifyProgram makes what lies at the program's path now the file that is meant, if one is.
func identifyProgram(program *pb.Program) {
	if program.Inode == 0 {
		return
	}
	if info, err := os.Stat(program.Path); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			program.Device, program.Inode, program.MtimeNs = uint64(st.Dev), st.Ino, info.ModTime().UnixNano() //nolint:unconvert // Dev has another type on other systems
		}
	}
}

// restart begins a restart. It is called by the owner.
func (p *pool) restart(now time.Time, program *pb.Program) (*restart, *refusal) {
	if refused := p.notOpen(); refused != nil {
		return nil, refused
	}
	generation := p.core.Restart(now)
	if generation == 0 {
		return nil, refuse(pb.Reason_REASON_RESTARTING, "pool %q is being restarted already; wait for the end of that", p.name).of(p.name)
	}
	p.programs[generation] = program
	p.restarting = &restart{done: make(chan struct{})}
	p.log.Info("restarting", "program", program.Path, "generation", generation)
	return p.restarting, nil
}

// restarted is the end of a restart, for the owner.
func (p *pool) restarted(e *sched.Effect) {
	r := p.restarting
	r.replaced = e.Offset
	switch e.Reason {
	case sched.NoReason:
		for generation := range p.programs {
			if generation != e.Generation {
				delete(p.programs, generation)
			}
		}
	case sched.BootFailure:
		exit := p.server.exitFor(itself, endingOf(e.Why)) // whole: restarts are for administrators
		r.refused = refuse(pb.Reason_REASON_BOOT_FAILURE, "the new workers of pool %q do not start, so the old ones stay: %s", p.name, describeExit(exit)).of(p.name)
		r.refused.detail.WorkerExit = exit
	case sched.UnknownFunction:
		r.refused = refuse(pb.Reason_REASON_UNKNOWN_FUNCTION,
			"the new workers of pool %q lack the function %q, which a call is using, so the old ones stay; let the call end first, or cancel it", p.name, e.Why).of(p.name)
	default:
		r.refused = refuse(pb.Reason_REASON_POOL_CLOSED, "pool %q was closed meanwhile", p.name).of(p.name)
	}
	if r.refused != nil {
		if e.Generation != p.core.Info().Generation {
			delete(p.programs, e.Generation)
		}
		p.tally.FailedOnes++
		p.log.Warn("restart failed", "reason", r.refused.message)
	} else {
		p.tally.Restarts++
		p.log.Info("restarted", "generation", e.Generation, "replaced", r.replaced)
	}
	close(r.done)
	p.restarting = nil
}

// retirement says why a worker was asked to stop although its pool goes on; "" if it was not.
func (w *worker) retirement() string {
	switch w.retired {
	case sched.RanItsTasks:
		return fmt.Sprintf("recycled after %d tasks", w.ran)
	case sched.TooOld:
		return fmt.Sprintf("recycled after %v", time.Since(w.started).Round(time.Second))
	case sched.TookMemory:
		return fmt.Sprintf("recycled when it had %d MiB of memory", w.memory>>20)
	case sched.IdleTooLong:
		return fmt.Sprintf("stopped after about %v without a task", w.pool.spec.MaxWorkerIdle.AsDuration())
	case sched.NotNeeded:
		return "stopped, because there were more workers than the pool needs"
	case sched.Replaced:
		return "replaced in a restart of the pool"
	default:
		return ""
	}
}

// resize changes the number of workers.
func (p *pool) resize(ctx context.Context, workers uint32) error {
	var refused *refusal
	err := p.ask(ctx, func(now time.Time) {
		if refused = p.notOpen(); refused == nil {
			p.core.Resize(now, int(workers))
			p.log.Info("resized", "workers", workers)
		}
	})
	return p.answer(err, refused)
}

// beginRestart begins a restart to a program.
func (p *pool) beginRestart(ctx context.Context, program *pb.Program) (*restart, error) {
	var refused *refusal
	var wait *restart
	err := p.ask(ctx, func(now time.Time) { wait, refused = p.restart(now, program) })
	return wait, p.answer(err, refused)
}
