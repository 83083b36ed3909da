package main

import (
	"path"
	"strconv"
	"strings"
)

// placeholders are what a command may contain in place of an item, longest first where one begins another.
var placeholders = []struct {
	text string
	fill func(item string, index int) string // nil: only the worker knows
}{
	{"{}", func(item string, _ int) string { return item }},
	{"{.}", func(item string, _ int) string { return withoutExtension(item) }},
	{"{/}", func(item string, _ int) string { return path.Base(item) }},
	{"{//}", func(item string, _ int) string { return path.Dir(item) }},
	{"{/.}", func(item string, _ int) string { return withoutExtension(path.Base(item)) }},
	{"{#}", func(_ string, index int) string { return strconv.Itoa(index + 1) }},
	{"{%}", nil},
}

// template is a command with placeholders. What replaces one is never read again: an item may contain anything.
type template struct {
	args     [][]part
	appends  bool // there is no placeholder: the item is the last argument
	hasSlots bool // {%} is among them
}

// part of an argument: a literal, or a placeholder.
type part struct {
	literal string
	holder  int // index in placeholders, if literal is empty
}

func parseTemplate(argv []string) template {
	t := template{appends: true}
	for _, arg := range argv {
		var parts []part
		for arg != "" {
			at, holder := nextPlaceholder(arg)
			if at > 0 {
				parts = append(parts, part{literal: arg[:at]})
			}
			if holder < 0 {
				break
			}
			parts = append(parts, part{holder: holder})
			arg = arg[at+len(placeholders[holder].text):]
			t.appends = false
			t.hasSlots = t.hasSlots || placeholders[holder].fill == nil
		}
		t.args = append(t.args, parts)
	}
	return t
}

// nextPlaceholder is where the first placeholder in s begins, and which it is: len(s) and -1 if there is none.
func nextPlaceholder(s string) (at, holder int) {
	for at := range len(s) {
		if s[at] != '{' {
			continue
		}
		for i, p := range placeholders {
			if strings.HasPrefix(s[at:], p.text) {
				return at, i
			}
		}
	}
	return len(s), -1
}

// expand is the command for an item. Slot numbers are left out; slots says where they belong.
func (t *template) expand(item string, index int) (argv []text, slots []slotPlace) {
	argv = make([]text, 0, len(t.args)+1)
	for i, parts := range t.args {
		var arg []byte
		for _, p := range parts {
			switch fill := placeholders[p.holder].fill; {
			case p.literal != "":
				arg = append(arg, p.literal...)
			case fill == nil:
				slots = append(slots, slotPlace{Arg: i, Offset: len(arg)})
			default:
				arg = append(arg, fill(item, index)...)
			}
		}
		argv = append(argv, arg)
	}
	if t.appends {
		argv = append(argv, text(item))
	}
	return argv, slots
}

// withoutExtension drops the last extension of the last element. A name that begins with its only dot has none.
func withoutExtension(item string) string {
	ext := path.Ext(item)
	if name := path.Base(item); ext == name {
		return item
	}
	return strings.TrimSuffix(item, ext)
}
