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

// recycleEvery is after how many tasks a worker is replaced.
const recycleEvery = 25

// recycle is what replacing workers costs: the same naps on a pool whose workers stay, and on one whose workers are replaced all the time.
func (o *ours) recycle(ctx context.Context, w work) (*answer, error) {
	const us = 100
	run := func(opts ...client.PoolOption) (float64, error) {
		pool, err := o.open(ctx, w.Workers, opts...)
		if err != nil {
			return 0, err
		}
		_, err = client.Map(ctx, pool, dozeFunc, slices.Repeat([]int{us}, w.Workers), client.ChunkSize(1))
		start := time.Now()
		naps, mapped := client.Map(ctx, pool, dozeFunc, slices.Repeat([]int{us}, w.Items), client.ChunkSize(1))
		took := time.Since(start)
		return float64(len(naps)) / took.Seconds(), errors.Join(err, mapped, checkNaps(naps, us), pool.Terminate())
	}
	stay, err := run()
	if err != nil {
		return nil, err
	}
	replaced, err := run(client.MaxTasksPerWorker(recycleEvery), client.Spares(w.Workers))
	if err != nil {
		return nil, err
	}
	return &answer{Values: values(stay, replaced, replaced/stay), Checked: 2 * w.Items}, nil
}
