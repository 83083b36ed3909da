package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCompletions(t *testing.T) {
	t.Parallel()
	addr := newDaemon(t)
	// Functions are known when the first worker is there.
	run0(t, slices.Concat(addr, []string{"map", "--pool", "test", "--func", "double", ":::", "1"})...)
	for _, c := range []struct {
		line string
		want string // words that are offered, without what is said about them
	}{
		{"resize _", "test"},
		{"resize test _", ""},
		{"close _", "test"},
		{"workers _", "test"},
		{"map --pool _", "test"},
		{"map --pool test --func d", "double"},
		{"map --pool other --func _", ""},
		{"apply --pool test d", "double"},
		{"cancel _", ""},
		{"map --halt soon", "soon,fail=1"},
		{"pools -o j", "json"},
	} {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			words := strings.Fields(c.line)
			if last := len(words) - 1; words[last] == "_" {
				words[last] = ""
			}
			eventually(t, func() string { // a daemon that does not answer soon, on a busy machine, is not waited for
				r := finish(t, procpool(t, slices.Concat([]string{"__complete"}, addr, words)...))
				var got []string
				for line := range strings.Lines(r.stdout) {
					word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
					if !strings.HasPrefix(word, ":") && strings.HasPrefix(word, words[len(words)-1]) {
						got = append(got, word)
					}
				}
				if strings.Join(got, " ") != c.want || r.status != 0 {
					return fmt.Sprintf("got %q and status %d, want %q\n%s", got, r.status, c.want, r.stderr)
				}
				return ""
			})
		})
	}
	if r := finish(t, procpool(t, "__complete", "--addr", "none.sock", "close", "")); r.status != 0 || !strings.HasPrefix(r.stdout, ":") {
		t.Errorf("without a daemon: got %+v, want nothing", r)
	}
}

func TestManual(t *testing.T) {
	t.Parallel()
	cmd := procpool(t, "man", "man")
	cmd.Env = append(cmd.Env, "SOURCE_DATE_EPOCH=0")
	if r := finish(t, cmd); r != (result{}) {
		t.Fatalf("got %+v, want status 0 in silence", r)
	}
	for page, want := range map[string]string{
		"procpool.1": "procpool-map(1)", "procpool-map.1": "joblog", "procpool-items.1": "recstart", "procpool-map-output.1": "Exit status", "procpool-map-control.1": "memfree",
	} {
		b := readFile(t, filepath.Join(cmd.Dir, "man", page))
		if !strings.Contains(strings.ReplaceAll(b, `\-`, "-"), want) || !strings.Contains(b, "1970") {
			t.Errorf("%s does not have %q, or not the date", page, want)
		}
	}
	if _, err := os.Stat(filepath.Join(cmd.Dir, "man", "procpool-man.1")); err == nil {
		t.Error("what is hidden has a page")
	}
}

func TestHelpFitsAScreen(t *testing.T) {
	t.Parallel()
	for _, c := range [][]string{{"map", "--help"}, {"help", "items"}, {"help", "map-output"}, {"help", "map-control"}} {
		got := run0(t, c...)
		if n := strings.Count(got, "\n"); n > 50 || n < 10 {
			t.Errorf("%q has %d lines, want at most 50", c, n)
		}
		if c[0] == "map" && !strings.Contains(got, "procpool help items") {
			t.Error("the help of map does not lead on")
		}
	}
}
