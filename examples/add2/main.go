// Chunk size: communication is expensive, so tasks travel in chunks, as in pool.map(…, chunksize=10). The function does not notice.
// Without ChunkSize the daemon finds a good size by itself.
//
//	go run ./examples/add2
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/workerproc"
)

var add2 = workerproc.Func("add2", func(_ context.Context, i int) (int, error) { return i + 2, nil })

func add2ForAll(ctx context.Context, numbers []int) ([]int, error) {
	pool, err := local.OpenPool(ctx)
	if err != nil {
		return nil, err
	}
	defer pool.Terminate()
	return client.Map(ctx, pool, add2, numbers, client.ChunkSize(10))
}

func main() {
	workerproc.Main()
	numbers := make([]int, 1000)
	for i := range numbers {
		numbers[i] = i
	}
	sums, err := add2ForAll(context.Background(), numbers)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(sums[0], sums[1], "…", sums[len(sums)-1])
}
