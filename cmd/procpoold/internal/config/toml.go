package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Problem is something that is wrong with the configuration.
type Problem struct {
	File      string // or flag, or variable
	Line, Col int    // from 1; 0: nowhere in particular
	What      string
	Advice    string // may be empty
}

func (p Problem) String() string {
	s := p.File
	if p.Line > 0 {
		s += fmt.Sprintf(":%d:%d", p.Line, p.Col)
	}
	s += ": " + p.What
	if p.Advice != "" {
		s += "; " + p.Advice
	}
	return s
}

// Problems is everything that is wrong, a line each.
type Problems []Problem //nolint:errname // each is a Problem, and there is more than one

func (p Problems) Error() string {
	var lines []string
	for _, problem := range p {
		lines = append(lines, problem.String())
	}
	return strings.Join(lines, "\n")
}

// add adds a problem, unless it is none.
func (p *Problems) add(problem Problem) {
	if problem != (Problem{}) {
		*p = append(*p, problem)
	}
}

// document is a file that has been parsed.
type document struct {
	file string
	text string
	tree map[string]any
}

func parse(file, text string) (document, Problem) {
	d := document{file: file, text: text}
	_, err := toml.Decode(text, &d.tree)
	if err == nil {
		return d, Problem{}
	}
	p := Problem{File: file, What: err.Error()}
	var bad toml.ParseError
	if errors.As(err, &bad) {
		before := text[:max(0, min(bad.Position.Start, len(text)))] // its line may be the next one already; and it may know no place
		p.What, p.Line, p.Col = bad.Message, 1+strings.Count(before, "\n"), len(before)-strings.LastIndexByte(before, '\n')
	}
	return d, p
}

// nowhere makes the parser say where a key is: by refusing its value.
type nowhere struct{}

func (*nowhere) UnmarshalTOML(any) error { return errors.New("here") }

// problem is one with a key.
func (d document) problem(what, advice string, path ...string) Problem {
	p := Problem{File: d.file, What: what, Advice: advice}
	var table map[string]toml.Primitive
	md, err := toml.Decode(d.text, &table)
	for i, name := range path {
		if err != nil {
			return p // it is a table that has been put together otherwise
		}
		value := table[name]
		if i == len(path)-1 {
			err = md.PrimitiveDecode(value, new(nowhere))
		} else {
			table = nil
			err = md.PrimitiveDecode(value, &table)
		}
	}
	var at toml.ParseError
	lines := strings.Split(d.text, "\n")
	if errors.As(err, &at) && at.Position.Line >= 1 && at.Position.Line <= len(lines) { // it does not know the place of a table that dots have made
		p.Line = at.Position.Line
		line := lines[p.Line-1]
		p.Col = 1 + max(0, strings.Index(line, path[len(path)-1])) // of the key, as the parser's is that of the value
	}
	return p
}

// fill sets the keys of c that a document has. wanted is told where each is, and may say that it does not count.
func fill[C any](c *C, keys []key[C], d document, wanted func(key, at string) bool) (problems Problems) {
	tables := make(map[string]bool)
	for _, k := range keys {
		if table, _, ok := strings.Cut(k.name, "."); ok {
			tables[table] = true
		}
	}
	var walk func(table string, tree map[string]any)
	walk = func(table string, tree map[string]any) {
		for _, name := range slices.Sorted(maps.Keys(tree)) {
			full := strings.TrimPrefix(table+"."+name, ".")
			path := strings.Split(full, ".")
			if table == "" {
				path = []string{name} // which may have a dot, in quotes
			}
			sub, isTable := tree[name].(map[string]any)
			if table == "" && tables[name] {
				if !isTable {
					problems.add(d.problem(fmt.Sprintf("%s is a table, not a value", name), fmt.Sprintf("write [%s] on a line of its own, and its keys below", name), path...))
				} else {
					walk(name, sub)
				}
				continue
			}
			i := slices.IndexFunc(keys, func(k key[C]) bool { return k.name == full })
			if i < 0 {
				what := fmt.Sprintf("there is no key %s", name)
				if isTable {
					what = fmt.Sprintf("there is no table [%s]", full)
				} else if table != "" {
					what += " in [" + table + "]"
				}
				problems.add(d.problem(what, suggest(table, name, keys), path...))
				continue
			}
			at := d.problem("", "", path...)
			if !wanted(full, fmt.Sprintf("%s:%d", d.file, at.Line)) {
				continue
			}
			if err := keys[i].set(c, tree[name]); err != nil {
				at.What = err.Error()
				problems.add(at)
			}
		}
	}
	walk("", d.tree)
	return problems
}

// suggest says what may have been meant by an unknown key.
func suggest[C any](table, name string, keys []key[C]) string {
	var here, elsewhere []string
	for _, k := range keys {
		in, key, ok := strings.Cut(k.name, ".")
		if !ok {
			in, key = "", k.name
		}
		if in == table {
			here = append(here, key)
		} else if key == name || nearest(name, []string{key}) != "" {
			place := "[" + in + "]"
			if in == "" {
				place = "the top of the file, before the first [table]"
			}
			elsewhere = append(elsewhere, fmt.Sprintf("%s belongs into %s", key, place))
		}
	}
	if near := nearest(name, here); near != "" {
		return "did you mean " + near + "?"
	}
	if len(elsewhere) > 0 {
		return elsewhere[0]
	}
	return "there is " + strings.Join(here, ", ")
}

// nearest is the word that differs least, if it differs little.
func nearest(word string, words []string) string {
	best, least := "", min(max(2, len(word)/3)+1, len(word))
	for _, w := range words {
		if d := distance(strings.ToLower(word), strings.ToLower(w)); d < least {
			best, least = w, d
		}
	}
	return best
}

// distance is how many letters must be changed, added or left out to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := min(row[j]+1, row[j+1]+1)
			if a[i] == b[j] {
				d = min(d, corner)
			} else {
				d = min(d, corner+1)
			}
			corner, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
