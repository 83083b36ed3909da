package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// unit is what a figure is measured in.
type unit string

const (
	perSecond      unit = "1/s"
	inSeconds      unit = "s"
	inBytes        unit = "B"
	bytesPerSecond unit = "B/s"
	asShare        unit = "1"
	inItems        unit = "items"
)

// moreIsBetter says which way is better.
func (u unit) moreIsBetter() bool { return u == perSecond || u == bytesPerSecond || u == asShare }

// format writes a value for a person, with three digits that count.
func (u unit) format(v float64) string {
	switch u {
	case perSecond:
		return scaled(v, 1000, "/s", "", "k", "M", "G")
	case inSeconds:
		switch {
		case v < 1e-6:
			return digits(v*1e9) + " ns"
		case v < 1e-3:
			return digits(v*1e6) + " µs"
		case v < 1:
			return digits(v*1e3) + " ms"
		}
		return digits(v) + " s"
	case inBytes:
		return scaled(v, 1024, "B", "", "Ki", "Mi", "Gi")
	case bytesPerSecond:
		return scaled(v, 1000, "B/s", "", "k", "M", "G")
	case asShare:
		return digits(100*v) + " %"
	}
	return digits(v)
}

func scaled(v, base float64, name string, prefixes ...string) string {
	i := 0
	for math.Abs(v) >= base && i < len(prefixes)-1 {
		v /= base
		i++
	}
	return digits(v) + " " + prefixes[i] + name
}

// digits writes v with three significant digits, and with all digits before the point.
func digits(v float64) string {
	if math.Abs(v) >= 100 || v == 0 {
		return strconv.FormatFloat(math.Round(v), 'f', -1, 64)
	}
	decimals := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	return strconv.FormatFloat(v, 'f', min(decimals, 6), 64)
}

// spread is what several runs came to.
type spread struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Values []float64 `json:"values"` // in the order of the runs
}

// newSpread is nil for no values.
func newSpread(list []float64) *spread {
	if len(list) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(list))
	mid := len(sorted) / 2
	s := &spread{Median: sorted[mid], Min: sorted[0], Max: sorted[len(sorted)-1], Values: list}
	if len(sorted)%2 == 0 {
		s.Median = (sorted[mid-1] + sorted[mid]) / 2
	}
	return s
}

func (s *spread) format(f func(float64) string) string {
	if s == nil {
		return "–"
	}
	if len(s.Values) == 1 {
		return f(s.Median)
	}
	return fmt.Sprintf("%s (%s – %s)", f(s.Median), f(s.Min), f(s.Max))
}

// report is all that bench has found out.
type report struct {
	Machine  machine          `json:"machine"`
	Mode     string           `json:"mode"` // embedded, daemon, or the address of a running one
	Workers  int              `json:"workers"`
	Runs     int              `json:"runs"`
	Seconds  float64          `json:"seconds"` // a round repeats its work at least so long
	Measures []*measureReport `json:"measures"`
	Problems []string         `json:"problems"` // what could not be measured or compared, and why
}

// measureReport is one measure.
type measureReport struct {
	Name    string          `json:"name"`
	What    string          `json:"what"`
	Figures []*figureReport `json:"figures"`
	Checked map[string]int  `json:"checked"` // by side: results that were compared with what they have to be
	Notes   []string        `json:"notes,omitempty"`
}

// figureReport is one figure.
type figureReport struct {
	Name   string        `json:"name,omitempty"`
	Unit   unit          `json:"unit"`
	Better string        `json:"better"` // more or less
	Ours   *spread       `json:"ours"`
	Peers  []*peerReport `json:"peers,omitempty"`
}

// peerReport is the same figure of somebody else.
type peerReport struct {
	Peer   string  `json:"peer"`
	Theirs *spread `json:"theirs"`
	Ratio  *spread `json:"ratio"` // how many times better ours is; of each run, as the two followed each other
}

// sideRuns are the answers of one side, a run each; nil for a run that failed.
type sideRuns struct {
	side    string
	answers []*answer
}

func (s *sideRuns) value(run, fig int) (float64, bool) {
	a := s.answers[run]
	if a == nil || fig >= len(a.Values) || a.Values[fig] == nil {
		return 0, false
	}
	return *a.Values[fig], true
}

func (s *sideRuns) spread(fig int) *spread {
	var list []float64
	for run := range s.answers {
		if v, ok := s.value(run, fig); ok {
			list = append(list, v)
		}
	}
	return newSpread(list)
}

// ratio is how many times better ours is than theirs, run by run: what the machine did meanwhile, it did to both.
func ratio(ours, theirs *sideRuns, fig int, u unit) *spread {
	var list []float64
	for run := range ours.answers {
		a, ok1 := ours.value(run, fig)
		b, ok2 := theirs.value(run, fig)
		if !u.moreIsBetter() {
			a, b = b, a
		}
		if ok1 && ok2 && b > 0 {
			list = append(list, a/b)
		}
	}
	return newSpread(list)
}

// newMeasureReport is a measure from the answers; ours come first.
func newMeasureReport(m measure, sides []*sideRuns) *measureReport {
	r := &measureReport{Name: m.name, What: m.what, Checked: map[string]int{}}
	for _, s := range sides {
		for _, a := range s.answers {
			if a == nil {
				continue
			}
			r.Checked[s.side] += a.Checked
			if a.Note != "" && !slices.Contains(r.Notes, s.side+": "+a.Note) {
				r.Notes = append(r.Notes, s.side+": "+a.Note)
			}
		}
	}
	for i, f := range m.figures {
		fr := &figureReport{Name: f.name, Unit: f.unit, Better: "less", Ours: sides[0].spread(i)}
		if f.unit.moreIsBetter() {
			fr.Better = "more"
		}
		for _, s := range sides[1:] {
			fr.Peers = append(fr.Peers, &peerReport{Peer: s.side, Theirs: s.spread(i), Ratio: ratio(sides[0], s, i, f.unit)})
		}
		r.Figures = append(r.Figures, fr)
	}
	return r
}

// rows is the table: a row for each figure and peer. It has the columns of peers only if there is one.
func (r *report) rows() [][]string {
	compared := slices.ContainsFunc(r.Measures, func(m *measureReport) bool {
		return slices.ContainsFunc(m.Figures, func(f *figureReport) bool { return len(f.Peers) > 0 })
	})
	head := []string{"measure", "better", "procpool", "peer", "theirs", "ratio"}
	if !compared {
		head = head[:3]
	}
	rows := [][]string{head}
	for _, m := range r.Measures {
		for _, f := range m.Figures {
			name := m.What
			if f.Name != "" {
				name += ": " + f.Name
			}
			row := []string{name, f.Better, f.Ours.format(f.Unit.format)}
			if !compared {
				rows = append(rows, row)
				continue
			}
			if len(f.Peers) == 0 {
				rows = append(rows, append(row, "–", "–", "–"))
			}
			for _, p := range f.Peers {
				rows = append(rows, append(row[:3:3], p.Peer, p.Theirs.format(f.Unit.format), p.Ratio.format(func(v float64) string { return digits(v) + "×" })))
				row = []string{"", "", ""}
			}
		}
	}
	return rows
}

// facts is where and how the figures were taken.
func (r *report) facts() string {
	mode := map[string]string{"embedded": "embedded daemon", "daemon": "procpoold"}
	s := fmt.Sprintf("%s; %s, %s", r.Machine, cmp.Or(mode[r.Mode], "procpoold at "+r.Mode), plural(r.Workers, "worker"))
	if r.Runs == 1 {
		return s + ", one run"
	}
	return s + fmt.Sprintf(", median of %d runs (least – most)", r.Runs)
}

const ratioMeaning = "The ratio is how many times better procpool is, run by run: above 1 it wins."

func (r *report) writeText(w io.Writer) error {
	rows := r.rows()
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "%s\n\n", r.facts())
	for i, row := range rows {
		if i == 0 {
			for k := range row {
				row[k] = strings.ToUpper(row[k])
			}
		}
		fmt.Fprintln(table, strings.Join(row, "\t")) // the table keeps an error for Flush
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return r.writeNotes(w, len(rows[0]) > 3, "")
}

func (r *report) writeMarkdown(w io.Writer) error {
	rows := r.rows()
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for k, cell := range row {
			widths[k] = max(widths[k], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n\n", r.facts())
	for i, row := range rows {
		for k, cell := range row {
			b.WriteString("| " + cell + strings.Repeat(" ", widths[k]-utf8.RuneCountInString(cell)+1))
		}
		b.WriteString("|\n")
		if i == 0 {
			for k := range row {
				b.WriteString("|" + strings.Repeat("-", widths[k]+2))
			}
			b.WriteString("|\n")
		}
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	return r.writeNotes(w, len(rows[0]) > 3, "- ")
}

func (r *report) writeNotes(w io.Writer, compared bool, bullet string) error {
	var notes []string
	if compared {
		notes = append(notes, ratioMeaning)
	}
	for _, m := range r.Measures {
		for _, n := range m.Notes {
			notes = append(notes, fmt.Sprintf("%s: %s.", m.What, n))
		}
	}
	var err error
	for i, n := range notes {
		if i == 0 {
			n = "\n" + bullet + n
		} else {
			n = bullet + n
		}
		if _, e := fmt.Fprintln(w, n); err == nil {
			err = e
		}
	}
	return err
}

func (r *report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
