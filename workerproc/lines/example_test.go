package lines_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/workerproc/lines"
)

// A pool of line workers inside a program whose main begins with lines.Main.
func Example() {
	ctx := context.Background()
	self, err := os.Executable()
	if err != nil {
		log.Fatal(err)
	}
	program := lines.Spec{Command: []string{"sh", "-c", `while read -r line; do echo "<$line>"; done`}}
	pool, err := local.OpenPool(ctx, client.Workers(2), client.Program(self, program.Args()...))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Terminate()
	results, err := client.Map(ctx, pool, client.Func[string, string](lines.Function), []string{"a", "b"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(results)
	// Output: [<a> <b>]
}
