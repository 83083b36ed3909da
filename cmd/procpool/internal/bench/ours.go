package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/workerproc"
)

// The functions that are measured. The workers are this program.
var (
	nextFunc = workerproc.Func("procpool.bench.next", func(_ context.Context, i int) (int, error) { return i + 1, nil })
	sumFunc  = workerproc.Func("procpool.bench.sum", func(_ context.Context, b []byte) (int, error) { return sumOf(b), nil })
	blobFunc = workerproc.Func("procpool.bench.blob", func(_ context.Context, size int) ([]byte, error) { return blob(size), nil })
	echoFunc = workerproc.Func("procpool.bench.echo", func(_ context.Context, b []byte) ([]byte, error) { return b, nil })
	// napFunc sleeps for so many microseconds and returns how many it took.
	napFunc = workerproc.Func("procpool.bench.nap", func(ctx context.Context, us int) (int, error) {
		start := time.Now()
		timer := time.NewTimer(time.Duration(us) * time.Microsecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		return int(time.Since(start).Microseconds()), nil
	})
	// dozeFunc is napFunc by a system call, as time.sleep of Python is: the runtime's timers are no finer than a millisecond when nothing else is to be done.
	dozeFunc = workerproc.Func("procpool.bench.doze", func(_ context.Context, us int) (int, error) {
		start := time.Now()
		took := time.Duration(0)
		for d := time.Duration(us) * time.Microsecond; took < d; took = time.Since(start) {
			left := unix.NsecToTimeval(int64(d - took))
			_, _ = unix.Select(0, nil, nil, nil, &left) // a signal may end it early
		}
		return int(took.Microseconds()), nil
	})
	waitFunc = workerproc.Func("procpool.bench.wait", func(ctx context.Context, b []byte) (int, error) {
		<-ctx.Done()
		return len(b), ctx.Err()
	})
	dieFunc    = workerproc.Func("procpool.bench.die", func(context.Context, int) (int, error) { return 0, syscall.Kill(os.Getpid(), syscall.SIGKILL) })
	memoryFunc = workerproc.Func("procpool.bench.memory", func(context.Context, int) ([]int, error) { return memoryOf("self") })
)

// sumOf is enough of an item to see that it has arrived: its length and its ends.
func sumOf(b []byte) int { return len(b) + int(b[0]) + int(b[len(b)-1]) }

var blobs sync.Map // size to bytes: they are filled once, so that it is their way that is measured

// blob is bytes that are another object each time, as a user's results are.
func blob(size int) []byte {
	b, ok := blobs.Load(size)
	if !ok {
		b, _ = blobs.LoadOrStore(size, bytes.Repeat([]byte{'x'}, size))
	}
	return bytes.Clone(b.([]byte))
}

// sideCommand is our side: this program again, in a process of its own.
const sideCommand = "bench-side"

func newSideCommand(host func() Host) *cobra.Command {
	o := &ours{}
	cmd := &cobra.Command{
		Use:    sideCommand,
		Short:  "Do what bench asks for on stdin",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.addr = host().Addr
			return o.serve(cmd.Context(), os.Stdin, os.Stdout)
		},
	}
	cmd.Flags().StringVar(&o.dir, "dir", "", "where the socket of a daemon is put")
	cmd.Flags().StringVar(&o.python, "python", "python3", "the Python of line workers")
	cmd.Flags().StringVar(&o.program, "daemon", "", "the daemon's program; empty for an embedded one")
	return cmd
}

// ours is procpool as a side: a client, with the daemon inside or beside it.
type ours struct {
	addr    string
	dir     string
	program string
	python  string

	daemon *daemonProcess // nil: embedded, or not ours
	client *client.Client // nil: embedded
	pool   *client.Pool   // the one that is kept from round to round; nil until the first needs it
	blobs  [][]byte       // items, kept likewise
}

// rounds are what can be asked for.
var rounds = map[string]func(*ours, context.Context, work) (*answer, error){
	"map":           (*ours).mapInts,
	"imap":          (*ours).imap,
	"line-rate":     (*ours).lineRate,
	"apply-async":   (*ours).applyAsync,
	"apply":         (*ours).apply,
	"argument":      (*ours).argument,
	"result":        (*ours).result,
	"start-cold":    (*ours).startCold,
	"start-worker":  (*ours).startWorker,
	"start-warm":    (*ours).startWarm,
	"fair-apply":    (*ours).fairApply,
	"fair-queue":    (*ours).fairQueue,
	"fair-shares":   (*ours).fairShares,
	"memory-imap":   (*ours).memoryIMap,
	"memory-calls":  (*ours).memoryCalls,
	"memory-idle":   (*ours).memoryIdle,
	"crash":         (*ours).crash,
	"recycle":       (*ours).recycle,
	"recycle-paced": (*ours).recyclePaced,
	"cpu":           (*ours).cpu,
}

// serve does what it reads until there is no more.
func (o *ours) serve(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	defer func() { err = errors.Join(err, o.close()) }()
	answers := json.NewEncoder(out)
	if err := o.connect(ctx); err != nil {
		return answers.Encode(answer{Error: err.Error()})
	}
	if err := answers.Encode(answer{}); err != nil {
		return err
	}
	for works := json.NewDecoder(in); ; {
		var w work
		if err := works.Decode(&w); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a work: %w", err)
		}
		a, err := &answer{}, fmt.Errorf("there is no work %q", w.Do)
		if do := rounds[w.Do]; do != nil {
			runtime.GC() // what the last round has left is not this one's
			a, err = do(o, ctx, w)
		}
		if err != nil {
			a = &answer{Error: err.Error()}
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

// connect starts the daemon, unless it is embedded or runs already, and connects to it.
func (o *ours) connect(ctx context.Context) (err error) {
	switch {
	case o.addr != "":
		o.client, err = client.Dial(ctx, o.addr)
		return err
	case o.program == "":
		return nil
	}
	dir, err := os.MkdirTemp(o.dir, "d") // one of its own: the last daemon may just be leaving
	if err != nil {
		return err
	}
	o.addr = filepath.Join(dir, "api.sock")
	if o.daemon, err = startDaemon(o.program, o.addr); err != nil {
		return err
	}
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		if o.client, err = client.Dial(ctx, o.addr); err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-o.daemon.done:
			return fmt.Errorf("%s ended: %.200q", o.program, &o.daemon.stderr)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// daemonProcess is a procpoold of ours.
type daemonProcess struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer  // complete when done is closed
	done   chan struct{} // closed when it has been waited for
}

func startDaemon(program, addr string) (*daemonProcess, error) {
	d := &daemonProcess{cmd: exec.Command(program, "--addr", addr, "--log-level", "error", "--drain-timeout", "1s"), done: make(chan struct{})}
	d.cmd.Stderr = &d.stderr
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the process, which stop sees to
		_ = d.cmd.Wait()
		close(d.done)
	}()
	return d, nil
}

func (d *daemonProcess) stop() {
	d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.done
}

func (o *ours) close() error {
	var errs []error
	if o.pool != nil {
		errs = append(errs, o.pool.Terminate())
	}
	if o.client != nil {
		errs = append(errs, o.client.Close())
	}
	if o.daemon != nil {
		o.daemon.stop()
	}
	return errors.Join(errs...)
}

// open makes a pool.
func (o *ours) open(ctx context.Context, workers int, more ...client.PoolOption) (*client.Pool, error) {
	opts := append([]client.PoolOption{
		client.Workers(workers), client.CancelGrace(time.Second),
		client.Output(func(l client.WorkerOutput) { fmt.Fprintf(os.Stderr, "%s: %s\n", l.Worker, l.Line) }), // stdout is for answers
	}, more...)
	if o.client == nil {
		return local.OpenPool(ctx, opts...)
	}
	return o.client.OpenPool(ctx, opts...)
}

// kept is the pool that is kept from round to round. Its workers have answered.
func (o *ours) kept(ctx context.Context, w work) (*client.Pool, error) {
	if o.pool == nil {
		pool, err := o.open(ctx, w.Workers)
		if err != nil {
			return nil, err
		}
		o.pool = pool
		if _, err := client.Map(ctx, pool, napFunc, slices.Repeat([]int{1000}, 4*w.Workers), client.ChunkSize(1)); err != nil {
			return nil, err
		}
	}
	return o.pool, nil
}
