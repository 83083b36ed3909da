package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/hashicorp/go-hclog"
)

// newLogger is the daemon's log on stderr. If the journal reads it, lines carry no time, which the journal adds, but their priority, so that
// `journalctl -p warning` finds what it should.
func newLogger(level hclog.Level, json bool) hclog.Logger {
	opts := &hclog.LoggerOptions{Name: "procpoold", Level: level, JSONFormat: json, Output: os.Stderr}
	if toJournal(os.Getenv("JOURNAL_STREAM"), os.Stderr) {
		opts.DisableTime = true
		opts.Output = journal{os.Stderr}
	}
	return hclog.New(opts)
}

// toJournal tells whether f is the stream that systemd has given us for the journal: $JOURNAL_STREAM has its device and inode (systemd.exec(5)). The variable
// alone says nothing, since it outlives a redirection.
func toJournal(stream string, f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// journal puts the priority before every line, as sd-daemon(3) has it.
type journal struct{ w io.Writer }

var priorities = map[hclog.Level]string{hclog.Trace: "<7>", hclog.Debug: "<7>", hclog.Info: "<6>", hclog.Warn: "<4>", hclog.Error: "<3>"}

// LevelWrite is what hclog calls if a writer has it. p is one message, of several lines if it has a stack.
func (j journal) LevelWrite(level hclog.Level, p []byte) (int, error) {
	priority := priorities[level]
	if priority == "" {
		priority = "<6>"
	}
	var out []byte
	for line := range bytes.Lines(p) {
		out = append(append(out, priority...), line...)
	}
	if _, err := j.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Write is for what has no level.
func (j journal) Write(p []byte) (int, error) { return j.LevelWrite(hclog.Info, p) }
