package look

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"
)

// grid is a table that fits into so many columns of a terminal: it leaves out what matters least, and cuts what is too long.
type grid struct {
	columns []column
	rows    []gridRow
}

type column struct {
	name  string
	right bool // numbers
	rank  int  // 0 always stays; where there is no room, the highest goes first
	most  int  // it is cut to so many characters; 0: not
}

type gridRow struct {
	id    string // what is selected, when rows move
	cells []cell
}

// cell is a text, and what to sort it by.
type cell struct {
	text   string
	number float64
}

func textCell(s string) cell { return cell{text: printable(s)} }

func number(n float64, text string) cell { return cell{text, n} }

func count[N uint32 | uint64 | int](n N) cell { return cell{fmt.Sprint(n), float64(n)} }

// unknown is a number that is not known, or means nothing here.
var unknown = cell{"-", -1}

// printable is s without what could do something to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// sortBy sorts by a column, and rows that are alike there by the first one.
func (g *grid) sortBy(i int, reverse bool) {
	slices.SortStableFunc(g.rows, func(a, b gridRow) int {
		x, y := a.cells[i], b.cells[i]
		order := cmp.Compare(x.text, y.text)
		if g.columns[i].right {
			order = cmp.Compare(x.number, y.number)
		}
		if reverse {
			order = -order
		}
		return cmp.Or(order, cmp.Compare(a.cells[0].text, b.cells[0].text))
	})
}

// fit is which columns there is room for, and how wide each is then. sorted is the one that the rows are sorted by.
func (g *grid) fit(width, sorted int) (shown []int, widths []int) {
	widths = make([]int, len(g.columns))
	for i, c := range g.columns {
		shown = append(shown, i)
		if widths[i] = ansi.StringWidth(c.name); i == sorted {
			widths[i]++ // the arrow
		}
		for _, r := range g.rows {
			widths[i] = max(widths[i], ansi.StringWidth(r.cells[i].text))
		}
		if c.most > 0 {
			widths[i] = min(widths[i], c.most)
		}
	}
	total := func() (sum int) {
		for _, i := range shown {
			sum += widths[i] + gap
		}
		return sum - gap
	}
	for total() > width && len(shown) > 1 {
		worst := 0
		for k, i := range shown {
			if g.columns[i].rank >= g.columns[shown[worst]].rank {
				worst = k
			}
		}
		if g.columns[shown[worst]].rank == 0 {
			break
		}
		shown = slices.Delete(shown, worst, worst+1)
	}
	if last := shown[len(shown)-1]; total() < width && g.columns[last].most > 0 { // the last one may have what is left
		want := 0
		for _, r := range g.rows {
			want = max(want, ansi.StringWidth(r.cells[last].text))
		}
		widths[last] = min(max(widths[last], want), widths[last]+width-total())
	}
	return shown, widths
}

const gap = 2

// lines are the head and the rows. sorted is the column that the rows are sorted by, -1 for none.
func (g *grid) lines(width, sorted int, reverse bool) (head string, rows []string) {
	shown, widths := g.fit(width, sorted)
	line := func(text func(i int) string) string {
		var b strings.Builder
		for k, i := range shown {
			if k > 0 {
				b.WriteString(strings.Repeat(" ", gap))
			}
			s := ansi.Truncate(text(i), widths[i], "…")
			pad := strings.Repeat(" ", max(0, widths[i]-ansi.StringWidth(s)))
			if g.columns[i].right {
				s = pad + s
			} else if k < len(shown)-1 {
				s += pad
			}
			b.WriteString(s)
		}
		return strings.TrimRight(ansi.Truncate(b.String(), width, "…"), " ")
	}
	head = line(func(i int) string {
		switch {
		case i != sorted:
			return g.columns[i].name
		case reverse:
			return g.columns[i].name + "↓"
		default:
			return g.columns[i].name + "↑"
		}
	})
	for _, r := range g.rows {
		rows = append(rows, line(func(i int) string { return r.cells[i].text }))
	}
	return head, rows
}

// The following write numbers so that they are read at a glance.

// rateCell is a rate; unknown if no time has passed.
func rateCell(n float64, d time.Duration) cell {
	if d <= 0 {
		return unknown
	}
	r := n / d.Seconds()
	return number(r, short(r))
}

func short(n float64) string {
	switch {
	case n == 0:
		return "0"
	case n < 9.95:
		return fmt.Sprintf("%.1f", n)
	case n < 9999.5:
		return fmt.Sprintf("%.0f", n)
	case n < 999_500:
		return fmt.Sprintf("%.0fk", n/1e3)
	case n < 9.95e6:
		return fmt.Sprintf("%.1fM", n/1e6)
	default:
		return fmt.Sprintf("%.0fM", n/1e6)
	}
}

func bytesCell(n uint64) cell {
	switch {
	case n == 0:
		return unknown
	case n < 10<<30:
		return number(float64(n), fmt.Sprintf("%dM", n>>20))
	default:
		return number(float64(n), fmt.Sprintf("%.1fG", float64(n)/(1<<30)))
	}
}

// took is a duration with two or three digits.
func took(d time.Duration) cell {
	var text string
	switch {
	case d < time.Microsecond:
		text = fmt.Sprintf("%dns", d)
	case d < time.Millisecond:
		text = fmt.Sprintf("%.3gµs", float64(d)/1e3)
	case d < time.Second:
		text = fmt.Sprintf("%.3gms", float64(d)/1e6)
	case d < time.Minute:
		text = fmt.Sprintf("%.3gs", d.Seconds())
	case d < time.Hour:
		text = fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 100*time.Hour:
		text = fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		text = fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return number(float64(d), text)
}
