package bench

import (
	"bytes"
	"context"
	_ "embed" // the script
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// script is the side of Python's pools.
//
//go:embed bench.py
var script []byte

// A side does the same work round after round: procpool, or one of those it is compared with.
type side interface {
	// round does the work once more. What a side cannot do is an error, and so is a result that is wrong.
	round(ctx context.Context, w work) (*answer, error)
	close()
}

func sideName(peer string) string {
	if peer == "" {
		return "procpool"
	}
	return peer
}

// start makes a side of a measure; ours if peer is empty. The error says why there is none.
func (b *bench) start(ctx context.Context, m measure, peer string) (side, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	switch {
	case peer == "" && m.command:
		return &commands{
			every: func(w work) []string { return []string{self, "map", "-j", fmt.Sprint(w.Workers), "--", "true"} },
			one:   []string{self, "map", "--", "true", ":::", "x"},
		}, nil
	case peer == "":
		args := []string{sideCommand, "--dir", b.dir, "--daemon", b.daemon, "--python", b.options.python}
		if b.host.Addr != "" {
			args = append(args, "--addr", b.host.Addr)
		}
		return startProcess(ctx, self, args...)
	case peer == peerXargs:
		if _, err := exec.LookPath("xargs"); err != nil {
			return nil, err
		}
		return &commands{
			every: func(w work) []string { return []string{"xargs", "-P", fmt.Sprint(w.Workers), "-n", "1", "true"} },
			one:   []string{"xargs", "true"},
		}, nil
	case peer == peerParallel:
		version, err := exec.CommandContext(ctx, "parallel", "--version").Output()
		if err != nil {
			return nil, err
		}
		if !bytes.Contains(version, []byte("GNU")) {
			return nil, errors.New("the parallel in $PATH is another one")
		}
		return &commands{
			every: func(w work) []string { return []string{"parallel", "-j", fmt.Sprint(w.Workers), "true"} },
			one:   []string{"parallel", "true", ":::", "x"},
		}, nil
	case peer == peerExec:
		return forks{}, nil
	case peer == peerStreams || peer == peerSockets:
		return startProcess(ctx, self, floorCommand, "--dir", b.dir, fmt.Sprintf("--streams=%t", peer == peerStreams))
	}
	path := filepath.Join(b.dir, "bench.py")
	if err := os.WriteFile(path, script, 0o600); err != nil {
		return nil, err
	}
	return startProcess(ctx, b.options.python, "-W", "ignore", path, peer)
}

// process is a side that is a process. It reads a work from stdin and writes an answer to stdout, a line each, until stdin ends.
type process struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	stdout  io.Reader
	answers *json.Decoder
	stderr  bytes.Buffer

	mu     sync.Mutex
	reaped bool
}

// sidePatience is how long a side may take to end when it is told to.
const sidePatience = 10 * time.Second

// startProcess starts a side and waits until it says that it is there.
func startProcess(ctx context.Context, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...)}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that all of it can be killed; and Ctrl-C is for us to pass on
	p.cmd.Stderr = &p.stderr
	p.cmd.WaitDelay = time.Second
	var err error
	if p.stdout, err = p.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.answers = json.NewDecoder(p.stdout)
	if _, err := p.read(ctx); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *process) round(ctx context.Context, w work) (*answer, error) {
	line, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	if _, err := p.stdin.Write(append(line, '\n')); err != nil {
		return nil, p.broken(err)
	}
	return p.read(ctx)
}

// read waits for an answer. When ctx ends the process is killed, which ends the waiting.
func (p *process) read(ctx context.Context) (*answer, error) {
	stop := context.AfterFunc(ctx, p.kill)
	defer stop()
	var a answer
	if err := p.answers.Decode(&a); err != nil {
		return nil, p.broken(err)
	}
	if a.Error != "" {
		return nil, errors.New(a.Error)
	}
	return &a, nil
}

// broken is err with the last line that the process wrote.
func (p *process) broken(err error) error {
	p.close()
	lines := strings.Split(strings.TrimSpace(p.stderr.String()), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return fmt.Errorf("it ended: %s", last)
	}
	return fmt.Errorf("it ended: %w", err)
}

// kill kills the process and what it has started. It leads a group, whose number is its own until it has been reaped.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
}

// close lets the process end, and kills it if it does not; what it has left behind is killed in any case. It may be called again.
func (p *process) close() {
	p.stdin.Close()
	timer := time.AfterFunc(sidePatience, p.kill)
	defer timer.Stop()
	_, _ = io.Copy(io.Discard, p.stdout) // until all who hold it have ended
	p.kill()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = p.cmd.Wait() // it has said what there was to say
		p.reaped = true
	}
}

// commands is a side that is a command line, which is run anew each time.
type commands struct {
	every func(w work) []string // runs true for every line of stdin
	one   []string              // runs it once
}

func (c *commands) close() {}

func (c *commands) round(ctx context.Context, w work) (*answer, error) {
	argv, items := c.one, 1
	if w.Do == "command-rate" {
		argv, items = c.every(w), w.Items
	}
	input := strings.Repeat("x\n", items)
	took, err := sample(w.Seconds, 1, func() (time.Duration, error) {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Stdin = strings.NewReader(input)
		start := time.Now()
		out, err := cmd.CombinedOutput()
		d := time.Since(start)
		if err != nil {
			return 0, fmt.Errorf("%w: %.200q", err, out)
		}
		return d, nil // every command has succeeded: the status says so
	})
	if err != nil {
		return nil, err
	}
	value := percentile(took, 50).Seconds()
	if w.Do == "command-rate" {
		value = float64(items) / value
	}
	return &answer{Values: values(value), Checked: items * len(took)}, nil
}
