package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/workerproc"
)

var calls int

var ident = workerproc.Func("ident", func(_ context.Context, i int) (int, error) {
	if calls++; os.Getenv("PROFW") != "" {
		if calls == 1000 {
			f, _ := os.Create(os.Getenv("PROFW"))
			pprof.StartCPUProfile(f)
		}
		if calls == 1000000 {
			pprof.StopCPUProfile()
		}
	}
	return i, nil
})

func main() {
	workerproc.Main()
	ctx := context.Background()
	if p := os.Getenv("PROF"); p != "" {
		f, _ := os.Create(p)
		pprof.StartCPUProfile(f)
		defer pprof.StopCPUProfile()
	}
	t0 := time.Now()
	pool, err := local.OpenPool(ctx, client.Workers(2))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Terminate()
	if _, err := client.Apply(ctx, pool, ident, 1); err != nil {
		log.Fatal(err)
	}
	fmt.Println("cold start first result", time.Since(t0))
	items := make([]int, 1000000)
	for i := range items {
		items[i] = i
	}
	which := "all"
	if len(os.Args) > 1 {
		which = os.Args[1]
	}
	run := func(name string, n int, f func()) {
		if which != "all" && which != name {
			return
		}
		for range 3 {
			t := time.Now()
			f()
			d := time.Since(t)
			fmt.Printf("%-14s %9.0f/s  %v\n", name, float64(n)/d.Seconds(), d)
		}
	}
	m := func(n int, opts ...client.CallOption) func() {
		return func() {
			r, err := client.Map(ctx, pool, ident, items[:n], opts...)
			if err != nil {
				log.Fatal(err)
			}
			for i := range r {
				if r[i] != i {
					log.Fatal("wrong", i, r[i])
				}
			}
		}
	}
	run("auto", 1000000, m(1000000))
	run("chunk10", 300000, m(300000, client.ChunkSize(10)))
	run("chunk1", 100000, m(100000, client.ChunkSize(1)))
	run("async", 100000, func() {
		rs := make([]*client.Result[int], 100000)
		for i := range rs {
			rs[i] = client.ApplyAsync(ctx, pool, ident, i)
		}
		for i, r := range rs {
			v, err := r.Get(ctx)
			if err != nil || v != i {
				log.Fatal(v, err)
			}
		}
	})
	if which == "all" || which == "apply" {
		var ds []time.Duration
		for i := range 3000 {
			t := time.Now()
			client.Apply(ctx, pool, ident, i)
			ds = append(ds, time.Since(t))
		}
		slices.Sort(ds)
		fmt.Println("apply p50", ds[1500], "p99", ds[2970])
	}
}
