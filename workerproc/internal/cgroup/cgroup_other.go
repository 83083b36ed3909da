//go:build !linux

package cgroup

import (
	"errors"
	"os"
)

// Tree cannot be had.
type Tree struct{}

// Leaf cannot be had either; nil is one.
type Leaf struct{}

var errNone = errors.New("this system has no cgroups")

// Open says so.
func Open(string) (*Tree, error) { return nil, errNone }

func (t *Tree) Dir() string                        { return "" }
func (t *Tree) Missing(string) error               { return errNone }
func (t *Tree) KillFile() (*os.File, error)        { return nil, errNone }
func (t *Tree) Close() error                       { return nil }
func (t *Tree) Leaf(string, Limits) (*Leaf, error) { return nil, errNone }

func (l *Leaf) Open() (*os.File, error)   { return nil, nil } //nolint:nilnil // as on Linux, where there is none
func (l *Leaf) Kill()                     {}
func (l *Leaf) Account() Account          { return Account{} }
func (l *Leaf) InUse() (int64, bool)      { return 0, false }
func (l *Leaf) Processes() ([]int, error) { return nil, errNone }
func (l *Leaf) Remove()                   {}
