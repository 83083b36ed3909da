package payload

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

// interesting integers: around every power of ten and of two.
func interesting() (list []int64) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := int64(1); n > 0 && n < math.MaxInt64/10; n *= 10 {
		list = append(list, n-1, n, n+1, -n, 1-n, rnd.Int64N(10*n), n*5-1)
	}
	for shift := range 63 {
		n := int64(1) << shift
		list = append(list, n, n-1, -n, -n-1, n+n>>1)
	}
	return append(list, 0, math.MaxInt64, math.MinInt64)
}

func testMany[T signed | natural](t *testing.T) {
	t.Helper()
	e := For[T]()
	var values []T
	for _, v := range interesting() {
		values = append(values, T(v))
	}
	var want, wantSizes []byte
	for _, v := range values {
		start := len(want)
		want, _ = e.Append(want, v)
		wantSizes = append(wantSizes, byte(len(want)-start))
	}
	data, sizes, n := e.AppendAll([]byte("before"), []byte{9}, values)
	if n != len(values) || string(data) != "before"+string(want) || string(sizes) != "\x09"+string(wantSizes) {
		t.Fatalf("%T: together they are %d, %q, sizes %v; one by one %q, sizes %v", values[0], n, data, sizes, want, wantSizes)
	}
	got, off := make([]T, len(values)), 0
	for n := 0; n < len(values); { // a number of more digits is left to Decode
		if k := e.DecodeAll(got[n:], want[off:], wantSizes[n:], 0); k > 0 {
			for _, s := range wantSizes[n : n+k] {
				off += int(s)
			}
			n += k
			continue
		}
		size := int(wantSizes[n])
		v, err := e.Decode(want[off : off+size])
		if err != nil || size < 19 {
			t.Fatalf("%T: %q was left over, and is %v, %v", v, want[off:off+size], v, err)
		}
		got[n] = v
		n++
		off += size
	}
	if !reflect.DeepEqual(got, values) {
		t.Errorf("got %v, want %v", got, values)
	}
}

func TestManyIntegersAreEncodedAsEachOfThem(t *testing.T) {
	testMany[int](t)
	testMany[int8](t)
	testMany[int16](t)
	testMany[int32](t)
	testMany[int64](t)
	testMany[uint](t)
	testMany[uint8](t)
	testMany[uint32](t)
	testMany[uint64](t)
}

func TestManyOfTheSameSize(t *testing.T) {
	got := make([]int, 4)
	if n := For[int]().DecodeAll(got, []byte("111222333444"), nil, 3); n != 4 || !reflect.DeepEqual(got, []int{111, 222, 333, 444}) {
		t.Errorf("got %d: %v", n, got)
	}
}

func TestWhatOnlyDecodeCanJudgeIsLeftToIt(t *testing.T) {
	for _, text := range []string{"", "-", "01", "007", "1a", "1.5", "null", " 1", "12345678901234567890", "/", ":", "-0"} {
		data := append([]byte("5"+text), "7777777777"...) // which must not be read as a part of it
		got := make([]int8, 3)
		if n := For[int8]().DecodeAll(got, data, []byte{1, byte(len(text)), 1}, 0); n != 1 && !(text == "-0" && n == 3) {
			t.Errorf("%q: %d were decoded, want the one before", text, n)
		}
	}
	if n := For[int8]().DecodeAll(make([]int8, 2), []byte("127128"), nil, 3); n != 1 {
		t.Errorf("%d of 127 and 128 are an int8, want 1", n)
	}
	if n := For[uint]().DecodeAll(make([]uint, 2), []byte("1-1"), []byte{1, 2}, 0); n != 1 {
		t.Errorf("%d of 1 and -1 are a uint, want 1", n)
	}
}

func FuzzDecodeAll(f *testing.F) {
	f.Add("123456789", byte(5))
	f.Fuzz(func(t *testing.T, text string, size byte) {
		b := []byte(text)
		n := min(int(size), len(b))
		var got [1]int32
		if For[int32]().DecodeAll(got[:], b, []byte{byte(n)}, 0) == 1 {
			if want, err := For[int32]().Decode(b[:n]); err != nil || want != got[0] {
				t.Errorf("%q: together %d, alone %d, %v", b[:n], got[0], want, err)
			}
		}
	})
}
