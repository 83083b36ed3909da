// By name: a client of a running daemon that knows the names of a pool and a function, and links none of the worker's code.
//
//	go run ./cmd/procpoold &
//	go build -o countchars ./examples/countchars
//	go run ./cmd/procpool create counting -j 2 -- ./countchars
//	go run ./examples/byname counting README.md go.mod
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/procpool/procpool/client"
)

var countChars = client.Func[string, int]("count_chars")

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: byname POOL FILE…")
	}
	ctx := context.Background()
	c, err := client.Dial(ctx, "") // the running daemon
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	pool, err := c.Pool(ctx, os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	files := absolute(os.Args[2:])
	for out, err := range client.IMap(ctx, pool, countChars, values(files)) {
		switch {
		case err != nil:
			log.Fatal(err)
		case out.Err != nil:
			fmt.Println(out.Err)
		default:
			fmt.Println(out.Value, os.Args[2:][out.Index])
		}
	}
}
