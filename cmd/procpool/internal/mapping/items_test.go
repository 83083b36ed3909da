package mapping

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/procpool/procpool/proto/wire"
)

func TestItemsOfAFile(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 200_000) // more than the reader's buffer
	for _, c := range []struct {
		name, in string
		delim    byte
		skip     bool
		want     []string
	}{
		{"nothing", "", '\n', true, nil},
		{"lines", "a\nb c\n", '\n', true, []string{"a", "b c"}},
		{"the last line need not end", "a\nb", '\n', true, []string{"a", "b"}},
		{"empty lines are skipped", "\na\n\n\nb\n\n", '\n', true, []string{"a", "b"}},
		{"unless they count", "\na\n\nb\n", '\n', false, []string{"", "a", "", "b"}},
		{"no quoting, no trimming", " 'a' \\\t\"\r\n", '\n', true, []string{" 'a' \\\t\"\r"}},
		{"NUL", "a\nb\x00\x00c", 0, false, []string{"a\nb", "", "c"}},
		{"long lines", long + "\n" + long, '\n', true, []string{long, long}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for name, r := range map[string]io.Reader{"at once": strings.NewReader(c.in), "byte by byte": iotest.OneByteReader(strings.NewReader(c.in))} {
				in := readItems(t.Context(), r, "test", c.delim, c.skip)
				if got := slices.Collect(in.seq); !slices.Equal(got, c.want) || in.err() != nil {
					t.Errorf("read %s: got %q, %v; want %q", name, got, in.err(), c.want)
				}
			}
		})
	}
}

func TestItemsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	in := readItems(t.Context(), io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)), "test", '\n', true)
	if got := slices.Collect(in.seq); !slices.Equal(got, []string{"a"}) || !errors.Is(in.err(), broken) {
		t.Errorf("got %q, %v; want [a] and the error of the read", got, in.err())
	}
	in = readItems(t.Context(), io.LimitReader(endless{}, 2*wire.MaxItem), "test", '\n', true)
	if got := slices.Collect(in.seq); got != nil || !errors.Is(in.err(), errLongItem) {
		t.Errorf("an endless line: got %d items, %v; want %v", len(got), in.err(), errLongItem)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestItemsEndWithTheContextWhileAReadBlocks(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = io.WriteString(w, "a\n") }()
	var got []string
	for item := range readItems(ctx, r, "test", '\n', true).seq {
		got = append(got, item)
		cancel() // nothing more will come, and the pipe stays open
	}
	if !slices.Equal(got, []string{"a"}) {
		t.Errorf("got %q, want [a]", got)
	}
}

func TestSplitArgs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args, command, items string
		given, bad           bool
	}{
		{args: "wc -m", command: "wc -m"},
		{args: "wc -m {} ::: a b", command: "wc -m {}", items: "a b", given: true},
		{args: "wc :::", command: "wc", given: true},
		{args: "::: a", items: "a", given: true},
		{args: "wc ::: a ::: b", bad: true},
		{args: "wc ::: a b :::+ c d", bad: true},
		{args: "wc :::: list", bad: true},
	} {
		command, items, given, err := splitArgs(strings.Fields(c.args))
		got := strings.Join(command, " ") + "/" + strings.Join(items, " ")
		if want := c.command + "/" + c.items; got != want || given != c.given || (err != nil) != c.bad {
			t.Errorf("%s: got %s, %v, %v; want %s, %v, error %v", c.args, got, given, err, want, c.given, c.bad)
		}
	}
}
