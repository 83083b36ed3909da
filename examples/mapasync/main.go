// MapAsync: do something else while the workers count, then get the result, as in Pool.map_async.
//
//	go run ./examples/mapasync README.md go.mod
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"unicode/utf8"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/workerproc"
)

var countChars = workerproc.Func("count_chars", func(_ context.Context, file string) (int, error) {
	b, err := os.ReadFile(file)
	return utf8.RuneCount(b), err
})

func main() {
	workerproc.Main()
	files := os.Args[1:]
	if len(files) == 0 {
		files = []string{"README.md", "go.mod", "LICENSE", "go.sum"}
	}
	ctx := context.Background()
	pool, err := local.OpenPool(ctx, client.Workers(2))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Terminate()

	result := client.MapAsync(ctx, pool, countChars, files)
	fmt.Println("the workers are counting…")
	lengths, err := result.Get(ctx)
	if err != nil {
		log.Print(err)
	}
	fmt.Println(lengths)
}
