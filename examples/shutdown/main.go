// Clean shutdown: whatever goes wrong, no process is left running, as with the with-statement.
//
//	go run ./examples/shutdown
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/workerproc"
)

var (
	pid = workerproc.Func("pid", func(context.Context, int) (int, error) { return os.Getpid(), nil })
	nap = workerproc.Func("nap", func(ctx context.Context, d time.Duration) (bool, error) {
		select {
		case <-time.After(d):
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	})
)

// work starts something long and then fails.
func work(ctx context.Context) (workers []int, err error) {
	pool, err := local.OpenPool(ctx, client.Workers(2))
	if err != nil {
		return nil, err
	}
	var told sync.WaitGroup
	defer told.Wait()      // a callback comes after its result
	defer pool.Terminate() // runs whether or not the body fails
	if workers, err = client.Map(ctx, pool, pid, []int{1, 2, 3, 4}); err != nil {
		return nil, err
	}
	unfinished := client.ApplyAsync(ctx, pool, nap, time.Hour)
	told.Add(1)
	unfinished.OnError(func(err error) {
		defer told.Done()
		fmt.Println("the nap ends early:", err)
	})
	return workers, errors.New("something went wrong")
}

func main() {
	workerproc.Main()
	workers, err := work(context.Background())
	fmt.Println("error:", err)
	for _, pid := range workers {
		if syscall.Kill(pid, 0) == nil {
			log.Fatalf("worker %d is still there", pid)
		}
	}
	fmt.Println("no worker is left")
}
