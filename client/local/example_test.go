package local_test

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

// The README's program. Here the workers are the test program, whose TestMain calls workerproc.Main first, as main does in examples/countchars.
func Example() {
	files := []string{"../../LICENSE", "no-such-file"}
	ctx := context.Background()
	pool, err := local.OpenPool(ctx, client.Workers(2)) // an embedded daemon; this program is the worker
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Terminate() // what `with Pool()` does on exit
	lengths, err := client.Map(ctx, pool, countChars, files)
	if err != nil {
		fmt.Println(err) // the other files have their result all the same
	}
	for i, file := range files {
		fmt.Println(lengths[i], file)
	}
	// Output:
	// task 1: open no-such-file: no such file or directory
	// 11358 ../../LICENSE
	// 0 no-such-file
}

// Inline serves the same calls by goroutines of this process: set a breakpoint in the function, or test what calls it.
func ExampleInline() {
	ctx := context.Background()
	pool, err := local.Inline(ctx, client.Workers(2))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Terminate()
	fmt.Println(client.Map(ctx, pool, square, []int{1, 2, 3}))
	// Output: [1 4 9] <nil>
}

// A process of its own for one function call, as multiprocessing.Process is.
func ExampleNewProcess() {
	ctx := context.Background()
	p := local.NewProcess(square, 12)
	if err := p.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if err := p.Join(ctx); err != nil {
		log.Fatal(err)
	}
	code, _ := p.ExitCode()
	result, err := p.Result()
	fmt.Println(code, result, err)
	// Output: 0 144 <nil>
}
