package mapping

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// shellWords are what a shell would not have passed on, had it not been quoted; shellReaders are programs that may want to see them.
var (
	shellWords   = []string{"|", "||", "&&", "&", ";", ">", ">>", "<", "<<", "2>", "2>>", "&>", "2>&1", "2>/dev/null", ">/dev/null"}
	shellReaders = []string{"[", "test", "expr", "find", "grep", "egrep", "rg", "awk", "gawk", "mawk", "sed", "jq", "bc", "printf", "git", "bash", "dash", "sh", "zsh", "env", "xargs", "ssh"}
	builtins     = []string{"cd", "export", "source", ".", "ulimit", "alias", "type", "set", "unset", "umask", "eval", "exec", "read", "declare", "local", "function", "if", "for", "while", "command", "builtin", "time"}
)

// shellAdvice is how a command gets a shell.
const shellAdvice = `for a shell: sh -c '... "$1" ...' _ {}`

// checkProgram refuses what cannot be run, before a single worker starts.
func checkProgram(command []string) error {
	name := command[0]
	_, err := findProgram(name)
	if err == nil {
		return nil
	}
	if before, _, ok := strings.Cut(name, "="); ok && len(command) > 1 && before != "" && !strings.ContainsAny(before, "/ {") {
		return fmt.Errorf("%q is not a program. To set a variable: procpool map -- env %s %s", name, name, strings.Join(command[1:], " "))
	}
	if slices.Contains(builtins, name) {
		return fmt.Errorf("%q is not a program but a part of the shell, and procpool does not use one; %s", name, shellAdvice)
	}
	if strings.ContainsAny(name, " |&;<>$`\"'") {
		return fmt.Errorf("%q is not a program. procpool does not use a shell: give each argument as a word of its own; or %s", name, shellAdvice)
	}
	if at, _, _ := nextPlaceholder(name, true); at < len(name) {
		return nil // only the item tells
	}
	if strings.Contains(name, "/") {
		return err
	}
	return fmt.Errorf("there is no program %q in $PATH", name)
}

// shellSyntax is a remark about a command that looks as if it were meant for a shell; empty for one that does not.
func shellSyntax(command []string) string {
	if slices.Contains(shellReaders, filepath.Base(command[0])) {
		return ""
	}
	for _, w := range command[1:] {
		if slices.Contains(shellWords, w) || strings.HasPrefix(w, "$(") || (strings.HasPrefix(w, "`") && strings.HasSuffix(w, "`") && len(w) > 1) {
			return fmt.Sprintf("%s gets %q as an argument: procpool does not use a shell; %s", filepath.Base(command[0]), w, shellAdvice)
		}
	}
	return ""
}
