package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"github.com/procpool/procpool/workerproc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

// do is the function of all workers here. Its argument is mostly the name of nothing in particular, and comes back in capitals; some are the names
// of misdeeds.
var do = workerproc.Func("do", func(ctx context.Context, what string) (string, error) {
	if misdeed := misdeeds[what]; misdeed != nil {
		return misdeed(ctx)
	}
	return strings.ToUpper(what), nil
})

// misdeeds are what a function can do to its worker.
var misdeeds map[string]func(context.Context) (string, error)

func init() {
	die := func(sig syscall.Signal) func(context.Context) (string, error) {
		return func(context.Context) (string, error) {
			syscall.Kill(os.Getpid(), sig)
			select {} // it takes a moment
		}
	}
	exit := func(code int) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { os.Exit(code); return "", nil }
	}
	misdeeds = map[string]func(context.Context) (string, error){
		"exits with status 0": exit(0),
		"exits with status 3": exit(3),
		"kills itself":        die(syscall.SIGKILL),
		"gets SIGSEGV":        die(syscall.SIGSEGV),
		"is aborted":          die(syscall.SIGABRT),
		"stops itself":        die(syscall.SIGSTOP),
		"writes a MiB": func(ctx context.Context) (string, error) {
			_, err := workerproc.Output(ctx, 1).Write(make([]byte, 1<<20))
			return "written", err
		},
		"reads where nothing is": func(context.Context) (string, error) {
			page, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
			return string(page[:10]), err
		},
		"panics elsewhere": func(context.Context) (string, error) { go panic("so long"); select {} },
		"hangs":            func(context.Context) (string, error) { select {} },
		"hangs for ever":   func(context.Context) (string, error) { select {} },
		"hangs at first": func(ctx context.Context) (string, error) {
			if info, _ := workerproc.TaskInfo(ctx); info.Attempt == 1 {
				select {}
			}
			return "HANGS AT FIRST", nil
		},
		"computes for ever": func(context.Context) (string, error) {
			for {
				spin++
			}
		},
		"ignores SIGTERM": func(context.Context) (string, error) { signal.Ignore(syscall.SIGTERM); select {} },
		"obeys":           func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() },
		"has a family":    func(context.Context) (string, error) { return "", family(false) },
		"leaves a family and dies": func(context.Context) (string, error) {
			return "", errors.Join(family(false), syscall.Kill(os.Getpid(), syscall.SIGKILL))
		},
		"leaves a session and dies": func(context.Context) (string, error) {
			return "", errors.Join(family(true), syscall.Kill(os.Getpid(), syscall.SIGKILL))
		},
		"floods stdout": func(context.Context) (string, error) {
			line := bytes.Repeat([]byte("all work and no play\n"), 1000)
			for range 20 { // 20,000 lines
				if _, err := os.Stdout.Write(line); err != nil {
					return "", err
				}
			}
			return "FLOODS STDOUT", nil
		},
		"prints a line of 1 GiB": func(context.Context) (string, error) {
			part := bytes.Repeat([]byte("x"), 1<<20)
			for range 1 << 10 {
				if _, err := os.Stdout.Write(part); err != nil {
					return "", err
				}
			}
			return "PRINTS A LINE OF 1 GIB", nil
		},
		"closes its output": func(context.Context) (string, error) {
			return "CLOSES ITS OUTPUT", errors.Join(os.Stdout.Close(), os.Stderr.Close())
		},
		"closes every descriptor": func(context.Context) (string, error) {
			for fd := range 1000 {
				syscall.Close(fd)
			}
			select {}
		},
		"stays a minute": func(ctx context.Context) (string, error) {
			select {
			case <-time.After(time.Minute):
			case <-ctx.Done():
			}
			return "", ctx.Err()
		},
	}
}

var spin int

// family starts a child and a grandchild that ignore SIGTERM and hold stdout; in a session of their own, if they are to escape.
func family(escape bool) error {
	c := exec.Command("/bin/sh", "-c", `trap "" TERM; (sleep 1000) & echo; sleep 1000`)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	c.Stdout, c.Stderr = w, os.Stdout
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: escape}
	if err := c.Start(); err != nil {
		return err
	}
	_, err = r.Read(make([]byte, 1)) // they run
	return err
}

// evilWorker is a worker that speaks the protocol by hand.
type evilWorker struct {
	mode   string
	boot   *pb.Bootstrap
	client pb.WorkerServiceClient
	stream pb.WorkerService_AttachClient
	record []byte // mapped, if the mode keeps one
}

// beEvilWorker is a whole life. It returns the exit status.
func beEvilWorker(mode string) int {
	if mode == "exits at once" {
		fmt.Fprintln(os.Stderr, "I will not")
		return 5
	}
	w := &evilWorker{mode: mode}
	if err := w.live(); err != nil {
		fmt.Fprintln(os.Stderr, "evil worker:", err)
		return 1
	}
	return 0
}

func (w *evilWorker) live() error {
	if err := w.readBootstrap(); err != nil {
		return err
	}
	conn, err := grpc.NewClient("unix:"+w.boot.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxMessage), grpc.MaxCallSendMsgSize(1<<30)))
	if err != nil {
		return err
	}
	w.client = pb.NewWorkerServiceClient(conn)
	switch w.mode {
	case "never registers":
		select {}
	case "attaches and says nothing":
		if _, err := w.client.Attach(context.Background()); err != nil {
			return err
		}
		select {}
	case "says something else than hello":
		if w.stream, err = w.client.Attach(context.Background()); err != nil {
			return err
		}
		return errors.Join(w.say(&pb.AttachRequest{Ready: &pb.Ready{}}), w.refused())
	}
	if err := w.attach(); err != nil {
		return err
	}
	switch w.mode {
	case "is never ready":
		select {}
	case "fails to initialise":
		err := errors.Join(w.say(&pb.AttachRequest{Ready: &pb.Ready{Error: &pb.TaskError{Message: "no licence"}}}), w.stream.CloseSend())
		for err == nil { // until the daemon has read it
			_, err = w.stream.Recv()
		}
		return errors.New("no licence")
	case "leaves before it is ready":
		return w.stream.CloseSend()
	}
	if err := w.say(&pb.AttachRequest{Ready: &pb.Ready{}}); err != nil {
		return err
	}
	switch w.mode {
	case "dies when it is ready":
		return errors.New("I cannot bear it")
	case "registers twice":
		second := *w
		if second.stream, err = w.client.Attach(context.Background()); err != nil {
			return err
		}
		if err := second.say(&pb.AttachRequest{Hello: w.hello()}); err != nil {
			return err
		}
		m, err := second.stream.Recv()
		if err != nil {
			return err
		}
		fmt.Println("refused:", m.GetRefused().GetMessage())
	case "says goodbye and stays", "ignores stop":
		signal.Ignore(syscall.SIGTERM)
	}
	return w.work()
}

// readBootstrap reads the frame on descriptor 3, and ends the process when that ends.
func (w *evilWorker) readBootstrap() error {
	lifeline := os.NewFile(3, "lifeline")
	head := make([]byte, 12)
	if _, err := io.ReadFull(lifeline, head); err != nil {
		return err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[8:]))
	if _, err := io.ReadFull(lifeline, body); err != nil {
		return err
	}
	go func() {
		_, _ = lifeline.Read(make([]byte, 1))
		syscall.Kill(0, syscall.SIGKILL)
	}()
	w.boot = &pb.Bootstrap{}
	return proto.Unmarshal(body, w.boot)
}

func (w *evilWorker) say(m *pb.AttachRequest) error { return w.stream.Send(m) }

// hello is what the worker says about itself.
func (w *evilWorker) hello() *pb.Hello {
	h := &pb.Hello{
		Token: w.boot.Token, Generation: w.boot.Generation, ProtocolMin: 1, ProtocolMax: 1, CreditTasks: 100, CreditBytes: 1 << 20,
		Functions: []*pb.Function{{Name: "do", Encoding: "json"}}, Sdk: "evil",
	}
	switch w.mode {
	case "has a wrong token", "has a wrong token and stays":
		h.Token = bytes.Repeat([]byte{7}, 32)
	case "speaks another version of the protocol":
		h.ProtocolMin, h.ProtocolMax = 7, 9
	case "keeps garbage for a record", "keeps a record of another's task", "keeps a record of nothing", "cuts its record off and writes none":
		h.Features, h.CreditTasks = []string{workerproc.FeatureProgress}, 1 // else several tasks could be the one
	case "has a function without a name":
		h.Functions[0].Name = ""
	case "has other functions each time":
		h.Functions = append(h.Functions, &pb.Function{Name: fmt.Sprint("f", w.boot.Generation), Encoding: "json"})
	}
	return h
}

// attach says hello and hears welcome.
func (w *evilWorker) attach() (err error) {
	if w.mode == "has a used token" { // the first conversation has used it up
		first := *w
		if first.stream, err = w.client.Attach(context.Background()); err != nil {
			return err
		}
		first.mode = ""
		if err := errors.Join(first.say(&pb.AttachRequest{Hello: w.hello()}), first.stream.CloseSend()); err != nil {
			return err
		}
		for err == nil {
			_, err = first.stream.Recv()
		}
	}
	if w.stream, err = w.client.Attach(context.Background()); err != nil {
		return err
	}
	hello := w.hello()
	if err := w.say(&pb.AttachRequest{Hello: hello}); err != nil {
		return err
	}
	m, err := w.stream.Recv()
	if err != nil {
		return err
	}
	if m.Refused != nil {
		fmt.Fprintln(os.Stderr, m.Refused.Message)
		if w.mode == "has a wrong token and stays" {
			select {}
		}
		os.Exit(workerproc.ExitConfig)
	}
	if len(hello.Features) > 0 {
		w.record, err = unix.Mmap(int(w.boot.ProgressFd), 0, int(w.boot.ProgressSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		copy(w.record, "PPROGR01")
	}
	return err
}

// refused wants to hear that it is refused.
func (w *evilWorker) refused() error {
	if m, err := w.stream.Recv(); err == nil && m.Refused == nil {
		return fmt.Errorf("it was let in: %v", m)
	}
	return nil
}

// work does what chunks say, until the stream ends. A task that is called "now" does what is wrong with the worker; one that is called "keep" lasts
// until it is let go.
func (w *evilWorker) work() error {
	for {
		m, err := w.stream.Recv()
		if err != nil {
			return err
		}
		if m.Stop != nil && w.mode != "ignores stop" {
			return w.leave()
		}
		var back []*pb.Returned
		for _, r := range m.Revokes {
			back = append(back, &pb.Returned{Chunk: r.Chunk, From: 1<<32 - 1})
		}
		if back != nil {
			if err := w.say(&pb.AttachRequest{Returned: back}); err != nil {
				return err
			}
		}
		for _, c := range m.Chunks {
			for offset, item := range split(c.Items) {
				var what string
				if err := json.Unmarshal(item, &what); err != nil {
					return err
				}
				answer := report(c.Id, offset, strings.ToUpper(what))
				switch what {
				case "now":
					err = w.misbehave(c, offset, answer)
				case "keep":
					err = errors.Join(keep(c), w.say(&pb.AttachRequest{Results: []*pb.ChunkResults{answer}}))
				default:
					err = w.say(&pb.AttachRequest{Results: []*pb.ChunkResults{answer}})
				}
				if err != nil {
					return err
				}
			}
		}
	}
}

// leave says goodbye, and ends the stream.
func (w *evilWorker) leave() error {
	err := w.say(&pb.AttachRequest{Goodbye: &pb.Goodbye{}})
	if w.mode == "says goodbye and stays" {
		return errors.Join(err, w.hang())
	}
	return errors.Join(err, w.stream.CloseSend())
}

// Files in the directory of a pool, by which its workers and their test meet.
const (
	keptChunks = "chunks" // the numbers of those with a task that is kept, a line each
	letGo      = "let-go" // is there when such tasks may end
)

// keep says which chunk is kept, and waits until it may go.
func keep(c *pb.Chunk) error {
	kept, err := os.OpenFile(keptChunks, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(kept, c.Id)
	if err := errors.Join(err, kept.Close()); err != nil {
		return err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := os.Stat(letGo); err == nil {
			break
		}
	}
	return nil
}

// neighbour is the chunk that another worker keeps.
func neighbour() (chunk uint64, err error) {
	b, err := os.ReadFile(keptChunks)
	if err == nil {
		_, err = fmt.Sscan(string(b), &chunk)
	}
	return chunk, err
}

// split is the items of a batch.
func split(b *pb.Batch) (items [][]byte) {
	data := b.Data
	cut := func(n uint32) {
		items = append(items, data[:n])
		data = data[n:]
	}
	for _, n := range b.Sizes {
		cut(n)
	}
	for range b.Count {
		cut(b.ItemSize)
	}
	return items
}

func report(chunk uint64, offset int, result string) *pb.ChunkResults {
	b, _ := json.Marshal(result) // a string
	return rawReport(chunk, offset, b)
}

func rawReport(chunk uint64, offset int, b []byte) *pb.ChunkResults {
	return &pb.ChunkResults{Chunk: chunk, First: uint32(offset), Values: &pb.Batch{Data: b, ItemSize: uint32(len(b)), Count: 1}}
}

// misbehave does what is wrong with the worker, in the middle of a task.
func (w *evilWorker) misbehave(c *pb.Chunk, offset int, answer *pb.ChunkResults) error {
	say := func(results ...*pb.ChunkResults) error { return w.say(&pb.AttachRequest{Results: results}) }
	switch w.mode {
	case "answers twice":
		return say(answer, answer)
	case "answers for a task that it does not have":
		return say(report(c.Id+1000, 0, "mine"))
	case "answers for a later task":
		return say(report(c.Id, offset+1, "mine"))
	case "answers nothing":
		return say(&pb.ChunkResults{Chunk: c.Id, First: uint32(offset)})
	case "answers with an outcome of its own":
		return say(&pb.ChunkResults{Chunk: c.Id, First: uint32(offset), Failures: []*pb.TaskFailure{{Offset: uint32(offset), Outcome: pb.Outcome_OUTCOME_WORKER_LOST}}})
	case "answers late":
		<-time.After(timeout + cancelGrace/20)
		return say(answer)
	case "answers when it is cancelled":
		for {
			m, err := w.stream.Recv()
			if err != nil {
				return err
			}
			if len(m.Cancels) > 0 {
				return say(answer)
			}
		}
	case "answers at SIGTERM":
		told := make(chan os.Signal, 1) // one signal
		signal.Notify(told, syscall.SIGTERM)
		<-told
		return errors.Join(say(answer), w.hang())
	case "answers with something undecodable":
		return say(rawReport(c.Id, offset, []byte("}{")))
	case "answers with more than a result may have":
		return say(rawReport(c.Id, offset, make([]byte, wire.MaxItem+1)))
	case "answers with more than a message may have":
		return say(rawReport(c.Id, offset, make([]byte, wire.MaxMessage+1)))
	case "answers with sizes that do not add up":
		answer.Values.Count = 1000
		return say(answer)
	case "gives back what it has not got":
		return w.say(&pb.AttachRequest{Returned: []*pb.Returned{{Chunk: c.Id + 1000}}})
	case "answers for a neighbour's task", "gives back a neighbour's task", "writes for a neighbour's task":
		chunk, err := neighbour()
		if err != nil {
			return err
		}
		switch w.mode {
		case "answers for a neighbour's task":
			return say(report(chunk, 0, "forged"))
		case "gives back a neighbour's task":
			return w.say(&pb.AttachRequest{Returned: []*pb.Returned{{Chunk: chunk}}})
		default:
			return w.say(&pb.AttachRequest{Outputs: []*pb.TaskOutput{{Chunk: chunk, Stream: 1, Data: []byte("forged")}}, Results: []*pb.ChunkResults{answer}})
		}
	case "says goodbye and stays":
		return w.leave()
	case "ends its stream and lives on":
		return errors.Join(w.stream.CloseSend(), w.hang())
	case "keeps garbage for a record":
		for i := range w.record[8:] {
			w.record[8+i] = byte(rand.Uint32())
		}
	case "keeps a record of another's task":
		binary.NativeEndian.PutUint64(w.record[16:], c.Id+1000)
		binary.NativeEndian.PutUint32(w.record[28:], 1)
	case "cuts its record off and writes none":
		if err := syscall.Ftruncate(int(w.boot.ProgressFd), 0); err == nil {
			return errors.New("its record could be cut off")
		}
	case "keeps a record of nothing":
		return w.hang()
	default:
		return fmt.Errorf("the evil worker does not know how to be one that %s", w.mode)
	}
	return errors.Join(syscall.Kill(os.Getpid(), syscall.SIGKILL), w.hang())
}

func (w *evilWorker) hang() error {
	runtime.KeepAlive(w)
	select {}
}
