package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/cmd/procpool/internal/exit"
)

func TestSteeringHasATimeout(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	apply := procpool(t, append(addr, "apply", "--pool", "test", "wait", "1")...)
	if err := apply.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { apply.Process.Signal(syscall.SIGINT); _ = apply.Wait() }()
	eventually(t, func() string {
		if out := run0(t, append(addr, "workers")...); !strings.Contains(out, "busy") {
			return out
		}
		return ""
	})
	at := func(args ...string) result { return finish(t, procpool(t, append(slices.Clone(addr), args...)...)) }
	if r := at("resize", "test", "3", "--timeout", "1m"); r.status != 0 {
		t.Errorf("resize: %+v", r)
	}
	if r := at("close", "test", "--timeout", "1m"); r.status != 0 {
		t.Errorf("close: %+v", r)
	}
	if r := at("join", "test", "--timeout", "200ms"); r.status != statusTimeout || r.stderr != "procpool: join: not done within 200ms\n" {
		t.Errorf("join: got %+v, want status %d and a sentence", r, statusTimeout)
	}
	if r := at("join", "nobody", "--timeout", "1m"); r.status != statusFailure {
		t.Errorf("join of nobody: %+v", r)
	}
	if r := at("terminate", "test", "--timeout", "1m"); r.status != 0 {
		t.Errorf("terminate: %+v", r)
	}
	if r := at("join", "test", "--timeout", "1m"); r.status != 0 {
		t.Errorf("join: %+v", r)
	}
}

func TestTimeoutEndsWhatDoesNotHeedIt(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	g := &globals{addr: addr[1]}
	over := make(chan struct{})
	defer close(over)
	cmd := withTimeout(newEndCommand(g, "end", "", func(context.Context, *client.Pool) error {
		select {
		case <-over:
		case <-time.After(patience):
		}
		return nil
	}))
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs([]string{"test", "--timeout", "200ms"})
	if err := cmd.ExecuteContext(t.Context()); !errors.Is(err, exit.StatusError(statusTimeout)) {
		t.Errorf("got %v, want status %d", err, statusTimeout)
	}
}
