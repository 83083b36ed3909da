// Globals: a worker is a fresh process of the same program. It runs package initialisation, but nothing of main after
// workerproc.Main. What main changes afterwards, it does not see; what it should know is passed as an argument.
//
//	go run ./examples/globals
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/workerproc"
)

var msg = "Init"

var (
	readGlobal   = workerproc.Func("read_global", func(context.Context, struct{}) (string, error) { return msg, nil })
	readArgument = workerproc.Func("read_argument", func(_ context.Context, msg string) (string, error) { return msg, nil })
)

func main() {
	workerproc.Main() // everything above is the same in a worker, everything below happens here only
	msg = "Main"
	ctx := context.Background()
	pool, err := local.OpenPool(ctx, client.Workers(1))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Terminate()

	global, err := client.Apply(ctx, pool, readGlobal, struct{}{})
	if err != nil {
		log.Fatal(err)
	}
	argument, err := client.Apply(ctx, pool, readArgument, msg)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("here:", msg)
	fmt.Println("the worker's global:", global)
	fmt.Println("the worker's argument:", argument)
}
