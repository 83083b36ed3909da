package records

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// cutAll cuts everything.
func cutAll(t testing.TB, c Cutter) (blocks []string) {
	t.Helper()
	for {
		var b bytes.Buffer
		more, err := c.Next(&b)
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			if b.Len() > 0 {
				t.Fatalf("%q is in no block", &b)
			}
			return blocks
		}
		blocks = append(blocks, b.String())
	}
}

func TestBlocks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, in, end, start string
		size, records        int
		want                 []string
	}{
		{"nothing", "", "\n", "", 4, 0, nil},
		{"lines that fit", "a\nb\nc\n", "\n", "", 4, 0, []string{"a\nb\n", "c\n"}},
		{"a line that does not", "a\nbbbbbbbb\nc\n", "\n", "", 4, 0, []string{"a\n", "bbbbbbbb\n", "c\n"}},
		{"no newline at the end", "a\nb", "\n", "", 10, 0, []string{"a\nb"}},
		{"one record without an end", "aaaaaaaaaa", "\n", "", 4, 0, []string{"aaaaaaaaaa"}},
		{"empty lines count", "\n\n\n\n\n", "\n", "", 2, 0, []string{"\n\n", "\n\n", "\n"}},
		{"NUL", "a\x00b\x00", "\x00", "", 2, 0, []string{"a\x00", "b\x00"}},
		{"a long end", "a--b--c--", "--", "", 4, 0, []string{"a--", "b--", "c--"}},
		{"a start", ">a\n>b\n>c\n", "", ">", 7, 0, []string{">a\n>b\n", ">c\n"}},
		{"a start, longer than a block", ">aaaaaaaaa>b>cc", "", ">", 4, 0, []string{">aaaaaaaaa", ">b", ">cc"}},
		{"an end and a start", "a\n b\n>c\n>d\n", "\n", ">", 8, 0, []string{"a\n b\n>c\n", ">d\n"}},
		{"anywhere", "abcdefghij", "", "", 4, 0, []string{"abcd", "efgh", "ij"}},
		{"by number", "a\nbbbbbbbb\nc\n", "\n", "", 4, 2, []string{"a\nbbbbbbbb\n", "c\n"}},
		{"by number, with a start", ">a>b>cccccc>d>e", "", ">", 3, 2, []string{">a>b", ">cccccc>d", ">e"}},
		{"by number, without an end", "a\nb\nc", "\n", "", 4, 2, []string{"a\nb\n", "c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for how, r := range map[string]io.Reader{"at once": strings.NewReader(c.in), "byte by byte": iotest.OneByteReader(strings.NewReader(c.in)),
				"data with EOF": iotest.DataErrReader(strings.NewReader(c.in))} {
				got := cutAll(t, Cutter{In: r, Size: c.size, Records: c.records, End: []byte(c.end), Start: []byte(c.start)})
				if !slices.Equal(got, c.want) {
					t.Errorf("read %s: got %q, want %q", how, got, c.want)
				}
			}
		})
	}
}

// TestBlocksLoseNothing cuts inputs that are full of separators and pieces of them, at random.
func TestBlocksLoseNothing(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		in := make([]byte, r.IntN(40))
		for i := range in {
			in[i] = "ab-"[r.IntN(3)]
		}
		ends, starts := []string{"-", "--", "-a", ""}, []string{"", "b", "a-", "aa"}
		c := Cutter{Size: 1 + r.IntN(12), Records: r.IntN(4), End: []byte(ends[r.IntN(4)]), Start: []byte(starts[r.IntN(4)])}
		if len(c.End)+len(c.Start) == 0 {
			c.Records = 0
		}
		var want []string
		for i, src := range []io.Reader{bytes.NewReader(in), iotest.OneByteReader(bytes.NewReader(in))} {
			one := c
			one.In = src
			got := cutAll(t, one)
			if all := strings.Join(got, ""); all != string(in) || slices.Contains(got, "") {
				t.Fatalf("seed %d: blocks %q of %q, with %+v", seed, got, in, c)
			}
			at := 0
			for _, b := range got[:max(len(got)-1, 0)] {
				at += len(b)
				if !bytes.HasSuffix(in[:at], c.End) || !bytes.HasPrefix(in[at:], c.Start) {
					t.Fatalf("seed %d: %q of %q does not end where a record does, with %+v", seed, b, in, c)
				}
			}
			if i > 0 && !slices.Equal(got, want) {
				t.Fatalf("seed %d: %q at once and %q byte by byte, of %q with %+v", seed, want, got, in, c)
			}
			want = got
		}
	}
}
