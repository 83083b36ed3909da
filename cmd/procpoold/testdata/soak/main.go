// Soak is the worker and the client of the soak test. The client checks every outcome that it gets, and says after each call what it got so far.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/workerproc"
)

// work is a square, most of the time.
var work = workerproc.Func("work", func(ctx context.Context, n int) (int, error) {
	switch n % 2000 {
	case 7:
		return 0, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case 1007: // it dies and leaves a child
		if err := exec.Command("sleep", "600").Start(); err != nil {
			return 0, err
		}
		return 0, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case 77:
		<-ctx.Done()
		return 0, ctx.Err()
	case 777:
		return 0, errors.New("I do not like this one")
	}
	if n%100 == 0 {
		<-time.After(time.Millisecond)
	}
	return n * n, nil
})

// Report is what a client got.
type Report struct {
	Calls, Left, Cut, CutByCancel, Refused                                           int // Calls is all of them
	Tasks, Values, TaskErrors, Lost, Killers, Timeouts, Cancelled, Rejected, Cancels int // Killers is those of Lost that kill their worker, Cancels the calls with any Cancelled
}

func main() {
	workerproc.Main()
	r := &Report{}
	if err := r.run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "soak client:", err)
		os.Exit(1)
	}
}

// run makes calls until SIGTERM.
func (r *Report) run(addr string) error {
	stop, ignore := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer ignore()
	for stop.Err() == nil {
		if err := r.connect(stop, addr); err != nil {
			return err
		}
	}
	return nil
}

// connect makes calls as long as the pool is there. An error is something that must not be.
func (r *Report) connect(stop context.Context, addr string) error {
	wait := func() { // for the next daemon, or for workers that start
		select {
		case <-time.After(20 * time.Millisecond):
		case <-stop.Done():
		}
	}
	absent := func(err error) error {
		if errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrUnknownPool) {
			wait()
			return nil
		}
		return err
	}
	ctx := context.Background()
	c, err := client.Dial(ctx, addr)
	if err != nil {
		return absent(err)
	}
	defer c.Close()
	pool, err := c.Pool(ctx, "shared")
	if err != nil {
		return absent(err)
	}
	own := pool
	if rand.IntN(10) == 0 { // one of its own, which goes with it
		if own, err = c.OpenPool(ctx, client.Workers(1), client.CancelGrace(50*time.Millisecond), client.KillDelay(50*time.Millisecond)); err != nil {
			return absent(err)
		}
		defer own.Terminate()
	}
	for range 20 {
		if stop.Err() != nil {
			return nil
		}
		served, err := r.call(own)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
			return err
		}
		if !served {
			wait()
			return nil
		}
	}
	return nil
}

// call makes a call and checks its outcomes. It says whether there was a daemon with workers.
func (r *Report) call(pool *client.Pool) (served bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // far longer than any of them takes: none may hang
	defer cancel()
	n, base := 1+rand.IntN(3000), rand.IntN(1_000_000)
	timeout := time.Duration(20+rand.IntN(100)) * time.Millisecond
	chunk := []int{0, 0, 0, 1, 10, 1000}[rand.IntN(6)]
	leave := -1 // after so many outcomes
	if rand.IntN(10) == 0 {
		leave = rand.IntN(n)
	}
	input := func(yield func(int) bool) {
		for i := range n {
			if !yield(base + i) {
				return
			}
		}
	}
	r.Calls++
	seen := make([]bool, n)
	got, cancelled := 0, r.Cancelled
	defer func() {
		if r.Cancelled > cancelled {
			r.Cancels++
		}
	}()
	for out, err := range client.IMapUnordered(ctx, pool, work, iter.Seq[int](input), client.TaskTimeout(timeout), client.ChunkSize(chunk)) {
		if err != nil {
			return r.ended(err, got, n)
		}
		if out.Index < 0 || out.Index >= n || seen[out.Index] {
			return false, fmt.Errorf("task %d of %d has a second outcome: %+v", out.Index, n, out)
		}
		seen[out.Index] = true
		got++
		if err := r.check(base+out.Index, out); err != nil {
			return false, err
		}
		if got == leave {
			r.Left++
			return true, nil
		}
	}
	if got != n {
		return false, fmt.Errorf("%d of %d tasks have an outcome", got, n)
	}
	return true, nil
}

// ended judges the end of a call after so many outcomes. The test knows how many calls can have been cut by a daemon that was killed, or by a cancel.
func (r *Report) ended(err error, got, n int) (served bool, _ error) {
	switch {
	case errors.Is(err, client.ErrUnavailable), errors.Is(err, client.ErrUnknownPool), errors.Is(err, client.ErrPoolTerminated):
		r.Cut++
		return false, nil
	case errors.Is(err, client.ErrCancelled): // before all its items had come
		r.CutByCancel++
		return true, nil
	case errors.Is(err, client.ErrBootFailure) && got == 0:
		r.Refused++
		return false, nil
	default:
		return false, fmt.Errorf("the call ended with %w after %d of %d tasks", err, got, n)
	}
}

// check judges an outcome. Whatever is not a right value must be explained by what the task does, or by what is done to workers and calls.
func (r *Report) check(arg int, out client.Outcome[int]) error {
	r.Tasks++
	killer := arg%2000 == 7 || arg%2000 == 1007
	switch {
	case out.Err == nil && out.Value == arg*arg && !killer && arg%2000 != 77 && arg%2000 != 777:
		r.Values++
	case errors.Is(out.Err, client.ErrTask) && arg%2000 == 777:
		r.TaskErrors++
	case errors.Is(out.Err, client.ErrWorkerLost):
		r.Lost++
		if killer {
			r.Killers++
		}
	case errors.Is(out.Err, client.ErrTimeout):
		r.Timeouts++
	case errors.Is(out.Err, client.ErrCancelled):
		r.Cancelled++
	case errors.Is(out.Err, client.ErrRejected):
		r.Rejected++
	default:
		return fmt.Errorf("task %d has %d, %w", arg, out.Value, out.Err)
	}
	return nil
}
