// Process: one function call in a process of its own, as in multiprocessing.Process.
//
//	go run ./examples/process
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/workerproc"
)

var add = workerproc.Func("add", func(_ context.Context, args [2]int) (int, error) {
	fmt.Println(args[0] + args[1]) // a worker's output is its client's output
	return args[0] + args[1], nil
})

func main() {
	workerproc.Main()
	ctx := context.Background()
	p := local.NewProcess(add, [2]int{1, 2})
	if err := p.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if err := p.Join(ctx); err != nil { // waits for it to complete
		log.Fatal(err)
	}
	code, _ := p.ExitCode()
	fmt.Println("exit code", code)
}
