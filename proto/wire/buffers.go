package wire

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// Buffers is the pool from which gRPC takes its buffers, at all our ends. gRPC's own pool clears a buffer whenever it is used again, all of
// it, so that a frame of a hundred bytes costs writing thousands. gRPC fills what it asks for, so there is nothing to be seen of what was there before.
var Buffers mem.BufferPool = &buffers{}

// bufferSizes are what there are buffers of: up to a frame's for what is received, two sizes of messages for what is sent. Larger ones are left to the
// collector.
var bufferSizes = [...]int{256, 4 << 10, 16 << 10, 64 << 10, 320 << 10}

type buffers struct{ pools [len(bufferSizes)]sync.Pool }

// Get is a buffer of n bytes, which hold anything.
func (p *buffers) Get(n int) *[]byte {
	for i, size := range bufferSizes {
		if n > size {
			continue
		}
		if b, ok := p.pools[i].Get().(*[]byte); ok {
			*b = (*b)[:n]
			return b
		}
		b := make([]byte, n, size)
		return &b
	}
	b := make([]byte, n)
	return &b
}

// Put takes a buffer back.
func (p *buffers) Put(b *[]byte) {
	for i, size := range bufferSizes {
		if cap(*b) == size {
			p.pools[i].Put(b)
			return
		}
	}
}
