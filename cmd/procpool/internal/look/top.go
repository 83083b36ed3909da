package look

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"
)

func newTopCommand(dial Dial) *cobra.Command {
	interval := time.Second
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show live what the daemon does: pools, workers and calls",
		Long: `Top shows pools with their rates and latencies, and the workers and calls of each. It only looks. The keys are in its last line: Enter goes
into a pool, Esc back; p, w and c show pools, workers and calls; s sorts by the next column, r the other way round; q ends it.

RUN and WAIT are how long a task ran, and waited for its worker, on average since the last look. OLDEST is how long the task that runs longest has run.
Where the output is no terminal, it is one look at the pools.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < 100*time.Millisecond {
				return fmt.Errorf("--interval %v: it must be at least 100ms", interval)
			}
			ctx := cmd.Context()
			look := func(ctx context.Context) (*moment, error) {
				c, err := dial(ctx) // each time: the daemon may have been started again
				if err != nil {
					return nil, err
				}
				defer c.Close()
				return look(ctx, c)
			}
			if !term.IsTerminal(os.Stdout.Fd()) || !term.IsTerminal(os.Stdin.Fd()) {
				return topOnce(ctx, cmd.OutOrStdout(), interval, look)
			}
			first, err := look(ctx)
			if err != nil {
				return err
			}
			t := &top{look: look, interval: interval, sees: change{now: first}, width: 80, height: 24, sorts: map[view]order{workersView: {7, true}, callsView: {5, true}}}
			_, err = tea.NewProgram(t, tea.WithContext(ctx), tea.WithoutSignalHandler()).Run()
			if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		},
	}
	cmd.Flags().DurationVarP(&interval, "interval", "d", interval, "how often to look")
	return cmd
}

// topOnce is what there is for a pipe: two looks, so that there are rates, and one table.
func topOnce(ctx context.Context, w io.Writer, interval time.Duration, look func(context.Context) (*moment, error)) error {
	before, err := look(ctx)
	if err != nil {
		return err
	}
	select {
	case <-time.After(interval):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	now, err := look(ctx)
	if err != nil {
		return err
	}
	c := change{before, now}
	about, sums := c.headline()
	head, rows := c.poolGrid().lines(1<<20, -1, false)
	_, err = fmt.Fprintln(w, strings.Join(append([]string{about, sums, "", head}, rows...), "\n"))
	return err
}

// view is what top shows.
type view int

const (
	poolsView view = iota
	workersView
	callsView
)

var viewNames = [...]string{"pools", "workers", "calls"}

// order is by which column a view is sorted.
type order struct {
	column  int
	reverse bool
}

// top is the live view. bubbletea calls its methods from one goroutine.
type top struct {
	look     func(context.Context) (*moment, error)
	interval time.Duration

	sees          change
	err           error // of the last look; what is shown is older then
	width, height int

	view     view
	pool     string // only this one's workers and calls; "" for all
	sorts    map[view]order
	selected string // id of a row; what is not there any more is the row that took its place
	row      int    // of it, when it was there
	scroll   int    // first row shown
}

type looked struct {
	moment *moment
	err    error
}

type lookAgain struct{}

// lookPatience is how long a look may take. The daemon answers at once, or it is stuck.
const lookPatience = 5 * time.Second

func (t *top) doLook() tea.Msg {
	ctx, cancel := context.WithTimeout(context.Background(), lookPatience)
	defer cancel()
	m, err := t.look(ctx)
	return looked{m, err}
}

func (t *top) later() tea.Cmd {
	return tea.Tick(t.interval, func(time.Time) tea.Msg { return lookAgain{} })
}

// Init starts the looks.
func (t *top) Init() tea.Cmd { return t.later() }

// Update takes keys, looks and sizes in.
func (t *top) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case lookAgain:
		return t, t.doLook
	case looked:
		if t.err = msg.err; msg.err == nil {
			before := t.sees.now
			if before != nil && before.about.GetPid() != msg.moment.about.GetPid() {
				before = nil // another daemon
			}
			t.sees = change{before, msg.moment}
		}
		return t, t.later()
	case tea.WindowSizeMsg:
		t.width, t.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return t, t.press(msg.String())
	}
	return t, nil
}

func (t *top) press(key string) tea.Cmd {
	switch key {
	case "q", "ctrl+c":
		return tea.Quit
	case "p":
		t.show(poolsView, "")
	case "w":
		t.show(workersView, t.pool)
	case "c":
		t.show(callsView, t.pool)
	case "tab":
		t.show((t.view+1)%3, t.pool)
	case "enter", "right":
		if t.view == poolsView && t.selected != "" {
			t.show(workersView, t.selected)
		}
	case "esc", "left", "backspace":
		pool := t.pool
		t.show(poolsView, "")
		t.selected = pool
	case "s":
		o := t.sorts[t.view]
		shown, _ := t.grid().fit(t.width-len(cursor), o.column)
		next := shown[0]
		for k, i := range shown {
			if i == o.column && k+1 < len(shown) {
				next = shown[k+1]
			}
		}
		t.sorts[t.view] = order{next, t.grid().columns[next].right} // of numbers the largest first
	case "r":
		o := t.sorts[t.view]
		o.reverse = !o.reverse
		t.sorts[t.view] = o
	case "up", "k":
		t.move(-1)
	case "down", "j":
		t.move(1)
	case "pgup", "ctrl+b":
		t.move(-t.body())
	case "pgdown", "ctrl+f", "space":
		t.move(t.body())
	case "home", "g":
		t.move(-1 << 30)
	case "end", "G":
		t.move(1 << 30)
	}
	return nil
}

func (t *top) show(v view, pool string) {
	t.view, t.pool, t.selected, t.row, t.scroll = v, pool, "", 0, 0
	if v == poolsView {
		t.pool = ""
	}
}

// grid is the table of the view, in its order.
func (t *top) grid() *grid {
	var g *grid
	switch t.view {
	case workersView:
		g = t.sees.workerGrid(t.pool)
	case callsView:
		g = t.sees.callGrid(t.pool)
	default:
		g = t.sees.poolGrid()
	}
	o := t.sorts[t.view]
	g.sortBy(o.column, o.reverse)
	return g
}

// settle finds the selected row again, and scrolls so that it is seen.
func (t *top) settle(g *grid) {
	for i, r := range g.rows {
		if r.id == t.selected {
			t.row = i
		}
	}
	t.row = max(0, min(t.row, len(g.rows)-1))
	t.selected = ""
	if len(g.rows) > 0 {
		t.selected = g.rows[t.row].id
	}
	t.scroll = max(0, min(t.scroll, t.row, len(g.rows)-t.body()), t.row-t.body()+1)
}

func (t *top) move(by int) {
	g := t.grid()
	t.settle(g)
	if len(g.rows) > 0 {
		t.row = max(0, min(t.row+by, len(g.rows)-1))
		t.selected = g.rows[t.row].id
	}
}

// body is how many rows there is room for, beside five lines at the top and two at the bottom.
func (t *top) body() int { return max(1, t.height-7) }

// cursor stands before the selected row, so that it is seen without colours too.
const cursor = "> "

const (
	bold    = "\x1b[1m"
	reverse = "\x1b[7m"
	faint   = "\x1b[2m"
	normal  = "\x1b[0m"
)

// View is the screen.
func (t *top) View() tea.View {
	v := tea.NewView(t.screen())
	v.AltScreen = true
	v.WindowTitle = "procpool top"
	return v
}

func (t *top) screen() string {
	g := t.grid()
	t.settle(g)
	about, sums := t.sees.headline()
	o := t.sorts[t.view]
	head, rows := g.lines(t.width-len(cursor), o.column, o.reverse)
	lines := []string{t.fit(about, ""), t.fit(sums, ""), "", t.fit(t.title(len(rows)), bold), t.fit(strings.Repeat(" ", len(cursor))+head, faint)}
	for i := t.scroll; i < min(len(rows), t.scroll+t.body()); i++ {
		if i == t.row {
			lines = append(lines, t.fit(cursor+rows[i], reverse))
		} else {
			lines = append(lines, t.fit(strings.Repeat(" ", len(cursor))+rows[i], ""))
		}
	}
	if len(rows) == 0 {
		lines = append(lines, t.fit("  "+t.nothing(), ""))
	}
	for len(lines) < t.height-2 {
		lines = append(lines, "")
	}
	lines = append(lines, t.fit(t.remark(), bold), t.fit("q quit  enter pool  esc back  p pools  w workers  c calls  s sort  r reverse", faint))
	return strings.Join(lines, "\n")
}

// fit cuts a line and puts it into a style.
func (t *top) fit(s, style string) string {
	s = ansi.Truncate(s, t.width, "…")
	if style == reverse {
		s += strings.Repeat(" ", max(0, t.width-ansi.StringWidth(s)))
	}
	if style == "" || s == "" {
		return s
	}
	return style + s + normal
}

func (t *top) title(rows int) string {
	s := strings.ToUpper(viewNames[t.view])
	if t.pool != "" {
		s += " of " + printable(t.pool)
	}
	if rows > t.body() {
		s += fmt.Sprintf("  %d to %d of %d", t.scroll+1, min(rows, t.scroll+t.body()), rows)
	}
	return s
}

func (t *top) nothing() string {
	switch t.view {
	case poolsView:
		return "There is no pool: procpool create NAME -- PROGRAM makes one."
	case callsView:
		return "There is no call now."
	default:
		return "There is no worker now."
	}
}

// remark is what is wrong: with the daemon, or with the pool that is looked at.
func (t *top) remark() string {
	if t.err != nil {
		return fmt.Sprintf("since %s: %s", took(time.Since(t.sees.now.at).Truncate(time.Second)).text, printable(strings.ReplaceAll(t.err.Error(), "\n", "; ")))
	}
	name := t.pool
	if t.view == poolsView {
		name = t.selected
	}
	for _, p := range t.sees.now.pools {
		if exit := p.GetLastExit(); p.GetName() == name && exit != nil {
			return fmt.Sprintf("last worker lost %s ago: %s", t.sees.age(exit.GetTime()).text, printable(exit.GetReason()))
		}
	}
	return ""
}
