//go:build linux

// Vm runs a program in a small virtual machine: as root, with a whole cgroup hierarchy of version 2, its controllers memory and pids, and nothing else. It is for
// tests of what few machines let a test do. It needs qemu-system-x86_64, but neither root nor hardware virtualisation.
//
//	vm KERNEL DIR PROGRAM [ARG...]
//
// The files of DIR, statically linked, are in /bin there. Vm prints what the program prints, and ends with its exit status. It is also the machine's first process.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// statusLine is how the machine's first process says how the program has ended.
const statusLine = "vm: exit status "

// exitVM is the exit status if there is none of the program.
const exitVM = 125

func main() {
	if os.Getpid() == 1 {
		be()
	}
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		status = exitVM
	}
	os.Exit(status)
}

// run starts the machine and waits for its end.
func run(args []string) (status int, err error) {
	if len(args) < 3 {
		return 0, errors.New("usage: vm KERNEL DIR PROGRAM [ARG...]")
	}
	image, err := os.CreateTemp("", "vm-*.cpio")
	if err != nil {
		return 0, err
	}
	defer os.Remove(image.Name())
	if err := errors.Join(writeImage(image, args[1], args[2:]), image.Close()); err != nil {
		return 0, err
	}
	qemu := exec.Command("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024", "-display", "none", "-serial", "stdio",
		"-monitor", "none", "-no-reboot", "-net", "none", "-kernel", args[0], "-initrd", image.Name(), "-append", "console=ttyS0 quiet panic=-1")
	qemu.Stderr = os.Stderr
	out, err := qemu.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := qemu.Start(); err != nil {
		return 0, err
	}
	status = -1
	lines := bufio.NewReader(out)
	for {
		line, rerr := lines.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if _, after, ok := strings.Cut(line, statusLine); ok { // something may stand before it
			if status, err = strconv.Atoi(after); err != nil {
				return 0, err
			}
		} else if line != "" {
			fmt.Println(line)
		}
		if rerr != nil {
			break
		}
	}
	if err := qemu.Wait(); err != nil {
		return 0, fmt.Errorf("qemu: %w", err)
	}
	if status < 0 {
		return 0, errors.New("the machine has stopped before the program ended")
	}
	return status, nil
}

// writeImage writes the machine's file system, a cpio archive ("newc") that the kernel unpacks into memory.
func writeImage(w io.Writer, dir string, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	for _, d := range []string{"dev", "bin", "proc", "sys", "tmp", "root"} {
		entry(out, d, syscall.S_IFDIR|0o755, 0, nil)
	}
	entry(out, "dev/console", syscall.S_IFCHR|0o600, 5<<8|1, nil)
	entry(out, "args", syscall.S_IFREG|0o644, 0, []byte(strings.Join(args, "\x00")))
	programs := [][2]string{{"init", self}}
	for _, f := range files {
		programs = append(programs, [2]string{"bin/" + f.Name(), filepath.Join(dir, f.Name())})
	}
	for _, p := range programs {
		b, err := os.ReadFile(p[1])
		if err != nil {
			return err
		}
		entry(out, p[0], syscall.S_IFREG|0o755, 0, b)
	}
	entry(out, "TRAILER!!!", 0, 0, nil)
	return out.Flush()
}

var inode int

// entry writes a file. The writer keeps an error for Flush.
func entry(w *bufio.Writer, name string, mode, device int, data []byte) {
	inode++
	head := []byte("070701")
	for _, v := range []int{inode, mode, 0, 0, 1, 0, len(data), 0, 0, device >> 8, device & 0xff, len(name) + 1, 0} {
		head = fmt.Appendf(head, "%08x", v)
	}
	head = append(head, name...)
	head = append(head, 0)
	for _, part := range [][]byte{head, data} {
		_, _ = w.Write(part)
		_, _ = w.Write(make([]byte, pad(len(part))))
	}
}

// pad is how many bytes are missing to the next multiple of four.
func pad(n int) int { return -n & 3 }

// be is the first process of the machine: it runs the program, reaps whatever becomes an orphan meanwhile, and switches the machine off.
func be() {
	status, err := serve()
	if err != nil {
		fmt.Println("vm:", err)
		status = exitVM
	}
	fmt.Printf("\n%s%d\n", statusLine, status)
	fmt.Println("vm: cannot switch off:", syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF))
	select {} // process 1 must not end
}

func serve() (status int, err error) {
	for _, m := range [][3]string{{"proc", "/proc", "proc"}, {"sys", "/sys", "sysfs"}, {"dev", "/dev", "devtmpfs"}, {"cgroup", "/sys/fs/cgroup", "cgroup2"}} {
		if err := syscall.Mount(m[0], m[1], m[2], 0, ""); err != nil {
			return 0, fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory +pids"), 0); err != nil {
		return 0, err
	}
	b, err := os.ReadFile("/args")
	if err != nil {
		return 0, err
	}
	var args []string
	for a := range bytes.SplitSeq(b, []byte{0}) {
		args = append(args, string(a))
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	proc, err := os.StartProcess(args[0], args, &os.ProcAttr{
		Dir: "/tmp", Env: []string{"PATH=/bin", "HOME=/root", "PROCPOOL_TEST_BIN=/bin", "PROCPOOL_TEST_VM=1"}, Files: []*os.File{null, os.Stdout, os.Stderr},
	})
	if err != nil {
		return 0, err
	}
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait: %w", err)
		}
		if pid == proc.Pid {
			if ws.Signaled() {
				return 128 + int(ws.Signal()), nil
			}
			return ws.ExitStatus(), nil
		}
	}
}
