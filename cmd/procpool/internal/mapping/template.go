package mapping

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/procpool/procpool/cmd/procpool/internal/text"
)

// numberHolder is the placeholder of a job's number.
const numberHolder = "{#}"

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
	{numberHolder, func(_ string, index int) string { return strconv.Itoa(index + 1) }},
	{"{%}", nil},
}

// template is a command with placeholders. What replaces one is never read again: an item may contain anything.
type template struct {
	args     [][]part
	appends  bool // there is no placeholder: the items are the last arguments
	hasSlots bool // {%} is among them
}

// part of an argument: a literal, or a placeholder.
type part struct {
	literal  string
	holder   int // index in placeholders, if there is neither a literal
	position int // nor this: the item at this place, from 1
}

// parseTemplate finds the placeholders in a command; with positions, {1}, {2} and so on are among them.
func parseTemplate(argv []string, positions bool) template {
	t := template{appends: true}
	for _, arg := range argv {
		var parts []part
		for arg != "" {
			at, length, p := nextPlaceholder(arg, positions)
			if at > 0 {
				parts = append(parts, part{literal: arg[:at]})
			}
			if length == 0 {
				break
			}
			parts = append(parts, p)
			arg = arg[at+length:]
			t.appends = false
			t.hasSlots = t.hasSlots || p.isSlot()
		}
		t.args = append(t.args, parts)
	}
	return t
}

func (p part) isSlot() bool {
	return p.literal == "" && p.position == 0 && placeholders[p.holder].fill == nil
}

// nextPlaceholder is where the first placeholder in s begins, how long it is, and which: len(s) and 0 if there is none.
func nextPlaceholder(s string, positions bool) (at, length int, p part) {
	for at := range len(s) {
		if s[at] != '{' {
			continue
		}
		for i, p := range placeholders {
			if strings.HasPrefix(s[at:], p.text) {
				return at, len(p.text), part{holder: i}
			}
		}
		if end := strings.IndexByte(s[at:], '}'); positions && end > 1 {
			if n, err := strconv.ParseUint(s[at+1:at+end], 10, 31); err == nil && n > 0 {
				return at, end + 1, part{position: int(n)}
			}
		}
	}
	return len(s), 0, part{}
}

// expand is the command for a job. Slot numbers are left out: the command says where they belong.
func (t *template) expand(j *job) command {
	c := command{Argv: make([]text.Bytes, 0, len(t.args)+len(j.Items))}
	for _, parts := range t.args {
		if len(parts) == 1 && parts[0].ofItem() && len(j.Items) != 1 { // an argument for each item
			for _, item := range j.Items {
				c.Argv = append(c.Argv, text.Bytes(placeholders[parts[0].holder].fill(item, j.Seq-1)))
			}
			continue
		}
		var arg []byte
		for _, p := range parts {
			switch {
			case p.literal != "":
				arg = append(arg, p.literal...)
			case p.position > len(j.Items): // the last command may have fewer
			case p.position > 0:
				arg = append(arg, j.Items[p.position-1]...)
			case p.isSlot():
				c.Slots = append(c.Slots, slotPlace{Arg: len(c.Argv), Offset: len(arg)})
			case p.ofItem():
				for i, item := range j.Items {
					if i > 0 {
						arg = append(arg, ' ')
					}
					arg = append(arg, placeholders[p.holder].fill(item, j.Seq-1)...)
				}
			default:
				arg = append(arg, placeholders[p.holder].fill("", j.Seq-1)...)
			}
		}
		c.Argv = append(c.Argv, arg)
	}
	if t.appends {
		for _, item := range j.Items {
			c.Argv = append(c.Argv, text.Bytes(item))
		}
	}
	return c
}

// ofItem says whether the placeholder is the item, or a part of it.
func (p part) ofItem() bool {
	return p.literal == "" && p.position == 0 && !p.isSlot() && placeholders[p.holder].text != numberHolder
}

// words are the arguments of a job's command, for people: slots are not known, and stay placeholders.
func (t *template) words(j *job) []string {
	c := t.expand(j)
	for _, p := range slices.Backward(c.Slots) {
		c.Argv[p.Arg] = slices.Insert(c.Argv[p.Arg], p.Offset, []byte("{%}")...)
	}
	words := make([]string, len(c.Argv))
	for i, a := range c.Argv {
		words[i] = string(a)
	}
	return words
}

// withoutExtension drops the last extension of the last element. A name that begins with its only dot has none.
func withoutExtension(item string) string {
	ext := path.Ext(item)
	if name := path.Base(item); ext == name {
		return item
	}
	return strings.TrimSuffix(item, ext)
}
