// Package flags has the flags, and kinds of flags, that both map and create have: sizes, and programs that answer lines.
package flags

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/workerproc/lines"
)

// Lines are the flags for programs that answer lines.
type Lines struct {
	Null bool // items and answers end with NUL, not with a newline

	text, json bool
}

// Register gives a command those that say that its program is one.
func (l *Lines) Register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&l.text, "lines", false, "the program stays up, reads an item per line and answers each with a line")
	f.BoolVar(&l.json, "json-lines", false, "the same, with a JSON value per line")
}

// RegisterNull gives it -0 too. Map has one of its own, which sets Null.
func (l *Lines) RegisterNull(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&l.Null, "null", "0", false, "with --lines: items and answers end with NUL, not with a newline")
}

// Check finds those that do not go together.
func (l *Lines) Check() error {
	if l.text && l.json {
		return errors.New("--lines and --json-lines exclude each other")
	}
	return nil
}

// Given says whether the program is one that answers lines.
func (l *Lines) Given() bool { return l.text || l.json }

// Spec is the line program for a command.
func (l *Lines) Spec(command []string) lines.Spec {
	s := lines.Spec{Command: command, Form: lines.Strings, Null: l.Null}
	if l.json {
		s.Form = lines.Values
	}
	return s
}

// Program is the program of a pool: the command, or the adapter of a line program.
func (l *Lines) Program(command []string, drainMemory int64) (client.PoolOption, error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	switch {
	case l.Null && !l.Given():
		return nil, errors.New("--null is for --lines and --json-lines")
	case !l.Given():
		return client.Program(command[0], command[1:]...), nil
	case drainMemory > 0:
		return nil, errors.New("--drain-memory looks at the worker's own process, which a line program is a child of: it does not go with --lines (--max-tasks does)")
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		return nil, err
	}
	return Adapter(l.Spec(command))
}

// Adapter is this program as the adapter of a line program.
func Adapter(s lines.Spec) (client.PoolOption, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program for its workers: %w", err)
	}
	return client.Program(self, s.Args()...), nil
}
