// Lines: a client of a pool of line workers, programs in any language that answer a line with a line (count.py, count.pl, count.awk and
// count.sh beside this file).
//
//	go build -o bin/ ./cmd/... && bin/procpoold &
//	bin/procpool create count -j 2 --lines -- python3 examples/lines/count.py
//	go run ./examples/lines count README.md go.mod
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/procpool/procpool/client"
)

// count is the one function of a line worker: text in, text out.
var count = client.Func[string, string]("line")

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: lines POOL FILE…")
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
	results, err := client.Map(ctx, pool, count, os.Args[2:])
	if err != nil {
		log.Print(err) // the other files have their result all the same
	}
	for i, lines := range results {
		fmt.Println(lines, os.Args[2+i])
	}
}
