// E2eworker is the worker, and one of the clients, of the end-to-end tests.
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/workerproc"
)

var (
	_ = workerproc.Func("count_chars", func(_ context.Context, file string) (int, error) {
		b, err := os.ReadFile(file)
		return utf8.RuneCount(b), err
	})
	_ = workerproc.Func("raw", func(_ context.Context, b []byte) ([]byte, error) { return b, nil })
	_ = workerproc.Func("nap", func(ctx context.Context, ms int) (int, error) {
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
			return ms, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	})
	// until ends when a file is there.
	_ = workerproc.Func("until", func(ctx context.Context, file string) (int, error) {
		look := time.NewTicker(5 * time.Millisecond)
		defer look.Stop()
		for {
			if _, err := os.Stat(file); err == nil {
				return 1, nil
			}
			select {
			case <-look.C:
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	})
	_ = workerproc.Func("print", func(_ context.Context, lines int) (int, error) {
		for i := range lines {
			fmt.Println("line", i)
		}
		return lines, nil
	})
	_ = workerproc.Func("say", func(_ context.Context, text string) (int, error) {
		fmt.Println(text)
		return os.Getpid(), nil
	})
	_ = workerproc.Func("die", func(_ context.Context, text string) (int, error) {
		fmt.Fprintln(os.Stderr, text)
		os.Exit(3)
		return 0, nil
	})
	_ = workerproc.Func("die_at_3", func(_ context.Context, i int) (int, error) {
		if i == 3 {
			return 0, syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return i, nil
	})

	// descriptors is what this process has got from the daemon.
	_ = workerproc.Func("descriptors", func(context.Context, int) ([]string, error) { return descriptors, nil })

	// spin keeps its worker busy, whatever it is told.
	_ = workerproc.Func("spin", func(context.Context, int) (int, error) {
		signal.Ignore(syscall.SIGTERM)
		for i := 0; ; i++ {
		}
	})

	// family starts a child that ignores SIGTERM and returns the worker's pid and the child's.
	family = workerproc.Func("family", func(context.Context, int) ([]int, error) {
		child := exec.Command("sh", "-c", "trap '' TERM; sleep 1000")
		if err := child.Start(); err != nil {
			return nil, err
		}
		go child.Wait()
		return []int{os.Getpid(), child.Process.Pid}, nil
	})
)

// descriptors is what was open when this program began: each with its number and what it is. What the Go runtime has opened by then is not to be inherited, which
// tells it from the others.
var descriptors = func() (list []string) {
	for fd := range 1024 {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		what, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			what = err.Error()
		}
		list = append(list, fmt.Sprintf("%d %s", fd, what))
	}
	return list
}()

func main() {
	if len(os.Args) > 1 && os.Args[1] == "forgetful" {
		select {} // as if main went about its business
	}
	if len(os.Args) == 4 && os.Args[1] == "speaks" {
		if err := speak(os.Args[2], os.Args[3]); err != nil {
			log.Fatal(err)
		}
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "slow-init" {
		workerproc.Init(func(context.Context, int) error { select {} })
	}
	workerproc.Main()
	switch {
	case len(os.Args) == 4 && os.Args[1] == "client":
		beClient(os.Args[2], os.Args[3] != "")
	case len(os.Args) == 2 && os.Args[1] == "embed":
		embed()
	}
}

// speak says hello as a worker of other protocol versions, and prints the answer.
func speak(oldest, newest string) error {
	lo, err := strconv.ParseUint(oldest, 10, 32)
	if err != nil {
		return err
	}
	hi, err := strconv.ParseUint(newest, 10, 32)
	if err != nil {
		return err
	}
	frame := os.NewFile(3, "lifeline")
	head := make([]byte, 12)
	if _, err := io.ReadFull(frame, head); err != nil {
		return err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[8:]))
	if _, err := io.ReadFull(frame, body); err != nil {
		return err
	}
	boot := &pb.Bootstrap{}
	if err := proto.Unmarshal(body, boot); err != nil {
		return err
	}
	conn, err := grpc.NewClient("unix:"+boot.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	stream, err := pb.NewWorkerServiceClient(conn).Attach(context.Background())
	if err != nil {
		return err
	}
	if err := stream.Send(&pb.AttachRequest{Hello: &pb.Hello{Token: boot.Token, ProtocolMin: uint32(lo), ProtocolMax: uint32(hi)}}); err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	return errors.New(answer.GetRefused().GetMessage())
}

// embed opens a pool on a daemon inside this process, says which processes it has, and waits to be killed.
func embed() {
	ctx := context.Background()
	pool, err := local.OpenPool(ctx, client.Workers(1))
	if err != nil {
		log.Fatal(err)
	}
	pids, err := client.Apply(ctx, pool, family, 0)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(pids); err != nil {
		log.Fatal(err)
	}
	select {}
}

// beClient opens a pool, says which processes it has, and waits to be killed.
func beClient(worker string, withChild bool) {
	ctx := context.Background()
	c, err := client.Dial(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	pool, err := c.OpenPool(ctx, client.Program(worker), client.Workers(1))
	if err != nil {
		log.Fatal(err)
	}
	pids, err := client.Apply(ctx, pool, family, 0)
	if err != nil {
		log.Fatal(err)
	}
	out := struct {
		Workers []int
		Child   int
	}{Workers: pids}
	if withChild {
		if out.Child, err = heir(); err != nil {
			log.Fatal(err)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		log.Fatal(err)
	}
	select {}
}

// heir starts a child that inherits every descriptor, the connections to the daemon among them.
func heir() (pid int, err error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	attr := &os.ProcAttr{Files: []*os.File{nil, nil, nil}}
	for _, e := range entries {
		var fd int
		if err := json.Unmarshal([]byte(e.Name()), &fd); err != nil || fd < 3 {
			continue
		}
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && len(target) > 7 && target[:7] == "socket:" {
			dup, err := syscall.Dup(fd)
			if err != nil {
				return 0, err
			}
			attr.Files = append(attr.Files, os.NewFile(uintptr(dup), target))
		}
	}
	proc, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, attr)
	if err != nil {
		return 0, err
	}
	return proc.Pid, nil
}
