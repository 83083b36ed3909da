package workerproc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// outcome is what has become of a task.
type outcome struct {
	chunk   uint64
	offset  int
	value   string
	failure pb.Outcome // 0: there is a value
}

// outcomes takes results apart.
func outcomes(results []wire.ChunkResults) (list []outcome) {
	for i := range results {
		r := &results[i]
		items, failures := r.Values.Items(), r.Failures
		for n := range r.Len() {
			o := outcome{chunk: r.Chunk, offset: int(r.First) + n}
			if len(failures) > 0 && int(failures[0].Offset) == o.offset {
				o.failure = failures[0].Outcome
				failures = failures[1:]
			} else if items.Next() {
				o.value = string(items.Item())
			}
			list = append(list, o)
		}
	}
	return list
}

func read(t *testing.T, mem []byte) *Record {
	t.Helper()
	rec, err := readRecord(bytes.NewReader(mem), len(mem))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func failureBytes(t *testing.T, offset int) []byte {
	t.Helper()
	b, err := proto.Marshal(&pb.TaskFailure{Offset: uint32(offset), Outcome: pb.Outcome_OUTCOME_TASK_ERROR, Error: &pb.TaskError{Message: "no"}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRecordTellsWhatRunsAndWhatHasEnded(t *testing.T) {
	mem := make([]byte, 4096)
	w := newProgressWriter(mem)
	if rec := read(t, mem); rec.Running || len(rec.Results) != 0 {
		t.Errorf("a new record says %+v, want nothing", rec)
	}
	began := time.Now()
	w.enter(5, began)
	w.begin(0)
	room := w.room()
	w.commit(0, room, append(room, 'a'))
	w.store(5, 1, recordFailure, failureBytes(t, 1))
	w.store(5, 2, recordValue, nil)
	timed := w.at
	w.store(6, 0, recordValue, []byte("bb"))
	binary.NativeEndian.PutUint32(w.ring[timed+20:], 1) // as another worker might
	w.enter(6, began)
	w.begin(1)
	rec := read(t, mem)
	if !rec.Running || rec.Chunk != 6 || rec.Offset != 1 || rec.Started.Sub(began).Abs() > time.Millisecond {
		t.Errorf("the task in hand is %+v, want place 1 of chunk 6, begun at %v", rec.Progress, began)
	}
	want := []outcome{{5, 0, "a", 0}, {5, 1, "", pb.Outcome_OUTCOME_TASK_ERROR}, {5, 2, "", 0}, {6, 0, "bb", 0}}
	if got := outcomes(rec.Results); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(rec.Results) != 2 || rec.Results[1].RunNS != 1000 {
		t.Errorf("got %+v, want the results of two chunks, the second with 1000 ns", rec.Results)
	}
	w.idle()
	if rec := read(t, mem); rec.Running {
		t.Errorf("an idle worker's record says that it runs %+v", rec.Progress)
	}
}

// Whatever the sizes and wherever the ring begins anew, the record holds what has been stored and not been freed.
func TestRingWrapsAround(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{progressHeader + 64, progressHeader + 1000, 4096, 4099} {
		mem := make([]byte, size)
		w := newProgressWriter(mem)
		var want []outcome
		var ends []uint64 // of each of want
		full := 0
		for offset := range 3000 {
			o := outcome{chunk: 1 + uint64(offset/100), offset: offset % 100, value: string(bytes.Repeat([]byte{byte('a' + offset%26)}, rnd.IntN(size/4)))}
			for !w.store(o.chunk, o.offset, recordValue, []byte(o.value)) {
				full++
				if len(want) == 0 && w.written != w.freed {
					t.Fatalf("size %d: %d bytes are in use, but nothing is stored", size, w.written-w.freed)
				}
				if len(want) == 0 { // it does not fit in one piece before the end
					break
				}
				n := 1 + rnd.IntN(len(want))
				w.free(ends[n-1])
				want, ends = want[n:], ends[n:]
				if len(want) == 0 {
					o.value = ""
				}
			}
			if w.written%8 != 0 {
				t.Fatalf("size %d: the head is at %d, which is no multiple of 8", size, w.written)
			}
			if w.written > w.freed && (len(ends) == 0 || w.written != ends[len(ends)-1]) {
				want, ends = append(want, o), append(ends, w.written)
			}
			if got := outcomes(read(t, mem).Results); !slices.Equal(got, want) {
				t.Fatalf("size %d, after %d: got %d results, want %d\n%v\n%v", size, offset, len(got), len(want), got, want)
			}
		}
		if full == 0 {
			t.Errorf("size %d: the ring has never been full", size)
		}
	}
}

func TestRingThatIsFullTakesNothing(t *testing.T) {
	mem := make([]byte, progressHeader+100) // 96 bytes of ring
	w := newProgressWriter(mem)
	if w.store(1, 0, recordValue, make([]byte, 73)) {
		t.Error("a result larger than the ring has been stored")
	}
	if !w.store(1, 0, recordValue, make([]byte, 72)) {
		t.Error("a result as large as the ring has not been stored")
	}
	if w.store(1, 1, recordValue, nil) {
		t.Error("a full ring has taken another result")
	}
	if !w.pressing() {
		t.Error("a full ring does not press for an acknowledgement")
	}
	w.free(w.written)
	if w.pressing() || !w.store(1, 1, recordValue, nil) {
		t.Error("a ring that has been freed is still full")
	}
}

// A run may be looked at at any moment, by the sender and, should the worker die, by the daemon: what has been noted in it is there.
func TestRunOfSmallResults(t *testing.T) {
	mem := make([]byte, 8<<10)
	w := newProgressWriter(mem)
	r := progressReader{}
	rnd := rand.New(rand.NewPCG(3, 4))
	full, closed := 0, 0
	var kept []outcome // by the record; what has been read of the last run is still there
	var ends []uint64  // the run of each ends there
	unread := 0
	for chunk := uint64(1); chunk < 2000; chunk++ {
		w.enter(chunk, time.Now())
		n := 2 + rnd.IntN(strideMost-1)
		w.open(0, n)
		if w.run.sizes == nil {
			full++
			w.free(r.pos)
			for len(ends) > 0 && ends[0] <= r.pos {
				kept, ends = kept[1:], ends[1:]
			}
			w.enter(chunk, time.Now())
			if w.open(0, n); w.run.sizes == nil {
				t.Fatalf("%d bytes are in use, and there is no room for a run of %d", w.written-w.freed, n)
			}
		}
		ended := rnd.IntN(n + 1)
		for offset := range ended {
			w.begin(offset)
			o := outcome{chunk: chunk, offset: offset, value: string(bytes.Repeat([]byte{byte('a' + offset%26)}, rnd.IntN(smallResult/4)))}
			if space := w.space(); !w.append(space, append(space, o.value...)) {
				t.Fatalf("there is no room for result %d of a run", offset)
			}
			kept = append(kept, o)
			ends = append(ends, 1<<63)
			unread++
			if rnd.IntN(4) > 0 {
				continue
			}
			if got := outcomes(read(t, mem).Results); !slices.Equal(got, kept) {
				t.Fatalf("chunk %d, task %d of %d: the daemon reads %d results, want %d\n%v\n%v", chunk, offset, n, len(got), len(kept), got, kept)
			}
			var got []outcome
			for want := 1 + rnd.IntN(unread); len(got) < want; {
				got = append(got, readNext(t, &r, w, want-len(got))...)
			}
			if want := kept[len(kept)-unread:][:len(got)]; !slices.Equal(got, want) {
				t.Fatalf("the sender reads %v, want %v", got, want)
			}
			unread -= len(got)
		}
		if w.close(); w.written%8 != 0 {
			t.Fatalf("the head is at %d, which is no multiple of 8", w.written)
		}
		closed++
		for i := range ends {
			if ends[i] == 1<<63 {
				ends[i] = w.written
			}
		}
		for unread > 0 && rnd.IntN(3) > 0 {
			unread -= len(readNext(t, &r, w, unread))
		}
		if got := outcomes(read(t, mem).Results); !slices.Equal(got, kept) {
			t.Fatalf("chunk %d: the daemon reads %d results of closed runs, want %d", chunk, len(got), len(kept))
		}
		for unread > 0 && w.written-w.freed > 4<<10 {
			unread -= len(readNext(t, &r, w, unread))
		}
	}
	if full == 0 || w.written < 10*uint64(len(mem)) {
		t.Errorf("the ring has been full %d times, and %d bytes have been written: too few to say anything", full, w.written)
	}
}

// readNext is what the sender reads next.
func readNext(t *testing.T, r *progressReader, w *progressWriter, n int) (list []outcome) {
	t.Helper()
	out := r.next(w, n)
	if out.n == 0 {
		t.Fatalf("the sender reads nothing of chunk %d where there are %d results", out.chunk, n)
	}
	for i, size := range out.sizes {
		list = append(list, outcome{chunk: out.chunk, offset: out.first + i, value: string(out.bytes[:size])})
		out.bytes = out.bytes[size:]
	}
	return list
}

func TestResultThatIsNotSmallIsNotPutIntoARun(t *testing.T) {
	w := newProgressWriter(make([]byte, 8<<10))
	w.enter(1, time.Now())
	w.open(0, 8)
	space := w.space()
	if !w.append(space, append(space, make([]byte, smallResult-1)...)) {
		t.Error("a result of 127 bytes has not been taken")
	}
	space = w.space()
	if w.append(space, append(space, make([]byte, smallResult)...)) {
		t.Error("a result of 128 bytes has been taken")
	}
	if w.append(w.space(), []byte("elsewhere")) {
		t.Error("a result that lies elsewhere has been taken")
	}
	w.close()
	w.open(1, 8)
	w.close()
	if w.written != uint64(recordHeader+8+smallResult) {
		t.Errorf("a run of one result and one of none take %d bytes, want %d", w.written, recordHeader+8+smallResult)
	}
}

func TestGarbageIsAnError(t *testing.T) {
	good := func() ([]byte, *progressWriter) {
		mem := make([]byte, 1024)
		w := newProgressWriter(mem)
		w.store(1, 0, recordValue, []byte("v"))
		return mem, w
	}
	put64, put32 := binary.NativeEndian.PutUint64, binary.NativeEndian.PutUint32
	for name, spoil := range map[string]func(mem []byte){
		"no magic":                    func(mem []byte) { mem[0] = 'x' },
		"tail after head":             func(mem []byte) { put64(mem[48:], 1<<20) },
		"more than the ring":          func(mem []byte) { put64(mem[40:], 1<<40) },
		"crooked tail":                func(mem []byte) { put64(mem[48:], 4) },
		"a length beyond the ring":    func(mem []byte) { put32(mem[64+16:], 1<<20) },
		"a length of 4 GiB":           func(mem []byte) { put32(mem[64+16:], 1<<32-1) },
		"a length beyond the head":    func(mem []byte) { put32(mem[64+16:], 100) },
		"an unknown kind":             func(mem []byte) { put32(mem[64+12:], 4) },
		"a failure that is none":      func(mem []byte) { put32(mem[64+12:], recordFailure) },
		"an empty rest past the head": func(mem []byte) { put64(mem[64:], 0) },
		"sizes beyond the ring":       func(mem []byte) { put32(mem[64+12:], recordRun); put32(mem[64+16:], 1<<20) },
		"a size that is too large":    func(mem []byte) { put32(mem[64+12:], recordRun); put32(mem[64+16:], 8); mem[64+24] = smallResult },
		"a run beyond the ring": func(mem []byte) {
			put32(mem[64+12:], recordRun)
			put32(mem[64+16:], 928)
			copy(mem[64+24:], bytes.Repeat([]byte{127}, 928))
		},
		"positions that run over": func(mem []byte) { put64(mem[48:], 1<<64-8); put64(mem[40:], 1<<64-1) },
	} {
		t.Run(name, func(t *testing.T) {
			mem, _ := good()
			spoil(mem)
			if rec, err := readRecord(bytes.NewReader(mem), len(mem)); !errors.Is(err, errGarbage) {
				t.Errorf("got %+v, %v; want %v", rec, err, errGarbage)
			}
		})
	}
	mem, _ := good()
	if _, err := readRecord(bytes.NewReader(mem[:100]), len(mem)); err == nil {
		t.Error("a record that is shorter than it was made is no error")
	}
}

// A record is read while the worker writes it. What is read must have been true.
func TestReadingARecordThatChanges(t *testing.T) {
	f, err := newRecord(ProgressSize)
	if err != nil {
		t.Skipf("there is no memfd here, so reading a shared record is NOT tested; it takes Linux 3.17, and a container that allows it: %v", err)
	}
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, ProgressSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	w := newProgressWriter(mem)
	began := time.Now()
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for chunk := uint64(1); ; chunk++ {
			select {
			case <-stop:
				return
			default:
			}
			at := began.Add(time.Duration(chunk) * time.Millisecond)
			for offset := range 3 { // a chunk, its places and its time belong together
				w.enter(chunk, at)
				w.begin(int(chunk)*3 + offset)
			}
			w.idle()
		}
	})
	defer writer.Wait()
	defer close(stop)
	seen := 0
	end, patience := time.Now().Add(300*time.Millisecond), time.Now().Add(time.Minute) // on a busy machine neither may run for that long
	for now := time.Now(); now.Before(end) || seen == 0 && now.Before(patience); now = time.Now() {
		p, err := readProgress(f)
		if err != nil || !p.Running {
			continue
		}
		seen++
		if want := began.Add(time.Duration(p.Chunk) * time.Millisecond); uint32(p.Offset)/3 != uint32(p.Chunk) || p.Started.Sub(want).Abs() > time.Millisecond/2 {
			t.Fatalf("got %+v, which never was: want place %d or a little more, begun at %v", p, p.Chunk*3, want)
		}
	}
	if seen == 0 {
		t.Error("the record of a busy worker has never been read")
	}
	t.Logf("read %d times", seen)
}

func FuzzReadRecord(f *testing.F) {
	mem := make([]byte, 512)
	w := newProgressWriter(mem)
	for i := range 30 {
		w.enter(1, time.Now())
		w.begin(i)
		if !w.store(1, i, recordValue, make([]byte, i)) {
			w.free(w.written)
		}
	}
	f.Add(mem)
	runs := make([]byte, 4096)
	w = newProgressWriter(runs)
	w.enter(1, time.Now())
	w.open(0, 9)
	for range 5 {
		space := w.space()
		w.append(space, append(space, "some"...))
	}
	f.Add(bytes.Clone(runs))
	w.close()
	f.Add(runs)
	f.Add(mem[:100])
	f.Add([]byte(progressMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := readRecord(bytes.NewReader(b), len(b))
		if rec == nil {
			if err == nil {
				t.Error("neither a record nor an error")
			}
			return
		}
		size, n := 0, 0
		for i := range rec.Results {
			r := &rec.Results[i]
			if err := r.Values.Check(); err != nil {
				t.Errorf("a batch that is broken: %v", err)
			}
			size += len(r.Values.Data)
			n += r.Len()
		}
		if size+n > len(b) { // in a run a result takes a byte more than it has
			t.Errorf("%d results of %d bytes cannot have been in a record of %d bytes", n, size, len(b))
		}
	})
}
