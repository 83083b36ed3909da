package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/procpool/procpool/workerproc"
)

// What the tests of cgroups need. No other program is used, as there is none in the virtual machine that they run in.

var (
	// cgroup is the worker's own cgroup, as the kernel has it.
	_ = workerproc.Func("cgroup", func(context.Context, int) (string, error) {
		b, err := os.ReadFile("/proc/self/cgroup")
		return string(b), err
	})

	// escape starts a child in a session of its own that ignores SIGTERM, and returns its pid.
	_ = workerproc.Func("escape", func(context.Context, int) (int, error) {
		child := exec.Command("/proc/self/exe", "linger")
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		out, err := child.StdoutPipe()
		if err != nil {
			return 0, err
		}
		if err := child.Start(); err != nil {
			return 0, err
		}
		_, err = out.Read(make([]byte, 1)) // it ignores the signal from here on
		return child.Process.Pid, err
	})

	// hog takes so many MiB of memory, and keeps them.
	_ = workerproc.Func("hog", func(_ context.Context, mib int) (int, error) {
		take(mib)
		return len(taken), nil
	})

	// brood has so many MiB taken by a child, which keeps them, and waits for its end if it is told to.
	_ = workerproc.Func("brood", func(_ context.Context, mib int) (int, error) {
		child := exec.Command("/proc/self/exe", "hog", strconv.Itoa(mib))
		out, err := child.StdoutPipe()
		if err != nil {
			return 0, err
		}
		if err := child.Start(); err != nil {
			return 0, err
		}
		_, err = out.Read(make([]byte, 1)) // the end, if it is killed
		return child.Process.Pid, err
	})

	// multiply starts so many children, and returns how many it could start. They are killed in the end.
	_ = workerproc.Func("multiply", func(_ context.Context, n int) (int, error) {
		for i := range n {
			child := exec.Command("/proc/self/exe", "linger")
			child.Env = append(os.Environ(), "GOMAXPROCS=1")
			if err := child.Start(); err != nil {
				return 0, fmt.Errorf("child %d: %w", i, err)
			}
			defer child.Wait()
			defer child.Process.Kill()
		}
		return n, nil
	})
)

var taken [][]byte

func take(mib int) {
	for range mib {
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = byte(i)
		}
		taken = append(taken, b)
	}
}

// init is for processes that are no workers.
func init() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "linger":
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
		fmt.Println("ready")
		time.Sleep(time.Hour)
		os.Exit(0)
	case len(os.Args) == 3 && os.Args[1] == "hog":
		mib, err := strconv.Atoi(os.Args[2])
		if err != nil {
			os.Exit(1)
		}
		take(mib)
		fmt.Println("ready")
		time.Sleep(time.Hour)
		os.Exit(0)
	case len(os.Args) == 2 && os.Args[1] == "wrapped": // a wrapper that puts its worker into a session of its own, and waits for it
		worker := exec.Command("/proc/self/exe")
		worker.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		worker.ExtraFiles = []*os.File{os.NewFile(3, "lifeline"), os.NewFile(4, "progress")}
		worker.Stdout, worker.Stderr = os.Stdout, os.Stderr
		if err := worker.Run(); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
}
