package mapping

import (
	"context"
	"testing"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

func TestAFunctionIsAwaitedUntilAWorkerHasSaidWhichThereAre(t *testing.T) {
	t.Parallel()
	open := pb.PoolState_POOL_STATE_OPEN
	for _, c := range []struct {
		name  string
		infos []*pb.Pool // what the pool says, one after the other
		want  string     // the encoding
	}{
		{"it is there", []*pb.Pool{{State: open, Functions: []*pb.PoolFunction{{Name: "f", Encoding: "json"}}}}, "json"},
		{"after a while", []*pb.Pool{{State: open, Starting: 1}, {State: open, Idle: 1, Functions: []*pb.PoolFunction{{Name: "f", Encoding: "bytes"}}}}, "bytes"},
		{"there are others", []*pb.Pool{{State: open, Functions: []*pb.PoolFunction{{Name: "g", Encoding: "json"}}}}, ""},
		{"there are none", []*pb.Pool{{State: open, Starting: 1}, {State: open, Busy: 1}}, ""},
		{"no worker comes up", []*pb.Pool{{State: open, Starting: 1}, {State: pb.PoolState_POOL_STATE_DEGRADED}}, ""},
	} {
		looks := 0
		look := func(context.Context) (*pb.Pool, error) {
			looks++
			if looks > len(c.infos) {
				t.Fatalf("%s: it looks once more", c.name)
			}
			return c.infos[looks-1], nil
		}
		fn, err := findFunction(t.Context(), look, "f")
		if fn.encoding != c.want || err != nil || looks != len(c.infos) {
			t.Errorf("%s: got %q, %v after %d looks, want %q after %d", c.name, fn.encoding, err, looks, c.want, len(c.infos))
		}
	}
}
