//go:build man

package main

import (
	"errors"
	"log"
	"os"
	"path/filepath"

	"github.com/procpool/procpool/cmd/internal/manual"
)

// Built with the tag man, this program writes its manual page and its completions into a directory, and does nothing else: so the real one does not link what makes them.
func init() {
	dir := os.Args[1]
	cmd := newCommand(new(int))
	cmd.InitDefaultVersionFlag()
	if err := errors.Join(
		manual.Write(cmd, "8", dir),
		cmd.GenBashCompletionFileV2(filepath.Join(dir, "procpoold.bash"), true),
		cmd.GenZshCompletionFile(filepath.Join(dir, "procpoold.zsh")),
		cmd.GenFishCompletionFile(filepath.Join(dir, "procpoold.fish"), true),
	); err != nil {
		log.Fatal(err)
	}
	os.Exit(0)
}
