package workerproc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
	"unsafe"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"google.golang.org/protobuf/proto"
)

// The progress record. All numbers are in the byte order of the machine, which is little-endian wherever this is built.
//
//	 0  8 bytes  "PPROGR01"
//	 8  u64      0
//	16  u64      chunk of the current task
//	24  u32      its place in the chunk
//	28  u32      1 if there is a current task
//	32  i64      when it began, or a little earlier: nanoseconds of CLOCK_MONOTONIC
//	40  u64      head: bytes written into the ring since the beginning
//	48  u64      tail: bytes of it that are free again
//	64           the ring, up to the end of the file
//
// The eight bytes at 24 are written as one. They are 0 while the fields at 16 and 32 change.
//
// The ring holds records, each beginning at a multiple of 8:
//
//	 0  u64      chunk; 0: the rest of the ring is empty, go on at its beginning
//	 8  u32      place of the task in the chunk
//	12  u32      1: the record has a result; 2: it has a TaskFailure message; 3: it is a run of results, see below
//	16  u32      length of that
//	20  u32      for how long the task ran, in microseconds, at most 2³²−1; 0: not known
//	24           that, and padding up to a multiple of 8
//
// A record lies in one piece. The worker writes it, then moves the head. Position p of the ring lies at byte 64 + p mod (size − 64) of the
// file; the size of the ring is a multiple of 8.
//
// A run holds the results of tasks that follow each other, all of them shorter than 128 bytes:
//
//	 8  u32      place of the first task in the chunk
//	12  u32      3
//	16  u32      for how many results it has sizes, a multiple of 8
//	20  u32      how many results it has; 0: it is still open
//	24           a byte for each: its size; 255: it is not there
//	             the results, one after the other, and padding up to a multiple of 8
//
// The head is moved behind the sizes when a run is begun, and behind the whole when it is closed. So the last run may go on behind the head.
const (
	progressMagic  = "PPROGR01"
	progressHeader = 64
	recordHeader   = 24

	// ProgressSize is the size of the record that Start makes, in bytes. Pages that are not used cost nothing.
	ProgressSize = 1 << 20

	recordValue   = 1
	recordFailure = 2
	recordRun     = 3

	smallResult = 128 // the first size that a run cannot hold
	noResult    = 255 // as a size
)

// Progress is what a progress record says about the current task.
type Progress struct {
	Running bool // there is one
	Chunk   uint64
	Offset  int // its place in the chunk
	Started time.Time
}

// Record is what a progress record tells after its worker has died.
type Record struct {
	Progress
	// Results are the outcomes that the daemon had not acknowledged, in order.
	Results []wire.ChunkResults
}

// progressWriter is the worker's end of the record. It is also where results wait for the sender. The runner writes; all that it calls while it does not hold the
// session's lock are begin, room, commit, and space and append.
//
// The runner's stores need no order among themselves: the daemon reads when the worker is dead, and sees all that it has done before.
// The sender, in the same process, goes by the current task: what has been written before a task began is there when the task is seen.
type progressWriter struct {
	mem     []byte
	ring    []byte
	current *uint64 // place of the current task, and 1<<32; atomic
	head    *uint64 // written by the runner, read by the daemon
	tail    *uint64
	written uint64 // *head
	at      int    // place of written in the ring
	limit   uint64 // written may grow up to here
	freed   uint64 // *tail
	chunk   uint64 // what the header has
	started time.Time
	run     openRun
}

// openRun is the run of results that is being written.
type openRun struct {
	sizes []byte // nil: there is none
	done  int    // results in it
	start int    // its place in the ring
}

func newProgressWriter(mem []byte) *progressWriter {
	field := func(i int) *uint64 { return (*uint64)(unsafe.Pointer(&mem[i])) }
	w := &progressWriter{
		mem: mem, ring: mem[progressHeader : progressHeader+(len(mem)-progressHeader)&^7], current: field(24), head: field(40), tail: field(48),
	}
	w.limit = uint64(len(w.ring))
	copy(mem, progressMagic)
	return w
}

// enter notes which chunk the next tasks are of, and since when they run.
func (w *progressWriter) enter(chunk uint64, started time.Time) {
	w.limit = w.freed + uint64(len(w.ring))
	if chunk == w.chunk && started.Equal(w.started) {
		return
	}
	w.idle()
	binary.NativeEndian.PutUint64(w.mem[16:], chunk)
	binary.NativeEndian.PutUint64(w.mem[32:], uint64(toMonotonic(started)))
	w.chunk, w.started = chunk, started
}

// begin notes the task that is about to run: its place in the chunk.
func (w *progressWriter) begin(offset int) {
	atomic.StoreUint64(w.current, uint64(uint32(offset))|1<<32)
}

// inHand is the place of the task that has begun last.
func (w *progressWriter) inHand() int { return int(uint32(atomic.LoadUint64(w.current))) }

// idle notes that no task runs.
func (w *progressWriter) idle() { atomic.StoreUint64(w.current, 0) }

// room is where the next result may be appended to; it has the capacity that there is in one piece.
func (w *progressWriter) room() []byte {
	end := w.at + int(min(uint64(len(w.ring)-w.at), w.limit-w.written))
	from := w.at + recordHeader
	if end < from {
		return nil
	}
	return w.ring[from:from:end]
}

// commit notes the result of a task of the current chunk. It is b if that is where room said; else it is copied. False: there is no room.
func (w *progressWriter) commit(offset int, room, b []byte) bool {
	if cap(room) == 0 || cap(room) != cap(b) || unsafe.SliceData(room) != unsafe.SliceData(b) {
		return w.add(w.chunk, offset, recordValue, b)
	}
	w.put(w.chunk, offset, recordValue, len(b))
	return true
}

// store notes the outcome of a task. It reports false if there is no room.
func (w *progressWriter) store(chunk uint64, offset int, kind uint32, b []byte) bool {
	w.limit = w.freed + uint64(len(w.ring))
	return w.add(chunk, offset, kind, b)
}

// add is store within the limit that is known.
func (w *progressWriter) add(chunk uint64, offset int, kind uint32, b []byte) bool {
	if !w.makeRoom(recordSize(len(b))) {
		return false
	}
	copy(w.ring[w.at+recordHeader:], b)
	w.put(chunk, offset, kind, len(b))
	return true
}

// makeRoom sees to it that need bytes from w.at on are free and in one piece. It reports false if they are not to be had.
func (w *progressWriter) makeRoom(need uint64) bool {
	skip := uint64(0)
	if rest := uint64(len(w.ring) - w.at); rest < need {
		skip = rest
	}
	if w.written+skip+need > w.limit {
		return false
	}
	if skip > 0 {
		binary.NativeEndian.PutUint64(w.ring[w.at:], 0)
		w.at = 0
		w.written += skip
	}
	return true
}

// put writes the header of a record whose content is there, and moves the head behind it.
func (w *progressWriter) put(chunk uint64, offset int, kind uint32, length int) {
	r := w.ring[w.at : w.at+recordHeader]
	binary.NativeEndian.PutUint64(r, chunk)
	binary.NativeEndian.PutUint32(r[8:], uint32(offset))
	binary.NativeEndian.PutUint32(r[12:], kind)
	binary.NativeEndian.PutUint64(r[16:], uint64(length)) // and the time, which is not known
	w.advance(int(recordSize(length)))
	*w.head = w.written
}

// recordSize is the size of a record with so many bytes of content.
func recordSize(n int) uint64 { return uint64(recordHeader+n+7) &^ 7 }

// runRoom is how much room for results there must be, in bytes, for a run to be begun.
const runRoom = 2 << 10

var noResults = bytes.Repeat([]byte{noResult}, strideMost)

// open begins a run for up to n results, at most strideMost, of the current chunk. If there is no room for one, none is open afterwards.
func (w *progressWriter) open(first, n int) {
	n = (n + 7) &^ 7
	need := recordHeader + n
	if !w.makeRoom(uint64(need + runRoom)) {
		return
	}
	r := w.ring[w.at : w.at+need]
	binary.NativeEndian.PutUint64(r, w.chunk)
	binary.NativeEndian.PutUint32(r[8:], uint32(first))
	binary.NativeEndian.PutUint32(r[12:], recordRun)
	binary.NativeEndian.PutUint64(r[16:], uint64(n)) // and no results
	w.run = openRun{sizes: r[recordHeader:], start: w.at}
	copy(w.run.sizes, noResults)
	w.advance(need)
	*w.head = w.written
}

// space is where the next result of the run may be appended to.
func (w *progressWriter) space() []byte {
	end := w.at + int(min(uint64(len(w.ring)-w.at), w.limit-w.written))
	return w.ring[w.at:w.at:end]
}

// append notes the result of the next task of the run: b, which must have been appended to space. False: it has outgrown that, or a run.
func (w *progressWriter) append(space, b []byte) bool {
	if len(b) >= smallResult || cap(space) == 0 || cap(space) != cap(b) || unsafe.SliceData(space) != unsafe.SliceData(b) {
		return false
	}
	w.at += len(b)
	w.written += uint64(len(b))
	w.run.sizes[w.run.done] = byte(len(b))
	w.run.done++
	return true
}

// close ends the run, if one is open. The session's lock is held.
func (w *progressWriter) close() {
	run := &w.run
	if run.sizes == nil {
		return
	}
	if run.done == 0 { // then there was none
		w.written -= uint64(recordHeader + len(run.sizes))
		w.at = run.start
	} else {
		binary.NativeEndian.PutUint32(w.ring[run.start+20:], uint32(run.done))
		w.advance(-w.at & 7)
	}
	*w.head = w.written
	*run = openRun{}
}

// advance moves written over n bytes that do not go beyond the end of the ring.
func (w *progressWriter) advance(n int) {
	w.written += uint64(n)
	if w.at += n; w.at == len(w.ring) {
		w.at = 0
	}
}

// free gives back the ring up to a position that written had.
func (w *progressWriter) free(to uint64) {
	w.freed = to
	atomic.StoreUint64(w.tail, to)
}

// pressing tells whether the ring is so full that an acknowledgement should be asked for.
func (w *progressWriter) pressing() bool { return w.written-w.freed > uint64(len(w.ring))/2 }

// progressReader follows the writer in its own process.
type progressReader struct {
	pos   uint64 // what has been read; a run counts when it has been read to its end
	at    int    // place of pos in the ring
	done  int    // results that have been read of the run that is there
	bytes int    // of them
}

// told is what a record tells: the outcome of a task, or those of tasks that follow each other.
type told struct {
	chunk uint64
	first int // place in the chunk
	n     int
	kind  uint32
	bytes []byte // in the ring
	sizes []byte // of the results of a run
}

// next reads the next outcomes, at most n, of which there must be as many. The session's lock is held.
func (r *progressReader) next(w *progressWriter, n int) told {
	if r.done > 0 && r.done == int(binary.NativeEndian.Uint32(w.ring[r.at+20:])) { // it was still open when its last result was read
		r.leave(w)
	}
	if binary.NativeEndian.Uint64(w.ring[r.at:]) == 0 {
		r.pass(w, len(w.ring)-r.at)
	}
	h := w.ring[r.at : r.at+recordHeader]
	o := told{
		chunk: binary.NativeEndian.Uint64(h), first: int(binary.NativeEndian.Uint32(h[8:])), n: 1, kind: binary.NativeEndian.Uint32(h[12:]),
	}
	from, length := r.at+recordHeader, int(binary.NativeEndian.Uint32(h[16:]))
	if o.kind != recordRun {
		o.bytes = w.ring[from : from+length : from+length]
		r.pass(w, int(recordSize(length)))
		return o
	}
	total := int(binary.NativeEndian.Uint32(h[20:])) // 0 while it is open: nothing comes behind it
	o.n = n
	if total > 0 {
		o.n = min(n, total-r.done)
	}
	o.sizes = w.ring[from+r.done : from+r.done+o.n]
	size := 0
	for _, s := range o.sizes {
		size += int(s)
	}
	from += length + r.bytes
	o.bytes = w.ring[from : from+size]
	o.first += r.done
	r.done += o.n
	r.bytes += size
	if r.done == total {
		r.leave(w)
	}
	return o
}

// leave goes on behind a run that has been read to its end.
func (r *progressReader) leave(w *progressWriter) {
	length := int(binary.NativeEndian.Uint32(w.ring[r.at+16:])) + r.bytes
	r.done, r.bytes = 0, 0
	r.pass(w, int(recordSize(length)))
}

// pass goes on behind n bytes.
func (r *progressReader) pass(w *progressWriter, n int) {
	r.pos += uint64(n)
	if r.at += n; r.at == len(w.ring) {
		r.at = 0
	}
}

var errGarbage = errors.New("the progress record is garbage")

// readProgress reads what a record says about the current task. The worker may be writing at this moment.
func readProgress(r io.ReaderAt) (Progress, error) {
	var a, b [progressHeader]byte
	for range 100 {
		if _, err := r.ReadAt(a[:], 0); err != nil {
			return Progress{}, err
		}
		if _, err := r.ReadAt(b[:], 0); err != nil {
			return Progress{}, err
		}
		if string(a[8:40]) == string(b[8:40]) {
			return parseProgress(a[:])
		}
	}
	return Progress{}, errors.New("the progress record does not come to rest")
}

func parseProgress(h []byte) (Progress, error) {
	if string(h[:8]) != progressMagic {
		return Progress{}, errGarbage
	}
	return Progress{
		Running: binary.NativeEndian.Uint32(h[28:]) == 1,
		Chunk:   binary.NativeEndian.Uint64(h[16:]),
		Offset:  int(binary.NativeEndian.Uint32(h[24:])),
		Started: fromMonotonic(int64(binary.NativeEndian.Uint64(h[32:]))),
	}, nil
}

// readRecord reads a record whose worker is dead. It believes nothing that it has not checked.
func readRecord(r io.ReaderAt, size int) (*Record, error) {
	if size < progressHeader+8 {
		return nil, errGarbage
	}
	header := make([]byte, progressHeader)
	if _, err := r.ReadAt(header, 0); err != nil {
		return nil, fmt.Errorf("read the progress record: %w", err)
	}
	p, err := parseProgress(header)
	if err != nil {
		return nil, err
	}
	rec := &Record{Progress: p}
	if bytes.Equal(header[40:48], header[48:56]) { // it had been acknowledged all that it had done, as is usual for one that was asked to stop
		return rec, nil
	}
	mem := make([]byte, size)
	if _, err := r.ReadAt(mem, 0); err != nil {
		return nil, fmt.Errorf("read the progress record: %w", err)
	}
	ring := mem[progressHeader : progressHeader+(size-progressHeader)&^7]
	n := uint64(len(ring))
	head, tail := binary.NativeEndian.Uint64(mem[40:]), binary.NativeEndian.Uint64(mem[48:])
	if tail > head || head-tail > n || tail%8 != 0 {
		return rec, errGarbage
	}
	for end := tail + n; tail < head; {
		pos := tail % n
		chunk := binary.NativeEndian.Uint64(ring[pos:])
		if chunk == 0 {
			if n-pos > head-tail {
				return rec, errGarbage
			}
			tail += n - pos
			continue
		}
		if n-pos < recordHeader {
			return rec, errGarbage
		}
		h := ring[pos : pos+recordHeader]
		offset, kind := binary.NativeEndian.Uint32(h[8:]), binary.NativeEndian.Uint32(h[12:])
		if kind == recordRun {
			need, err := rec.addRun(chunk, offset, ring[pos:pos+min(n-pos, end-tail)])
			if err != nil {
				return rec, err
			}
			tail += need
			continue
		}
		length, micros := uint64(binary.NativeEndian.Uint32(h[16:])), binary.NativeEndian.Uint32(h[20:])
		need := (recordHeader + length + 7) &^ 7
		if need > n-pos || need > head-tail {
			return rec, errGarbage
		}
		if err := rec.add(chunk, offset, kind, ring[pos+recordHeader:pos+recordHeader+length], micros); err != nil {
			return rec, err
		}
		tail += need
	}
	return rec, nil
}

// add appends an outcome to the results.
func (rec *Record) add(chunk uint64, offset, kind uint32, b []byte, micros uint32) error {
	if n := len(rec.Results); n == 0 || rec.Results[n-1].Chunk != chunk || int(rec.Results[n-1].First)+rec.Results[n-1].Len() != int(offset) {
		rec.Results = append(rec.Results, wire.ChunkResults{Chunk: chunk, First: offset})
	}
	r := &rec.Results[len(rec.Results)-1]
	r.RunNS += uint64(micros) * 1000
	switch kind {
	case recordValue:
		r.Values.Append(b)
		return nil
	case recordFailure:
		f := &pb.TaskFailure{}
		if err := proto.Unmarshal(b, f); err != nil || f.Offset != offset || f.Error == nil {
			return errGarbage
		}
		r.Failures = append(r.Failures, f)
		return nil
	default:
		return errGarbage
	}
}

// addRun appends the results of a run, which begins at the beginning of b. It returns its size in the ring.
func (rec *Record) addRun(chunk uint64, first uint32, b []byte) (size uint64, err error) {
	places := uint64(binary.NativeEndian.Uint32(b[16:]))
	if places > uint64(len(b)-recordHeader) {
		return 0, errGarbage
	}
	sizes, values := b[recordHeader:recordHeader+places], b[recordHeader+places:]
	left := values
	for i, s := range sizes {
		if s == noResult {
			break
		}
		if s >= smallResult || int(s) > len(left) {
			return 0, errGarbage
		}
		if err := rec.add(chunk, first+uint32(i), recordValue, left[:s], 0); err != nil {
			return 0, err
		}
		left = left[s:]
	}
	if size = recordSize(int(places) + len(values) - len(left)); size > uint64(len(b)) {
		return 0, errGarbage
	}
	return size, nil
}
