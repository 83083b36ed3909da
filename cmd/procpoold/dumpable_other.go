//go:build !linux

package main

import "errors"

func undumpable() error { return errors.New("system mode works on Linux only") }
