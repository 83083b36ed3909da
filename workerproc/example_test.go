package workerproc_test

import (
	"context"
	"fmt"
	"os"
	"unicode/utf8"

	"github.com/procpool/procpool/workerproc"
)

var countChars = workerproc.Func("count_chars", func(_ context.Context, file string) (int, error) {
	b, err := os.ReadFile(file)
	return utf8.RuneCount(b), err
})

var double = workerproc.Func("double", func(_ context.Context, n int) (int, error) { return 2 * n, nil })

// A function is registered in a package-level variable. It can be called without a pool as well.
func ExampleFunc() {
	n, err := double.Call(context.Background(), 21)
	fmt.Println(double.Name(), n, err)
	// Output: double 42 <nil>
}

// Main comes first. In a worker it never returns; in a process that a person has started it does nothing.
func ExampleMain() {
	workerproc.Main()

	// From here on the program is a client: client.Map(ctx, pool, countChars, files)
	fmt.Println("the client calls", countChars.Name())
	// Output: the client calls count_chars
}

// What all tasks of a worker need is made once, before the first of them.
func ExampleInit() {
	type settings struct{ Dictionary string }
	var words []byte

	// In a program, this is in an init function or at the beginning of main, before Main.
	_ = func() {
		workerproc.Init(func(_ context.Context, s settings) (err error) {
			words, err = os.ReadFile(s.Dictionary)
			return err
		})
	}
	fmt.Println(len(words))
	// Output: 0
}

// A function may tell its caller how it is getting on.
func ExampleOutput() {
	build := func(ctx context.Context, packages []string) (int, error) {
		out := workerproc.Output(ctx, 1)
		for _, p := range packages {
			if _, err := fmt.Fprintln(out, "building", p); err != nil {
				return 0, err // the task has been cancelled
			}
		}
		return len(packages), nil
	}
	n, err := build(context.Background(), []string{"a", "b"}) // without a task, the output goes nowhere
	fmt.Println(n, err)
	// Output: 2 <nil>
}
