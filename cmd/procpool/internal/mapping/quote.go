package mapping

import (
	"bytes"
	"fmt"
	"strings"
)

// quote makes a word that a shell reads as s.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:=,+@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// oneLineCommand is a command as a shell would take it, on one line: bash's $'…' stands for what has control characters.
func oneLineCommand(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = quote(a)
		if strings.ContainsFunc(a, isControl) {
			words[i] = quoteControl(a)
		}
	}
	return strings.Join(words, " ")
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func quoteControl(s string) string {
	var b bytes.Buffer
	b.WriteString("$'")
	for _, c := range []byte(s) {
		switch {
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case isControl(rune(c)):
			fmt.Fprintf(&b, `\x%02x`, c)
		case c == '\'' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteString("'")
	return b.String()
}
