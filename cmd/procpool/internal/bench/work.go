package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/procpool/procpool/client"
)

func (o *ours) mapInts(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	items := upTo(w.Items)
	return rate(w, w.Items, func() (time.Duration, error) {
		start := time.Now()
		got, err := client.Map(ctx, pool, nextFunc, items, client.ChunkSize(w.Chunk))
		took := time.Since(start)
		return took, errors.Join(err, checkNext(got, w.Items))
	})
}

func (o *ours) imap(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	items := upTo(w.Items)
	return rate(w, w.Items, func() (time.Duration, error) {
		got := make([]int, 0, w.Items)
		start := time.Now()
		for out, err := range client.IMap(ctx, pool, nextFunc, slices.Values(items), client.ChunkSize(w.Chunk)) {
			if err != nil || out.Err != nil {
				return 0, errors.Join(err, out.Err)
			}
			got = append(got, out.Value)
		}
		took := time.Since(start)
		return took, checkNext(got, w.Items)
	})
}

func (o *ours) applyAsync(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	return rate(w, w.Items, func() (time.Duration, error) {
		results := make([]*client.Result[int], w.Items)
		got := make([]int, w.Items)
		start := time.Now()
		for i := range results {
			results[i] = client.ApplyAsync(ctx, pool, nextFunc, i)
		}
		for i, r := range results {
			var err error
			if got[i], err = r.Get(ctx); err != nil {
				return 0, err
			}
		}
		took := time.Since(start)
		return took, checkNext(got, w.Items)
	})
}

// applied is what one Apply takes.
func applied(ctx context.Context, pool *client.Pool, i int) (time.Duration, error) {
	start := time.Now()
	v, err := client.Apply(ctx, pool, nextFunc, i)
	took := time.Since(start)
	if err == nil && v != i+1 {
		err = wrong("item", i, v, i+1)
	}
	return took, err
}

func (o *ours) apply(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	return latency(w, manySamples, func() (time.Duration, error) { return applied(ctx, pool, 7) }, 50, 99)
}

func (o *ours) argument(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	for i := len(o.blobs); i < w.Items; i++ { // each is another object, as users' items are
		b := make([]byte, w.Bytes)
		for k := range b {
			b[k] = byte(i)
		}
		o.blobs = append(o.blobs, b)
	}
	return rate(w, w.Items*w.Bytes, func() (time.Duration, error) {
		start := time.Now()
		got, err := client.Map(ctx, pool, sumFunc, o.blobs, client.ChunkSize(w.Chunk))
		took := time.Since(start)
		for i, v := range got {
			if want := sumOf(o.blobs[i]); v != want && err == nil {
				err = wrong("item", i, v, want)
			}
		}
		return took, err
	})
}

func (o *ours) result(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	items := slices.Repeat([]int{w.Bytes}, w.Items)
	want := sumOf(blob(w.Bytes))
	return rate(w, w.Items*w.Bytes, func() (time.Duration, error) {
		start := time.Now()
		got, err := client.Map(ctx, pool, blobFunc, items, client.ChunkSize(w.Chunk))
		took := time.Since(start)
		for i, b := range got {
			if err == nil && (len(b) != w.Bytes || sumOf(b) != want) {
				err = wrong("item", i, fmt.Sprint(len(b), " bytes"), fmt.Sprint(w.Bytes, " of x"))
			}
		}
		return took, err
	})
}

// firstResult opens a pool, waits for a first result, and terminates the pool outside of the time.
func (o *ours) firstResult(ctx context.Context, workers int) (time.Duration, error) {
	start := time.Now()
	pool, err := o.open(ctx, workers)
	if err != nil {
		return 0, err
	}
	_, err = applied(ctx, pool, 1)
	took := time.Since(start)
	return took, errors.Join(err, pool.Terminate())
}

func (o *ours) startCold(ctx context.Context, w work) (*answer, error) {
	return latency(w, fewSamples, func() (time.Duration, error) { return o.firstResult(ctx, w.Workers) }, 50)
}

func (o *ours) startWorker(ctx context.Context, w work) (*answer, error) {
	if _, err := o.kept(ctx, w); err != nil { // it keeps an embedded daemon running, too
		return nil, err
	}
	return latency(w, fewSamples, func() (time.Duration, error) { return o.firstResult(ctx, 1) }, 50)
}

// startWarm is a call of its own each time, so that it does not find a stream of applies. Through procpoold it connects anew, too.
func (o *ours) startWarm(ctx context.Context, w work) (*answer, error) {
	pool, err := o.kept(ctx, w)
	if err != nil {
		return nil, err
	}
	name := pool.Name()
	return latency(w, manySamples, func() (took time.Duration, err error) {
		start, pool := time.Now(), pool
		if o.client != nil {
			c, err := client.Dial(ctx, o.addr)
			if err != nil {
				return 0, err
			}
			defer c.Close()
			if pool, err = c.Pool(ctx, name); err != nil {
				return 0, err
			}
		}
		got, err := client.Map(ctx, pool, nextFunc, []int{0})
		took = time.Since(start)
		return took, errors.Join(err, checkNext(got, 1))
	}, 50, 99)
}

// crash lets a worker of a new pool die each time, so that no back-off of its slot is measured. The pool must go on.
func (o *ours) crash(ctx context.Context, w work) (*answer, error) {
	return latency(w, 4*fewSamples, func() (time.Duration, error) {
		pool, err := o.open(ctx, w.Workers)
		if err != nil {
			return 0, err
		}
		_, err = applied(ctx, pool, 1)
		start := time.Now()
		_, died := client.Apply(ctx, pool, dieFunc, 0)
		took := time.Since(start)
		if !errors.Is(died, client.ErrWorkerLost) {
			err = errors.Join(err, fmt.Errorf("a task whose worker was killed ended with %q, want %w", fmt.Sprint(died), client.ErrWorkerLost))
		}
		_, after := applied(ctx, pool, 2)
		return took, errors.Join(err, after, pool.Terminate())
	}, 50, 99)
}

// recycleEvery is after how many tasks a worker is replaced, and dozeUS what each of them sleeps, in microseconds.
const (
	recycleEvery = 25
	dozeUS       = 100
)

// recycle is what replacing workers costs: naps one after the other.
func (o *ours) recycle(ctx context.Context, w work) (*answer, error) {
	return o.replacing(ctx, w, func(pool *client.Pool) ([]float64, error) {
		start := time.Now()
		naps, err := client.Map(ctx, pool, dozeFunc, slices.Repeat([]int{dozeUS}, w.Items), client.ChunkSize(1))
		took := time.Since(start)
		return []float64{float64(len(naps)) / took.Seconds()}, errors.Join(err, checkNaps(naps, dozeUS))
	})
}

// recyclePaced is recycle with naps that come at a rate of their own, and what passes from the moment at which one was due to its result.
func (o *ours) recyclePaced(ctx context.Context, w work) (*answer, error) {
	return o.replacing(ctx, w, func(pool *client.Pool) ([]float64, error) {
		start := time.Now()
		due := func(i int) time.Time { return start.Add(time.Duration(i) * time.Second / time.Duration(w.Rate)) }
		paced := func(yield func(int) bool) {
			for i := range w.Items {
				if pause(ctx, time.Until(due(i))) != nil || !yield(dozeUS) {
					return
				}
			}
		}
		var naps []int
		var late []time.Duration
		for out, err := range client.IMapUnordered(ctx, pool, dozeFunc, paced, client.ChunkSize(1)) {
			if err != nil || out.Err != nil {
				return nil, errors.Join(err, out.Err)
			}
			naps, late = append(naps, out.Value), append(late, time.Since(due(out.Index)))
		}
		took := time.Since(start)
		if len(naps) != w.Items {
			return nil, wrong("all", w.Items, len(naps), w.Items)
		}
		slices.Sort(late)
		return []float64{float64(len(naps)) / took.Seconds(), percentile(late, 95).Seconds()}, checkNaps(naps, dozeUS)
	})
}

// replacing runs the same on a pool whose workers stay, and on one whose workers are replaced all the time. The first figure of run is a rate; the answer
// says how much of it is left.
func (o *ours) replacing(ctx context.Context, w work, run func(*client.Pool) ([]float64, error)) (*answer, error) {
	var got [2][]float64
	for i, opts := range [][]client.PoolOption{nil, {client.MaxTasksPerWorker(recycleEvery), client.Spares(w.Workers)}} {
		pool, err := o.open(ctx, w.Workers, opts...)
		if err != nil {
			return nil, err
		}
		_, err = client.Map(ctx, pool, dozeFunc, slices.Repeat([]int{dozeUS}, w.Workers), client.ChunkSize(1)) // they are there
		if err == nil {
			got[i], err = run(pool)
		}
		if err = errors.Join(err, pool.Terminate()); err != nil {
			return nil, err
		}
	}
	stay, replaced := got[0], got[1]
	a := &answer{Values: values(stay[0], replaced[0], replaced[0]/stay[0]), Checked: 2 * w.Items}
	for i := range stay[1:] {
		a.Values = append(a.Values, values(stay[i+1], replaced[i+1])...)
	}
	return a, nil
}
