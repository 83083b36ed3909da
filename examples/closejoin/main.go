// Close and join: let every task end before the pool goes, as in pool.close(); pool.join().
//
//	go run ./examples/closejoin
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/workerproc"
)

var square = workerproc.Func("square", func(_ context.Context, i int) (int, error) { return i * i, nil })

func main() {
	workerproc.Main()
	ctx := context.Background()
	pool, err := local.OpenPool(ctx, client.Workers(2))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Terminate() // ensures that no process is left running, whatever happens below

	var results []*client.Result[int]
	for i := range 10 {
		results = append(results, client.ApplyAsync(ctx, pool, square, i))
	}
	if err := pool.Close(); err != nil { // no more tasks; must come before Join
		log.Fatal(err)
	}
	if err := pool.Join(ctx); err != nil { // waits until the tasks are done and the workers have gone
		log.Fatal(err)
	}
	for _, r := range results {
		n, err := r.Get(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(n)
	}
}
