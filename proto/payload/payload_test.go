package payload

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

func roundTrip[T any](t *testing.T, values ...T) {
	t.Helper()
	e := For[T]()
	for _, want := range values {
		b, err := e.Append([]byte("before"), want)
		if err != nil {
			t.Errorf("%T %v: %v", want, want, err)
			continue
		}
		if !strings.HasPrefix(string(b), "before") {
			t.Errorf("%T %v: Append lost what was there: %q", want, want, b)
		}
		got, err := e.Decode(b[len("before"):])
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%T %v came back as %v (%v) by way of %q", want, want, got, err, b)
		}
	}
}

func TestValuesComeBack(t *testing.T) {
	roundTrip(t, 0, 1, -1, 42, 1234567, 12345678, -12345678, 123456789, 9876543210987654, math.MaxInt, math.MinInt, 999999999999999999, -999999999999999999)
	roundTrip[int8](t, 0, 127, -128)
	roundTrip[uint64](t, 0, 7, math.MaxUint64)
	roundTrip(t, 0.0, 1.5, -2e300, 5e-324, 1e21, 123456789)
	roundTrip(t, true, false)
	roundTrip(t, "", "plain", "käse", `quo"te\`, "line\nbreak", "\u2028", strings.Repeat("x", 1000))
	roundTrip(t, []byte{}, []byte{0, 1, 255})
	roundTrip(t, [2]int{1, 2})
	roundTrip(t, struct{ A, B string }{"a", "b"})
	roundTrip(t, map[string][]int{"x": {1}})
}

func TestEncodingIsChosenByType(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{For[int]().Name, NameJSON}, {For[[]byte]().Name, NameBytes}, {For[*pb.Batch]().Name, NameProto}, {For[struct{}]().Name, NameJSON},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestProtoMessagesComeBack(t *testing.T) {
	e := For[*pb.Batch]()
	b, err := e.Append(nil, &pb.Batch{Data: []byte("x"), Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Decode(b); err != nil || string(got.Data) != "x" || got.Count != 1 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestWhatJSONCannotHoldIsAnError(t *testing.T) {
	if _, err := For[float64]().Append(nil, math.NaN()); err == nil {
		t.Error("NaN was encoded")
	}
	if _, err := For[string]().Append(nil, "\xff"); err == nil {
		t.Error("a string that is not UTF-8 was encoded")
	}
	for _, bad := range []string{"", "x", "1x", "01", "1.5", "300"} {
		if v, err := For[uint8]().Decode([]byte(bad)); err == nil {
			t.Errorf("%q was decoded as uint8 %d", bad, v)
		}
	}
}

// FuzzDecode: the fast paths accept what encoding/json accepts, and read the same.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"1", "-0", "1e3", `"a"`, `"\u00e4"`, "true", "null", " 1", "0x1", "1_000", "Inf", "1.5",
		"12345678", "1234567:", "/2345678", "123\xb05678", "-1234567890123456"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		same(t, b, For[int]().Decode)
		same(t, b, For[uint8]().Decode)
		same(t, b, For[float64]().Decode)
		same(t, b, For[bool]().Decode)
		same(t, b, For[string]().Decode)
	})
}

func same[T comparable](t *testing.T, b []byte, decode func([]byte) (T, error)) {
	t.Helper()
	var want T
	wantErr := json.Unmarshal(b, &want)
	got, err := decode(b)
	if (err == nil) != (wantErr == nil) || (err == nil && got != want) {
		t.Errorf("%T from %q: got %v, %v; encoding/json has %v, %v", want, b, got, err, want, wantErr)
	}
}

func BenchmarkInt(b *testing.B) {
	e := For[int]()
	b.ReportAllocs()
	var buf []byte
	for i := 0; b.Loop(); i++ {
		buf, _ = e.Append(buf[:0], i)
		if _, err := e.Decode(buf); err != nil {
			b.Fatal(err)
		}
	}
}
