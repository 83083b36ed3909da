package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

var update = flag.Bool("update", false, "write the answers into docs/grpcurl.md anew")

// question is a command that changes nothing for long, and may be given again.
var question = regexp.MustCompile("PoolService/(Get|List|Logs|Watch|OpenPool)|health-probe")

// pageBlock is a command with its answer: a block of kind sh, then one of kind json or text.
var pageBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```\n\n```(json|text)\n(.*?)^```\n")

// The page is run as it stands, with the stock tools.
func TestGrpcurlPage(t *testing.T) {
	d := startDaemon(t)
	path := filepath.Join("..", "..", "docs", "grpcurl.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	run, dir := newShell(t, d)
	places := strings.NewReplacer(dir, "/srv/procpool", d.addr, "/run/user/1000/procpool/api.sock", findTool("grpcurl"), "/usr/bin/grpcurl")
	for method := range methods(pb.PoolService_ServiceDesc.Methods, pb.PoolService_ServiceDesc.Streams) {
		if !strings.Contains(string(page), "PoolService/"+method+"\n") && !strings.Contains(string(page), "PoolService/"+method+" &\n") {
			t.Errorf("the page does not show %s", method)
		}
	}
	n := 0
	page = pageBlock.ReplaceAllFunc(page, func(block []byte) []byte {
		m := pageBlock.FindSubmatch(block)
		command, kind, want := string(m[1]), string(m[2]), string(m[3])
		n++
		if *update {
			got := places.Replace(answer(run(command)))
			return fmt.Appendf(nil, "```sh\n%s```\n\n```%s\n%s```\n", command, kind, got)
		}
		compare := sameText
		if kind == "json" {
			compare = sameJSON
		}
		tries := 1
		if question.MatchString(command) { // what the last command has changed may show a little later; some have a limit of a second, which a busy machine overruns
			tries = 20
		}
		wrong := ""
		for range tries {
			if wrong = compare(places.Replace(answer(run(command))), want); wrong == "" {
				return block
			}
		}
		t.Errorf("%s\n%s", command, wrong)
		return block
	})
	if n < 20 {
		t.Errorf("only %d commands were found on the page", n)
	}
	if *update {
		if err := os.WriteFile(path, page, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// methods are the names of a service's RPCs.
func methods[M, S any](unary []M, streams []S) map[string]bool {
	names := make(map[string]bool)
	for _, m := range unary {
		names[reflect.ValueOf(m).FieldByName("MethodName").String()] = true
	}
	for _, s := range streams {
		names[reflect.ValueOf(s).FieldByName("StreamName").String()] = true
	}
	return names
}

// newShell runs commands in a directory that looks like the repository's, with the tools in the path.
func newShell(t *testing.T, d *daemon) (run func(command string) (stdout, stderr string), dir string) {
	t.Helper()
	for _, tool := range []string{"grpcurl", "grpc-health-probe"} {
		if findTool(tool) == "" {
			missing := tool + " is not there, so docs/grpcurl.md is NOT tested here; tools/install brings it"
			if os.Getenv("CI") != "" {
				t.Fatal(missing)
			}
			t.Skip(missing)
		}
	}
	dir = t.TempDir()
	license, err := filepath.Abs(filepath.Join("..", "..", "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink(bin, filepath.Join(dir, "bin")), os.Symlink(license, filepath.Join(dir, "LICENSE"))); err != nil {
		t.Fatal(err)
	}
	path := filepath.Dir(findTool("grpcurl")) + ":" + filepath.Dir(findTool("grpc-health-probe")) + ":" + os.Getenv("PATH")
	return func(command string) (string, string) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-c", command)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PROCPOOL_ADDR="+d.addr, "PATH="+path)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		background := strings.HasSuffix(command, "&\n")
		if background {
			cmd.Stdout, cmd.Stderr = nil, nil // it lives on, and is not waited for
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		}
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if background { // it makes a call
			eventually(t, patience, func() string {
				if calls, _, _ := d.run("procpool", "calls", "-o", "json"); calls == "[]\n" {
					return "there is no call yet"
				}
				return ""
			})
		}
		return stdout.String(), stderr.String()
	}, dir
}

func findTool(name string) string {
	if tool, err := exec.LookPath(name); err == nil {
		return tool
	}
	if tool, err := filepath.Abs(filepath.Join("..", "..", ".tools", "bin", name)); err == nil {
		if _, err := os.Stat(tool); err == nil {
			return tool
		}
	}
	return ""
}

// answer is what the page has of a command: what it wrote to stdout, and where that is nothing what it wrote to stderr.
func answer(stdout, stderr string) string {
	if stdout == "" {
		return stderr
	}
	return stdout
}

func sameText(got, want string) string {
	if got != want {
		return fmt.Sprintf("got\n%s\nwant\n%s", got, want)
	}
	return ""
}

// sameJSON compares streams of messages, whatever is in which of them.
func sameJSON(got, want string) string {
	g, err := merged(got)
	if err != nil {
		return err.Error() + ": " + got
	}
	w, err := merged(want)
	if err != nil {
		return err.Error() + ": " + want
	}
	if !reflect.DeepEqual(g, w) {
		a, _ := json.MarshalIndent(g, "", "  ")
		b, _ := json.MarshalIndent(w, "", "  ")
		return fmt.Sprintf("got\n%s\nwant\n%s", a, b)
	}
	return ""
}

// merged is all messages of a stream as one, with what differs from run to run left out.
func merged(stream string) (map[string]any, error) {
	all := make(map[string]any)
	for dec := json.NewDecoder(strings.NewReader(stream)); ; {
		var m map[string]any
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if slices.Contains(passing, key) {
				continue
			}
			v := stable(key, m[key])
			switch old := all[key].(type) {
			case []any:
				all[key] = append(old, v.([]any)...)
			case map[string]any:
				maps.Copy(old, v.(map[string]any))
			default:
				all[key] = v
			}
		}
	}
}

// differing are the fields that have another value each time. A value stays, so that the field must be there.
var differing = []string{
	"callId", "created", "started", "time", "since", "oldestSince", "pid", "version", "socket", "command", "identity", "memory", "worker", "name", "program",
}

// passing are the fields whose presence is chance: whether a worker was ready yet, and how long something took.
var passing = []string{
	"uid", "starting", "idle", "busy", "runTime", "waitTime", "cpuTime", "index", "functions", "dispatchedTasks", "state", "lastExit", "doneTasks", "exits", "outputs",
}

func stable(key string, v any) any {
	switch v := v.(type) {
	case []any:
		switch key {
		case "results":
			return byIndex(v)
		case "guarantees": // what holds differs from machine to machine, but not what is asked
			for i, g := range v {
				v[i] = g.(map[string]any)["name"]
			}
			return v
		}
		for i := range v {
			v[i] = stable("", v[i])
		}
		return v
	case map[string]any:
		for k := range v {
			if slices.Contains(passing, k) {
				delete(v, k)
				continue
			}
			v[k] = stable(k, v[k])
		}
		return v
	}
	if slices.Contains(differing, key) {
		return "…"
	}
	return v
}

// byIndex is results by the index of their task, however they came together.
func byIndex(results []any) map[string]any {
	all := make(map[string]any)
	for _, r := range results {
		r := r.(map[string]any)
		first := 0
		fmt.Sscan(fmt.Sprint(r["first"]), &first) // absent: 0
		indexes, named := r["indexes"].([]any)
		for i, v := range r["json"].([]any) {
			index := fmt.Sprint(first + i)
			if named {
				index = fmt.Sprint(indexes[i])
			}
			all[index] = v
		}
	}
	return all
}
