package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// comparedRow is a row of the document: two command lines, and what is the same about them.
type comparedRow struct{ theirs, ours, same string }

// comparedRows are those of docs/from-xargs-and-parallel.md.
func comparedRows(t *testing.T) (rows []comparedRow) {
	t.Helper()
	for line := range strings.Lines(readFile(t, "../../docs/from-xargs-and-parallel.md")) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.ReplaceAll(line, `\|`, "\x00"), "|")
		if len(cells) != 6 {
			t.Fatalf("%d cells, want 4: %s", len(cells)-2, line)
		}
		for i, c := range cells {
			cells[i] = strings.ReplaceAll(strings.Trim(strings.TrimSpace(c), "`"), "\x00", "|")
		}
		rows = append(rows, comparedRow{cells[1], cells[2], cells[3]})
	}
	if len(rows) < 30 {
		t.Fatalf("%d rows: has the table changed?", len(rows))
	}
	return rows
}

// tools makes a directory of programs for $PATH: procpool is this test.
func tools(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s' \"$@\"\n", asProgram, self)
	if err := os.WriteFile(filepath.Join(dir, "procpool"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fill makes the files that the rows use.
func fill(t *testing.T, dir string) {
	t.Helper()
	var big strings.Builder
	for i := range 10_000 {
		fmt.Fprintln(&big, i)
	}
	for name, content := range map[string]string{
		"a.txt": "1\n", "b.txt": "12\n", "c d.txt": "123\n",
		"names": "a.txt\nb.txt\nc d.txt\n", "nul": "a.txt\x00b.txt\x00c d.txt\x00", "numbers": "1\n2\n3\n4\n5\n6\n7\n8\n", "commas": "a,b c,d",
		"fasta": ">one\nAC\nGT\n>two\nAA\n>three\n", "big": big.String(), ".parallel/will-cite": "",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAsXargsAndParallelDo runs both lines of every row.
func TestAsXargsAndParallelDo(t *testing.T) {
	t.Parallel()
	version, err := exec.Command("parallel", "--version").Output()
	if err != nil || !bytes.HasPrefix(version, []byte("GNU parallel")) {
		t.Skip("GNU parallel is not here: apt-get install parallel findutils, then .ci/run parallel")
	}
	path := tools(t) + ":" + os.Getenv("PATH")
	for _, row := range comparedRows(t) {
		t.Run(row.ours, func(t *testing.T) {
			t.Parallel()
			run := func(line string) (stdout string, status int, log []string) {
				cmd := exec.CommandContext(t.Context(), "bash", "-c", line)
				cmd.Dir = t.TempDir()
				cmd.Env = append(os.Environ(), "PATH="+path, "HOME="+cmd.Dir)
				fill(t, cmd.Dir)
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				out, err := cmd.Output()
				var exit *exec.ExitError
				if err != nil && !errors.As(err, &exit) {
					t.Fatalf("%s: %v", line, err)
				}
				if cmd.ProcessState.ExitCode() == statusFailure {
					t.Errorf("%s: %s", line, &stderr)
				}
				if strings.Contains(row.same, "joblog") {
					log = logColumns(t, filepath.Join(cmd.Dir, "log"))
				}
				return string(out), cmd.ProcessState.ExitCode(), log
			}
			theirs, theirStatus, theirLog := run(row.theirs)
			ours, ourStatus, ourLog := run(row.ours)
			if strings.HasPrefix(row.same, "lines") {
				theirs, ours = strings.Join(sortedLines(theirs), "\n"), strings.Join(sortedLines(ours), "\n")
			}
			if ours != theirs {
				t.Errorf("%s writes\n%.1000s\n%s writes\n%.1000s", row.theirs, theirs, row.ours, ours)
			}
			if differs := strings.Contains(row.same, "not the status"); differs != (ourStatus != theirStatus) {
				t.Errorf("%s has status %d, %s has status %d, and the document says %q", row.theirs, theirStatus, row.ours, ourStatus, row.same)
			}
			if !slices.Equal(theirLog, ourLog) {
				t.Errorf("the joblog of %s has\n%q\nthat of %s\n%q", row.theirs, theirLog, row.ours, ourLog)
			}
		})
	}
}

// logColumns are the header of a joblog and what does not differ from run to run: number, host, exit value and signal, by number.
func logColumns(t *testing.T, file string) (rows []string) {
	t.Helper()
	for i, line := range strings.Split(strings.TrimSpace(readFile(t, file)), "\n") {
		columns := strings.Split(line, "\t")
		if i == 0 {
			rows = append(rows, line)
			continue
		}
		if len(columns) != 9 || !regexp.MustCompile(`^\d{10}\.\d{3}$`).MatchString(columns[2]) || !regexp.MustCompile(`^ *\d+\.\d{3}$`).MatchString(columns[3]) {
			t.Errorf("%s has the line %q", file, line)
		}
		rows = append(rows, strings.Join([]string{columns[0], columns[1], columns[6], columns[7]}, " "))
	}
	slices.SortStableFunc(rows[1:], func(a, b string) int { return leading(a) - leading(b) })
	return rows
}

func leading(row string) int {
	n, _ := strconv.Atoi(strings.Fields(row)[0])
	return n
}
