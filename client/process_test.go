package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestProcess(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fn    Function[int, int]
		arg   int
		value int
		kind  error
		code  int
	}{
		"returns": {double, 21, 42, nil, 0},
		"fails":   {odd, 2, 0, ErrTask, 1},
		"dies":    {Func[int, int]("die"), 1, 0, ErrWorkerLost, -9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				p := NewProcess(f.client(t).OpenPool, test.fn, test.arg)
				if err := p.Join(t.Context()); !errors.Is(err, ErrNotStarted) || p.Alive() {
					t.Errorf("join before start: %v, alive: %v", err, p.Alive())
				}
				if err := p.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := p.Start(t.Context()); err == nil {
					t.Error("it can be started twice")
				}
				if err := p.Join(t.Context()); err != nil || p.Alive() {
					t.Errorf("join: %v, alive: %v", err, p.Alive())
				}
				if v, err := p.Result(); v != test.value || (test.kind == nil) != (err == nil) || (test.kind != nil && !errors.Is(err, test.kind)) {
					t.Errorf("result is %d, %v; want %d, %v", v, err, test.value, test.kind)
				}
				if code, ok := p.ExitCode(); code != test.code || !ok {
					t.Errorf("exit code is %d, %v; want %d, true", code, ok, test.code)
				}
				if f.specs[0].Workers != 1 {
					t.Errorf("%d workers, want 1", f.specs[0].Workers)
				}
			})
		})
	}
}

func TestProcessKilled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		defer f.hold()()
		p := NewProcess(f.client(t).OpenPool, double, 1)
		if err := p.Kill(); !errors.Is(err, ErrNotStarted) {
			t.Errorf("kill before start: %v, want ErrNotStarted", err)
		}
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := p.Kill(); err != nil || p.Alive() {
			t.Errorf("kill: %v, alive: %v", err, p.Alive())
		}
		if _, err := p.Result(); !errors.Is(err, ErrPoolTerminated) {
			t.Errorf("result: %v, want ErrPoolTerminated", err)
		}
	})
}

func TestProcessThatCannotStart(t *testing.T) {
	t.Parallel()
	p := NewProcess(newFake(t).client(t).OpenPool, double, 1, Program("/no/such/program"))
	if err := p.Start(t.Context()); !errors.Is(err, ErrProgram) {
		t.Errorf("start: %v, want ErrProgram", err)
	}
	if _, err := p.Result(); !errors.Is(err, ErrProgram) || p.Alive() {
		t.Errorf("result: %v, alive: %v; want ErrProgram, false", err, p.Alive())
	}
}

func TestProcessTerminated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		defer f.hold()()
		p := NewProcess(f.client(t).OpenPool, double, 1)
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Result(); !errors.Is(err, ErrNotReady) || !p.Alive() {
			t.Errorf("result of a running process: %v, alive: %v", err, p.Alive())
		}
		if _, ok := p.ExitCode(); ok {
			t.Error("a running process has an exit code")
		}
		if pid := p.Pid(t.Context()); pid != 4711 {
			t.Errorf("pid is %d, want 4711", pid)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.Join(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("join with an ended context: %v, want Canceled", err)
		}
		if err := p.Terminate(); err != nil {
			t.Error(err)
		}
		if err := p.Join(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := p.Result(); !errors.Is(err, context.Canceled) {
			t.Errorf("result: %v, want Canceled", err)
		}
		if code, ok := p.ExitCode(); code != -15 || !ok {
			t.Errorf("exit code is %d, %v; want -15, true", code, ok)
		}
	})
}
