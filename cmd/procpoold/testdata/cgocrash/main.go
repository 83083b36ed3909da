// Cgocrash is a worker whose C code crashes when it is told to.
package main

/*
#include <stdlib.h>

static int crash(int how) {
	switch (how) {
	case 1: return *(volatile int *)8; // where nothing is
	case 2: abort();
	case 3: exit(3);
	}
	return how;
}
*/
import "C"

import (
	"context"

	"github.com/procpool/procpool/workerproc"
)

var _ = workerproc.Func("crash", func(_ context.Context, how int) (int, error) { return int(C.crash(C.int(how))), nil })

func main() { workerproc.Main() }
