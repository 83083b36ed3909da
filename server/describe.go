package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/server/internal/sched"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// This file answers questions about a pool, on its owner's goroutine.

func (p *pool) workerName(id sched.WorkerID) string { return fmt.Sprintf("%s-%d", p.name, id) }

func (p *pool) isOpen(ctx context.Context) (open bool, err error) {
	err = p.ask(ctx, func(time.Time) {
		s := p.core.State()
		open = s == sched.Open || s == sched.Degraded
	})
	if errors.Is(err, errPoolEnded) {
		return false, nil
	}
	return open, err
}

// describe is the pool for people.
func (p *pool) describe(ctx context.Context) (*pb.Pool, error) {
	info := p.label()
	err := p.ask(ctx, func(time.Time) { p.fill(info) })
	if errors.Is(err, errPoolEnded) {
		return info, nil
	}
	return info, err
}

// label is what everybody may say about the pool: what never changes, as if it had ended.
func (p *pool) label() *pb.Pool {
	return &pb.Pool{
		Name: p.name, Workers: p.spec.Workers, Uid: p.uid, Created: timestamppb.New(p.created), Opened: p.opened,
		Command: append([]string{p.spec.Program.GetPath()}, p.spec.Program.GetArgs()...), State: pb.PoolState_POOL_STATE_JOINED,
	}
}

// fill adds what the owner knows.
func (p *pool) fill(info *pb.Pool) {
	i := p.core.Info()
	info.State = pb.PoolState(i.State)
	info.Workers, info.Spares, info.Generation = uint32(i.Workers), uint32(i.Spare), uint32(i.Generation)
	info.Command = append([]string{p.programs[i.Generation].GetPath()}, p.programs[i.Generation].GetArgs()...)
	info.Starting, info.Idle, info.Busy, info.Calls = uint32(i.Starting), uint32(i.Idle), uint32(i.Busy), uint32(i.Calls)
	info.PendingTasks, info.QueuedTasks, info.DoneTasks = i.Pending, i.Queued, i.Done
	failed, run := p.tally.tasks()
	info.FailedTasks, info.RunTime = failed, durationpb.New(run)
	info.DispatchedTasks, info.WaitTime = p.tally.Dispatched, durationpb.New(p.tally.Wait.Sum)
	info.LastExit = p.lastExit.Load().whole()
	for _, f := range i.Functions {
		info.Functions = append(info.Functions, &pb.PoolFunction{Name: f.Name, Encoding: f.Encoding})
	}
}

func (p *pool) describeWorkers(ctx context.Context) (list []*pb.Worker, err error) {
	var procs []process
	err = p.ask(ctx, func(time.Time) { list, procs = p.listWorkers() })
	for i, proc := range procs {
		if proc == nil {
			continue
		}
		if u, ok := resourcesOf(proc); ok {
			list[i].CpuTime = durationpb.New(u.cpu)
			if list[i].Memory == 0 {
				list[i].Memory = u.memory
			}
		}
	}
	slices.SortFunc(list, func(a, b *pb.Worker) int {
		return cmp.Or(a.Started.AsTime().Compare(b.Started.AsTime()), cmp.Compare(a.Name, b.Name))
	})
	return list, err
}

// listWorkers is the workers and their processes, nil for one that has none. It is called by the owner.
func (p *pool) listWorkers() (list []*pb.Worker, procs []process) {
	for id, w := range p.workers {
		info := &pb.Worker{Name: w.name, Pool: p.name, Started: timestamppb.New(w.started), Identity: w.identity, State: p.workerState(id), Memory: uint64(w.memory)}
		if w.proc != nil {
			info.Pid = int64(w.proc.Pid())
		}
		if i, ok := p.core.Worker(id); ok {
			info.DoneTasks, info.Generation = i.Done, uint32(i.Generation)
		}
		if t, ok := w.task(); ok && t.call != nil {
			info.CallId, info.Index, info.Attempt, info.Since = t.call.id, t.index, uint32(t.attempt), timestamppb.New(t.since)
		}
		list, procs = append(list, info), append(procs, w.proc)
	}
	return list, procs
}

func (p *pool) describeCalls(ctx context.Context) (list []*pb.Call, err error) {
	err = p.ask(ctx, func(time.Time) { list = p.listCalls() })
	return list, err
}

// listCalls is the calls. It is called by the owner.
func (p *pool) listCalls() (list []*pb.Call) {
	for _, i := range p.core.Calls() {
		c := p.calls[i.ID]
		if c == nil {
			continue // its client has gone; what runs of it is being stopped
		}
		info := &pb.Call{
			Id: c.id, Pool: p.name, Function: c.spec.Function, Uid: c.peer.uid, Pid: int64(c.peer.pid), Program: program(c.peer.pid),
			Label: c.label, AcceptedTasks: i.Accepted, RunningTasks: uint64(i.Running), DoneTasks: i.Done, FailedTasks: i.Failed,
			InputEnded: i.InputEnded, Started: timestamppb.New(c.started),
		}
		if !i.OldestSince.IsZero() {
			info.OldestIndex, info.OldestSince = c.index(i.Oldest), timestamppb.New(i.OldestSince)
		}
		list = append(list, info)
	}
	return list
}

// program is the path of a process's executable, if it may be known.
func program(pid int32) string {
	if pid <= 0 {
		return ""
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(path, "\uFFFD") // a file's name may be anything, a message has text
}
