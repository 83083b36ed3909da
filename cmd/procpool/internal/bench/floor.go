package bench

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"

	"github.com/procpool/procpool/proto/wire"
)

// The floor is what moving the same bytes costs with nothing around it: from a client to a relay in the same process, over a socket to a worker, and back.
// The relay knows neither calls nor functions, keeps no books and survives nothing. There are two, over gRPC streams and over bare sockets. For
// commands it is starting and reaping a process.

// A hop is one end of a connection that carries messages.
type hop interface {
	send(mem.BufferSlice) error // takes the buffers
	recv() (mem.BufferSlice, error)
}

// streamHop is a gRPC stream.
type streamHop struct {
	stream interface {
		SendMsg(m any) error
		RecvMsg(m any) error
	}
}

// floorMessage is what it carries: bytes, by reference.
type floorMessage struct{ data mem.BufferSlice }

func (h streamHop) send(data mem.BufferSlice) error { return h.stream.SendMsg(&floorMessage{data}) }

func (h streamHop) recv() (mem.BufferSlice, error) {
	var m floorMessage
	err := h.stream.RecvMsg(&m)
	return m.data, err
}

type floorCodec struct{}

func (floorCodec) Name() string { return "floor" }

func (floorCodec) Marshal(v any) (mem.BufferSlice, error) { return v.(*floorMessage).data, nil }

func (floorCodec) Unmarshal(data mem.BufferSlice, v any) error {
	data.Ref()
	v.(*floorMessage).data = data
	return nil
}

// socketHop is a socket with a length before each message.
type socketHop struct {
	in  *bufio.Reader
	out net.Conn
}

func newSocketHop(c net.Conn) socketHop { return socketHop{bufio.NewReaderSize(c, 64<<10), c} }

func (h socketHop) send(data mem.BufferSlice) error {
	defer data.Free()
	list := net.Buffers{binary.LittleEndian.AppendUint32(nil, uint32(data.Len()))}
	for _, b := range data {
		list = append(list, b.ReadOnlyData())
	}
	_, err := list.WriteTo(h.out)
	return err
}

func (h socketHop) recv() (mem.BufferSlice, error) {
	var head [4]byte
	if _, err := io.ReadFull(h.in, head[:]); err != nil {
		return nil, err
	}
	b := mem.DefaultBufferPool().Get(int(binary.LittleEndian.Uint32(head[:])))
	if _, err := io.ReadFull(h.in, *b); err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(b, mem.DefaultBufferPool())}, nil
}

// floorRelay passes messages of one client to the workers, and their answers back.
type floorRelay struct {
	free    chan *floorWorker // once for each message that a worker may be given
	answers chan mem.BufferSlice
	ended   chan error // what has ended first; one slot
	attach  sync.WaitGroup
}

type floorWorker struct{ jobs chan mem.BufferSlice }

// floorAhead is how many messages a worker has at most: one to work on, and the next.
const floorAhead = 2

func (r *floorRelay) end(err error) {
	select {
	case r.ended <- err:
	default:
	}
}

// serve is one connection, until it ends: its first byte says whose.
func (r *floorRelay) serve(h hop) error {
	hello, err := h.recv()
	if err != nil {
		return err
	}
	defer hello.Free()
	if string(hello.Materialize()) == "client" {
		go func() { // ends with the relay
			for data := range r.answers {
				if err := h.send(data); err != nil {
					r.end(err)
					return
				}
			}
		}()
		for {
			data, err := h.recv()
			if err != nil {
				return err
			}
			(<-r.free).jobs <- data
		}
	}
	w := &floorWorker{make(chan mem.BufferSlice, floorAhead)}
	go func() { // likewise
		for data := range w.jobs {
			if err := h.send(data); err != nil {
				r.end(err)
				return
			}
		}
	}()
	for range floorAhead {
		r.free <- w
	}
	r.attach.Done()
	for {
		data, err := h.recv()
		if err != nil {
			return err
		}
		r.answers <- data
		r.free <- w
	}
}

const floorMethod = "/procpool.bench.Floor/Relay"

// listen serves the relay at a path.
func (r *floorRelay) listen(path string, streams bool) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if !streams {
		go func() { // ends with the process
			for {
				c, err := l.Accept()
				if err != nil {
					r.end(err)
					return
				}
				go func() { r.end(r.serve(newSocketHop(c))) }()
			}
		}()
		return nil
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(floorCodec{}), grpc.MaxRecvMsgSize(wire.MaxMessage),
		grpc.InitialWindowSize(floorWindow), grpc.InitialConnWindowSize(floorWindow))
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "procpool.bench.Floor", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "Relay", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, s grpc.ServerStream) error { return r.serve(streamHop{s}) },
	}}}, r)
	go func() { r.end(server.Serve(l)) }()
	return nil
}

// floorWindow is larger than what is ever under way.
const floorWindow = 64 << 20

// dialFloor connects to the relay.
func dialFloor(ctx context.Context, path string, streams bool) (hop, error) {
	if !streams {
		c, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, err
		}
		return newSocketHop(c), nil
	}
	c, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(floorCodec{}), grpc.MaxCallRecvMsgSize(wire.MaxMessage)),
		grpc.WithInitialWindowSize(floorWindow), grpc.WithInitialConnWindowSize(floorWindow))
	if err != nil {
		return nil, err
	}
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, floorMethod)
	if err != nil {
		return nil, err
	}
	return streamHop{s}, nil
}

func owned(b []byte) mem.BufferSlice { return mem.BufferSlice{mem.SliceBuffer(b)} }

// runFloorWorker answers messages until the relay ends. A message is what shall be done, and the item.
func runFloorWorker(ctx context.Context, path string, streams bool) error {
	h, err := dialFloor(ctx, path, streams)
	if err == nil {
		err = h.send(owned([]byte("worker")))
	}
	for err == nil {
		var data mem.BufferSlice
		if data, err = h.recv(); err != nil {
			break
		}
		item := data.Materialize() // a function needs it in one piece
		data.Free()
		answer := item
		switch item[0] {
		case floorSum:
			answer = binary.LittleEndian.AppendUint64(nil, uint64(len(item)))
		case floorBlob:
			answer = blob(int(binary.LittleEndian.Uint64(item[1:])))
		}
		err = h.send(owned(answer))
	}
	return err
}

// What a message may ask for: itself, its length, or so many bytes.
const (
	floorEcho = iota
	floorSum
	floorBlob
)

// floorSide is the client of the relay.
type floorSide struct{ client hop }

// runFloor does what it reads until there is no more, like the other sides.
func runFloor(ctx context.Context, dir string, streams bool, in io.Reader, out io.Writer) error {
	answers, works := json.NewEncoder(out), json.NewDecoder(in)
	if err := answers.Encode(answer{}); err != nil {
		return err
	}
	var side *floorSide
	for {
		var w work
		if err := works.Decode(&w); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a work: %w", err)
		}
		var a *answer
		var err error
		if side == nil {
			side, err = startFloor(ctx, dir, streams, w.Workers)
		}
		if err == nil {
			a, err = side.do(w)
		}
		if err != nil {
			a = &answer{Error: err.Error()}
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

func startFloor(ctx context.Context, dir string, streams bool, workers int) (*floorSide, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err = os.MkdirTemp(dir, "f")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "floor.sock")
	r := &floorRelay{free: make(chan *floorWorker, workers*floorAhead), answers: make(chan mem.BufferSlice, workers*floorAhead), ended: make(chan error, 1)}
	if err := r.listen(path, streams); err != nil {
		return nil, err
	}
	r.attach.Add(workers)
	for range workers {
		cmd := exec.Command(self, floorCommand, "--socket", path, "--streams="+fmt.Sprint(streams))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		go func() { r.end(fmt.Errorf("a worker ended: %w", cmd.Wait())) }() // with this process, whose end it sees
	}
	s := &floorSide{}
	go func() { // ends with the process, which ends with whatever was first
		fmt.Fprintln(os.Stderr, "the relay has ended:", <-r.ended)
		os.Exit(1)
	}()
	if s.client, err = dialFloor(ctx, path, streams); err != nil {
		return nil, err
	}
	r.attach.Wait()
	return s, s.client.send(owned([]byte("client")))
}

// do sends messages and reads as many answers, and says how fast that was.
func (s *floorSide) do(w work) (*answer, error) {
	messages, per := w.Items, 1
	var message []byte
	var size int // of an answer
	switch w.Do {
	case "map": // as long as ours are, when chunks are automatic: items of some digits, and a byte for the size of each
		per = max(1, w.Chunk)
		if w.Chunk == 0 {
			per = min(4096, w.Items)
		}
		messages = w.Items / per
		message = make([]byte, 1+8*per)
		size = len(message)
	case "argument":
		message = make([]byte, 1+w.Bytes)
		message[0] = floorSum
		size = 8
	case "result":
		message = binary.LittleEndian.AppendUint64([]byte{floorBlob}, uint64(w.Bytes))
		size = w.Bytes
	case "apply":
		message = make([]byte, 8)
		return latency(w, manySamples, func() (time.Duration, error) { return s.exchange(1, message, len(message)) }, 50, 99)
	default:
		return nil, fmt.Errorf("there is no floor of %q", w.Do)
	}
	things := messages * per
	if w.Do == "argument" || w.Do == "result" {
		things = messages * w.Bytes
	}
	return rate(w, things, func() (time.Duration, error) { return s.exchange(messages, message, size) })
}

// exchange is so many messages and their answers, each of size bytes.
func (s *floorSide) exchange(n int, message []byte, size int) (time.Duration, error) {
	start := time.Now()
	sent := make(chan error, 1)
	go func() {
		for range n {
			if err := s.client.send(owned(message)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range n {
		data, err := s.client.recv()
		if err != nil {
			return 0, err
		}
		got := data.Materialize()
		data.Free()
		if len(got) != size {
			return 0, wrong("message", 0, len(got), size)
		}
	}
	return time.Since(start), <-sent
}

// forks starts true for every item and waits for it: nothing else. It gets an argument, as from the other sides: without one, GNU's sets no locale, and
// is done in two thirds of the time.
type forks struct{}

func (forks) close() {}

func (forks) round(ctx context.Context, w work) (*answer, error) {
	path, err := exec.LookPath("true")
	if err != nil {
		return nil, err
	}
	return rate(w, w.Items, func() (time.Duration, error) {
		start := time.Now()
		items := make(chan struct{})
		ended := make(chan error, w.Workers) // one slot for each
		for range w.Workers {
			go func() {
				var failed error
				for range items {
					failed = cmp.Or(failed, exec.CommandContext(ctx, path, "x").Run())
				}
				ended <- failed
			}()
		}
		for range w.Items {
			items <- struct{}{}
		}
		close(items)
		for range w.Workers {
			err = cmp.Or(err, <-ended)
		}
		return time.Since(start), err
	})
}

const floorCommand = "bench-floor"

func newFloorCommand() *cobra.Command {
	var dir, socket string
	var streams bool
	cmd := &cobra.Command{
		Use: floorCommand, Short: "Move bytes as bench asks for on stdin", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if socket != "" {
				return runFloorWorker(cmd.Context(), socket, streams)
			}
			return runFloor(cmd.Context(), dir, streams, os.Stdin, os.Stdout)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "where sockets are put")
	cmd.Flags().StringVar(&socket, "socket", "", "be a worker of this relay")
	cmd.Flags().BoolVar(&streams, "streams", false, "over gRPC")
	return cmd
}
