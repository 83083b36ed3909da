package client

import (
	"context"
	"fmt"
	"sort"
	"sync"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
)

// A message carries what is ready, up to these bounds. The first ones of a Map are short, so that workers begin early; long ones cost less per item,
// and several fit into the daemon's window, so that no worker waits while one is on its way.
const (
	firstBatchItems = 64
	maxBatchItems   = 4096
	maxBatchBytes   = 256 << 10 // one item may exceed it
)

// measure is what a batch teaches about the next one.
type measure struct {
	items, bytes int
	varied       bool // small items of several sizes
}

func measureOf(b *wire.Batch) measure { return measure{b.Len(), len(b.Data), b.Small != nil} }

// newBatch is an empty batch with room for n items like those of the last.
func newBatch(last measure, n int) wire.Batch {
	b := wire.Batch{}
	if room := roomFor(last, n); room > 0 {
		b.Data = make([]byte, 0, room)
	}
	if last.varied {
		b.Small = make([]byte, 0, n)
	}
	return b
}

// roomFor is how many bytes a batch of n items like those of the last takes; 0 if that is not known, or if the first item had better make exactly the
// room it needs.
func roomFor(last measure, n int) int {
	if last.items == 0 {
		return 0
	}
	size := last.bytes/last.items + 1
	if size >= maxBatchBytes {
		return 0
	}
	return min(size*n, maxBatchBytes) + size
}

// lentBatch is newBatch whose bytes are in a buffer of gRPC, for [wire.Batch.Lend]; there is none for the first batch, and for huge items.
func lentBatch(last measure, n int) (b wire.Batch, buf *[]byte) {
	if room := roomFor(last, n); room > 0 {
		buf = wire.Buffers.Get(room)
		b.Data = (*buf)[:0]
	}
	if last.varied {
		b.Small = make([]byte, 0, n)
	}
	return b, buf
}

// addItems puts items at the end of b until it is full (of n items, or of bytes) or one of them cannot be put there. It returns how many it
// has put, and why not the next. One recover for all of them: it costs more than encoding a number does. encodeAll may be nil; see payload.Encoding.
func addItems[A any](b *wire.Batch, encode func([]byte, A) ([]byte, error), encodeAll appendAll[A], items []A, n int) (added int, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = newPanicError(v)
		}
	}()
	for added < len(items) && b.Len() < n && len(b.Data) < maxBatchBytes {
		if encodeAll != nil && b.Sizes == nil {
			k := min(len(items)-added, n-b.Len(), (maxBatchBytes-len(b.Data))/128+1)
			if k = addSmall(b, encodeAll, items[added:added+k]); k > 0 {
				added += k
				continue
			}
			encodeAll = nil // most likely it would leave the next ones, too
		}
		start := len(b.Data)
		data, err := encode(b.Data, items[added])
		if err != nil {
			return added, fmt.Errorf("encode argument: %w", err)
		}
		size := len(data) - start
		if uint(size) > wire.MaxItem {
			return added, checkItem(size)
		}
		b.Data = data
		b.Added(size)
		added++
	}
	return added, nil
}

type appendAll[A any] func(dst, sizes []byte, args []A) (data, newSizes []byte, n int)

// addSmall puts items at the end of b, all together, up to one that takes an encoding of its own. It returns how many.
func addSmall[A any](b *wire.Batch, encodeAll appendAll[A], items []A) int {
	if b.Small != nil {
		data, sizes, n := encodeAll(b.Data, b.Small, items)
		b.Data, b.Small = data, sizes
		return n
	}
	data, sizes, n := encodeAll(b.Data, nil, items)
	b.Data = data
	b.AddedSmall(sizes)
	return n
}

// addItem puts arg at the end of b. An argument that cannot be encoded, or is too large, leaves b as it was.
func addItem[A any](b *wire.Batch, encode func([]byte, A) ([]byte, error), arg A) error {
	start := len(b.Data)
	data, err := appendSafely(encode, b.Data, arg)
	if err == nil {
		err = checkItem(len(data) - start)
	}
	if err != nil {
		b.Data = b.Data[:start]
		return err
	}
	b.Data = data
	b.Added(len(data) - start)
	return nil
}

func checkItem(size int) error {
	switch {
	case size > wire.MaxItem:
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, size, wire.MaxItem)
	case size < 0:
		return fmt.Errorf("%w: AppendArg has shortened its buffer", ErrProtocol)
	}
	return nil
}

// appendSafely encodes arg; a panic is an error.
func appendSafely[A any](encode func([]byte, A) ([]byte, error), dst []byte, arg A) (b []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			b, err = dst, newPanicError(v)
		}
	}()
	b, err = encode(dst, arg)
	if err != nil {
		return dst, fmt.Errorf("encode argument: %w", err)
	}
	return b, nil
}

// decodeSafely decodes a result; a panic is an error.
func decodeSafely[R any](decode func([]byte) (R, error), b []byte) (v R, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = newPanicError(v)
		}
	}()
	return decode(b)
}

// finally calls f, and then end with its error: also if code of the user has ended the goroutine in f.
func finally(f func() error, end func(error)) {
	var err error
	returned := false
	defer func() {
		if !returned {
			err = newPanicError(nil)
		}
		end(err)
	}()
	err = f()
	returned = true
}

// checkAccepted compares what the daemon knows of the function with what we think of it.
func checkAccepted(a *pb.CallAccepted, function, encoding string) error {
	if a == nil || a.GetEncoding() == "" || encoding == "" || a.GetEncoding() == encoding {
		return nil
	}
	return &RefusedError{Reason: pb.Reason_REASON_ENCODING,
		Message: fmt.Sprintf("function %q takes arguments encoded as %q, and this program encodes them as %q", function, a.GetEncoding(), encoding)}
}

// checkOpen asks whether the pool takes calls, without touching its workers.
func (p *Pool) checkOpen(ctx context.Context) error {
	info, err := p.Info(ctx)
	if err != nil {
		return err
	}
	switch info.GetState() {
	case pb.PoolState_POOL_STATE_CLOSED:
		return p.closedError(pb.Reason_REASON_POOL_CLOSED, "is closed: it takes no new calls")
	case pb.PoolState_POOL_STATE_TERMINATED, pb.PoolState_POOL_STATE_JOINED:
		return p.closedError(pb.Reason_REASON_POOL_TERMINATED, "is terminated")
	}
	return nil
}

// skips maps the daemon's index of an item, which counts those that arrive, to ours, which counts those that were given. The two differ
// when an item could not be sent.
type skips struct {
	mu   sync.Mutex
	list []uint64 // for each item that was not sent: the daemon's index of the next one that was. Grows by 8 bytes per such item.
}

func (s *skips) add(next uint64) {
	s.mu.Lock()
	s.list = append(s.list, next)
	s.mu.Unlock()
}

// now is the mapping for all indexes that the daemon can know at this moment.
func (s *skips) now() mapping {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list
}

type mapping []uint64

func (m mapping) ours(index uint64) uint64 {
	if len(m) == 0 { // nearly always
		return index
	}
	return index + m.before(index)
}

// before is how many items were skipped before the daemon's item index.
func (m mapping) before(index uint64) uint64 {
	return uint64(sort.Search(len(m), func(i int) bool { return m[i] > index }))
}

// outputs hands what tasks have written to f.
func outputs(p *Pool, list []*pb.TaskOutput, m mapping, f func(index, attempt, stream int, data []byte)) {
	if f == nil {
		return
	}
	for _, o := range list {
		protect(p.client.log, "TaskOutput", func() { f(int(m.ours(o.GetIndex())), int(o.GetAttempt()), int(o.GetStream()), o.GetData()) })
	}
}

// attempts is the number that the wire abbreviates.
func attempts(r *wire.Results) int { return max(1, int(r.Attempts)) }
