package main

import (
	"iter"
	"log"
	"path/filepath"
	"slices"
)

// absolute is the files by names that mean the same in a process with another working directory.
func absolute(files []string) []string {
	list := make([]string, len(files))
	for i, file := range files {
		abs, err := filepath.Abs(file)
		if err != nil {
			log.Fatal(err)
		}
		list[i] = abs
	}
	return list
}

func values(files []string) iter.Seq[string] { return slices.Values(files) }
