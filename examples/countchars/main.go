// Map: count the characters of files in parallel, as in Pool.map.
//
//	go run ./examples/countchars README.md go.mod
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
	workerproc.Main() // in a worker process this serves and never returns
	files := os.Args[1:]
	if len(files) == 0 {
		files = []string{"README.md", "go.mod", "LICENSE", "go.sum"}
	}
	ctx := context.Background()
	pool, err := local.OpenPool(ctx, client.Workers(2)) // an embedded daemon; this program is the worker
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Terminate() // what `with Pool()` does on exit
	lengths, err := client.Map(ctx, pool, countChars, files)
	if err != nil {
		log.Print(err) // the other files have their result all the same
	}
	for i, file := range files {
		fmt.Println(lengths[i], file)
	}
}
