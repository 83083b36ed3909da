package lines

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// However the bytes come, the same lines come out, and a line over the limit is only counted.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte("a\nbb\n\nlong line that is too long\nrest"), 3)
	f.Add([]byte(strings.Repeat("x", 300_000)+"\ny\n"), 100_000)
	f.Fuzz(func(t *testing.T, input []byte, piece int) {
		const limit = 10
		piece = max(1, piece)
		a := answers{end: '\n', limit: limit}
		var got []int
		for rest := input; len(rest) > 0; {
			room := a.room()
			if len(room) == 0 {
				t.Fatal("no room to read into")
			}
			n := copy(room, rest[:min(piece, len(rest))])
			a.filled(n)
			rest = rest[n:]
			for line, size, ok := a.next(); ok; line, size, ok = a.next() {
				if size <= limit && len(line) != size {
					t.Fatalf("a line of %d bytes has a size of %d", len(line), size)
				}
				got = append(got, size)
			}
		}
		var want []int
		all := bytes.Split(input, []byte("\n"))
		for _, line := range all[:len(all)-1] {
			want = append(want, len(line))
		}
		if !slices.Equal(got, want) || a.partial() != len(all[len(all)-1]) {
			t.Errorf("got lines of %v and %d more bytes, want %v and %d", got, a.partial(), want, len(all[len(all)-1]))
		}
	})
}

func TestArgsAreReadAsTheyWereMade(t *testing.T) {
	t.Parallel()
	for _, s := range []Spec{
		{Command: []string{"a"}, Form: Strings}, {Command: []string{"a", "--", "-x", ""}, Form: Values, Null: true}, {Command: []string{"a"}, Form: Bytes},
	} {
		got, err := parse(s.Args()[1:])
		if err != nil || !slices.Equal(got.Command, s.Command) || got.Form != s.Form || got.Null != s.Null {
			t.Errorf("got %+v, %v, want %+v", got, err, s)
		}
	}
	for _, args := range [][]string{nil, {"strings", "newline"}, {"words", "newline", "a"}, {"strings", "crlf", "a"}} {
		if got, err := parse(args); err == nil {
			t.Errorf("%q: got %+v, want an error", args, got)
		}
	}
}
