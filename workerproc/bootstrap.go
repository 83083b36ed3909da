package workerproc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/protobuf/proto"
)

// magic begins the bootstrap frame, so that a worker does not take somebody else's pipe for its own.
const magic = "PROCPOOL"

// maxFrame is the largest bootstrap message, in bytes.
const maxFrame = 64 << 10

// pipeRoom is the largest that is written: the frame must fit into a pipe that nobody reads yet, and the kernel gives a user with many
// pipes only a page for each.
const pipeRoom = 4096 - len(magic) - 4

// encodeBootstrap makes the frame that a worker finds on descriptor 3.
func encodeBootstrap(b *pb.Bootstrap) ([]byte, error) {
	body, err := proto.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode the bootstrap frame: %w", err)
	}
	if len(body) > pipeRoom {
		return nil, fmt.Errorf("the bootstrap frame has %d bytes; at most %d are allowed", len(body), pipeRoom)
	}
	frame := append([]byte(magic), 0, 0, 0, 0)
	binary.BigEndian.PutUint32(frame[len(magic):], uint32(len(body)))
	return append(frame, body...), nil
}

var errNotOurs = errors.New("descriptor 3 does not carry a procpool bootstrap frame; PROCPOOL_WORKER must not be set by hand")

// readBootstrap reads a frame.
func readBootstrap(r io.Reader) (*pb.Bootstrap, error) {
	head := make([]byte, len(magic)+4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("%w (%w)", errNotOurs, err)
	}
	if string(head[:len(magic)]) != magic {
		return nil, errNotOurs
	}
	n := binary.BigEndian.Uint32(head[len(magic):])
	if n > maxFrame {
		return nil, fmt.Errorf("the bootstrap frame has %d bytes; at most %d are allowed", n, maxFrame)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("read the bootstrap frame: %w", err)
	}
	b := &pb.Bootstrap{}
	if err := proto.Unmarshal(body, b); err != nil {
		return nil, fmt.Errorf("read the bootstrap frame: %w", err)
	}
	return b, nil
}
