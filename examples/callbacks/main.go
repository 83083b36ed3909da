// Callbacks: have a function called with the results, or with the error, as in Pool.map_async(callback=…, error_callback=…).
//
//	go run ./examples/callbacks README.md go.mod
//	go run ./examples/callbacks no-such-file
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

	called := make(chan struct{})
	result := client.MapAsync(ctx, pool, countChars, files)
	result.OnSuccess(func(lengths []int) {
		fmt.Println("Get result", lengths)
		close(called)
	})
	result.OnError(func(err error) {
		fmt.Println("Throw exception", err)
		close(called)
	})
	if err := result.Wait(ctx); err != nil { // for the task to complete; the callback comes right after
		log.Fatal(err)
	}
	<-called
}
