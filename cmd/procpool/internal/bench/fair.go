package bench

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/procpool/procpool/client"
)

// napUs is how long a task of the fairness measures sleeps. It sleeps: what is measured is who has its turn, not who has the CPU.
const napUs = 1000

func (o *ours) fairApply(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	mapping, cancel := context.WithCancel(ctx)
	defer cancel()
	long := client.MapAsync(mapping, pool, napFunc, slices.Repeat([]int{napUs}, w.Items))
	if _, err := sample(w.Seconds, manySamples/10, func() (time.Duration, error) { return applied(ctx, pool, 3) }); err != nil { // the map gets into its stride
		return nil, err
	}
	a, err := latency(w, manySamples, func() (time.Duration, error) { return applied(ctx, pool, 3) }, 50, 99, 100)
	if long.Ready() {
		_, mapped := long.Get(ctx)
		return nil, fmt.Errorf("the map ended before the applies: %w", mapped)
	}
	cancel()
	<-long.Done()
	return a, err
}

func (o *ours) fairQueue(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	w.Seconds = 0 // once: a side whose applies wait for the whole queue would take no longer
	a, err := latency(w, 1, func() (time.Duration, error) {
		long := client.MapAsync(ctx, pool, napFunc, slices.Repeat([]int{napUs}, w.Items))
		if err := pause(ctx, 20*time.Millisecond); err != nil { // the queue fills
			return 0, err
		}
		took, err := applied(ctx, pool, 3)
		naps, mapped := long.Get(ctx)
		return took, errors.Join(err, mapped, checkNaps(naps, napUs))
	}, 50)
	if a != nil {
		a.Checked *= w.Items + 1
	}
	return a, err
}

func checkNaps(naps []int, us int) error {
	for i, got := range naps {
		if got < us {
			return wrong("nap", i, got, fmt.Sprint("at least ", us))
		}
	}
	return nil
}

// fairShares lets two clients work against each other for a while, one with tasks ten times as long. Each counts the run time that it gets.
func (o *ours) fairShares(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	other := pool
	if o.client != nil { // a connection of its own
		c, err := client.Dial(ctx, o.addr)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		if other, err = c.Pool(ctx, pool.Name()); err != nil {
			return nil, err
		}
	}
	begin := time.Now().Add(200 * time.Millisecond) // both are in their stride by then
	end := begin.Add(max(time.Duration(w.Seconds*float64(time.Second)), time.Second))
	type share struct {
		us, tasks int
		err       error
	}
	run := func(pool *client.Pool, us int) (s share) {
		for out, err := range client.IMapUnordered(ctx, pool, napFunc, forever(us)) {
			now := time.Now()
			if err = errors.Join(err, out.Err); err == nil {
				err = checkNaps([]int{out.Value}, us)
			}
			switch {
			case err != nil:
				s.err = err
				return s
			case now.After(end):
				return s
			case now.After(begin):
				s.us += out.Value
				s.tasks++
			}
		}
		return s
	}
	long := make(chan share, 1)
	go func() { long <- run(other, 10*napUs) }()
	a := run(pool, napUs)
	b := <-long
	if err := errors.Join(a.err, b.err); err != nil {
		return nil, err
	}
	if a.us+b.us == 0 {
		return nil, errors.New("no task ended")
	}
	return &answer{Values: values(float64(min(a.us, b.us)) / float64(a.us+b.us)), Checked: a.tasks + b.tasks}, nil
}

func forever[T any](v T) iter.Seq[T] {
	return func(yield func(T) bool) {
		for yield(v) {
		}
	}
}
