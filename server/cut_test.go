package server_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"

	"github.com/procpool/procpool/client"
	"google.golang.org/grpc/codes"
)

// A call that ends before its client has sent all its items has not ended well: those that are under way will have no outcome.
func TestACallThatIsCutSaysWhy(t *testing.T) {
	for how, row := range map[string]struct {
		cut  func(ctx context.Context, p *pool, call string) error
		code codes.Code
		want error
	}{
		"cancelled":  {func(ctx context.Context, p *pool, call string) error { return p.d.Cancel(ctx, call) }, codes.Canceled, client.ErrCancelled},
		"terminated": {func(_ context.Context, p *pool, _ string) error { return p.Terminate() }, codes.Aborted, client.ErrPoolTerminated},
	} {
		t.Run(how, func(t *testing.T) {
			p, other := shared(t)
			more := make(chan struct{})
			defer close(more)
			input := func(yield func(string) bool) {
				if yield("a") {
					<-more
				}
			}
			ended := make(chan error, 1)
			go func() {
				var last error
				for _, err := range client.IMap(t.Context(), other, do, iter.Seq[string](input)) {
					last = err
				}
				ended <- last
			}()
			call := ""
			eventually(t, func() string {
				calls, err := p.d.Calls(t.Context(), "shared")
				if err != nil || len(calls) != 1 || calls[0].DoneTasks != 1 {
					return fmt.Sprintf("the calls are %v, %v; want one with an outcome", calls, err)
				}
				call = calls[0].Id
				return ""
			})
			if err := row.cut(t.Context(), p, call); err != nil {
				t.Error(err)
			}
			err := <-ended
			var refused *client.RefusedError
			if !errors.Is(err, row.want) || !errors.As(err, &refused) || refused.Code != row.code {
				t.Errorf("the loop ended with %v, want %v by %v", err, row.want, row.code)
			}
		})
	}
}

// So it is when the daemon has heard the last items and their end, and has not come to look at them when the call ends: they have no outcome.
func TestACallThatIsCutBeforeItsLastItemsAreSeenSaysWhy(t *testing.T) {
	for how, row := range map[string]struct {
		terminate bool
		want      error
	}{
		"cancelled":  {false, client.ErrCancelled},
		"terminated": {true, client.ErrPoolTerminated},
	} {
		t.Run(how, func(t *testing.T) {
			p, other := shared(t)
			more := make(chan struct{})
			input := func(yield func(string) bool) {
				if yield("a") {
					<-more
					yield("b")
				}
			}
			var err error
			outcomes := 0
			for out, e := range client.IMap(t.Context(), other, do, iter.Seq[string](input)) {
				if err = e; err != nil {
					break
				}
				if outcomes++; out.Value != "A" || out.Err != nil {
					t.Errorf("got %q, %v, want the result of the first item", out.Value, out.Err)
				}
				if err := p.d.server.Cut("shared", row.terminate, 2); err != nil {
					t.Fatal(err)
				}
				close(more)
			}
			if outcomes != 1 || !errors.Is(err, row.want) {
				t.Errorf("%d outcomes, and the loop ended with %v, want one and %v", outcomes, err, row.want)
			}
		})
	}
}

// shared is a pool of one worker, and the same for a client that hears of its calls only.
func shared(t *testing.T) (p *pool, other *client.Pool) {
	t.Helper()
	p = serve(t).open(t, "", client.Name("shared"), client.Workers(1))
	other, err := p.d.Pool(t.Context(), "shared")
	if err != nil {
		t.Fatal(err)
	}
	return p, other
}
