package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/procpool/procpool/client"
)

// A job and its result, as they travel: in JSON.
type (
	Job   struct{ Path string }
	Thumb struct{ Width, Height int }
)

var thumb = client.Func[Job, Thumb]("make_thumb") // this program does not contain the worker's code

func ExampleDial() {
	ctx := context.Background()
	c, err := client.Dial(ctx, "") // the running daemon
	if err != nil {
		log.Fatal(err) // says what was tried, and asks whether procpoold runs
	}
	defer c.Close()
	pool, err := c.Pool(ctx, "thumbs")
	if err != nil {
		log.Fatal(err)
	}
	t, err := client.Apply(ctx, pool, thumb, Job{"cat.png"}, client.TaskTimeout(time.Minute))
	fmt.Println(t, err)
}

func ExampleMap() {
	ctx := context.Background()
	var pool *client.Pool // from Client.Pool, Client.OpenPool or local.OpenPool
	jobs := []Job{{"a.png"}, {"b.png"}, {"c.png"}}
	thumbs, err := client.Map(ctx, pool, thumb, jobs)
	var failed *client.MapError
	if errors.As(err, &failed) {
		for _, t := range failed.Errors {
			log.Println(jobs[t.Index].Path, t) // the others have their thumbs
		}
	}
	fmt.Println(thumbs)
}

func ExampleMapAsync() {
	ctx := context.Background()
	var pool *client.Pool
	r := client.MapAsync(ctx, pool, thumb, []Job{{"a.png"}, {"b.png"}})
	r.OnSuccess(func(thumbs []Thumb) { fmt.Println(thumbs) })
	r.OnError(func(err error) { log.Println(err) })

	short, cancel := context.WithTimeout(ctx, time.Second) // for the waiting; the work goes on
	defer cancel()
	if _, err := r.Get(short); errors.Is(err, context.DeadlineExceeded) {
		log.Println("not yet")
	}
}

func ExampleIMap() {
	ctx := context.Background()
	var pool *client.Pool
	lines := bufio.NewScanner(os.Stdin)
	jobs := func(yield func(Job) bool) { // drawn lazily: standard input may be endless
		for lines.Scan() && yield(Job{lines.Text()}) {
		}
	}
	for out, err := range client.IMap(ctx, pool, thumb, jobs) {
		if err != nil {
			log.Fatal(err) // of the call itself, last
		}
		if out.Err != nil {
			log.Println(out.Err) // of one task; the loop goes on
			continue
		}
		fmt.Println(out.Index, out.Value)
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
}

func ExampleApplyAsync() {
	ctx := context.Background()
	var pool *client.Pool
	var results []*client.Result[Thumb]
	for _, path := range []string{"a.png", "b.png"} {
		results = append(results, client.ApplyAsync(ctx, pool, thumb, Job{path}))
	}
	for _, r := range results {
		t, err := r.Get(ctx)
		switch {
		case errors.Is(err, client.ErrWorkerLost):
			log.Println("it crashes:", err)
		case err != nil:
			log.Println(err)
		default:
			fmt.Println(t)
		}
	}
}
