package mapping

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/procpool/procpool/cmd/procpool/internal/text"
)

// resultDir is --results DIR: the output of each command in DIR/1/ITEM/stdout and stderr, and its number in seq, as GNU parallel has it. Output
// goes there as it comes.
type resultDir struct {
	root string

	mu   sync.Mutex
	open map[int]*resultFiles // by index: of those that have begun to write
}

type resultFiles struct {
	attempt int
	streams [2]*os.File
}

func newResultDir(root string) (*resultDir, error) {
	if err := os.MkdirAll(root, 0o777); err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	return &resultDir{root: root, open: map[int]*resultFiles{}}, nil
}

func (r *resultDir) piece(index, attempt, stream int, j *job, data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := r.files(index, attempt, j)
	if err != nil {
		return err
	}
	if _, err := f.streams[stream-1].Write(data); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	return nil
}

func (r *resultDir) end(e *ended) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := r.files(e.Index, e.Attempt, e.Job)
	if err != nil {
		return err
	}
	delete(r.open, e.Index)
	for i, tail := range []text.Bytes{e.Result.Stdout, e.Result.Stderr} {
		if _, writeErr := f.streams[i].Write(tail); err == nil {
			err = writeErr
		}
	}
	if err := errors.Join(err, f.close()); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	return nil
}

// flush closes what commands that did not end have left open.
func (r *resultDir) flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, f := range r.open {
		errs = append(errs, f.close())
	}
	clear(r.open)
	return errors.Join(errs...)
}

// resultPath is where the results of a command go, below the root: a directory for each item with its place and its value. Without an item it is its
// number.
func resultPath(j *job) string {
	if len(j.Items) == 0 {
		return strconv.Itoa(j.Seq)
	}
	var path []string
	for i, item := range j.Items {
		path = append(path, strconv.Itoa(i+1), resultName(item, j.Seq))
	}
	return filepath.Join(path...)
}

// maxResultName is how long a directory's name becomes. Most file systems take 255.
const maxResultName = 200

// resultName is an item as the name of a directory. What a name cannot hold is written with a backslash, as GNU parallel does; an item that no
// directory can be named after has its number as well.
func resultName(item string, seq int) string {
	name := strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\x00", `\0`, "/", `\_`).Replace(item)
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Sprintf(`%s\#%d`, name, seq)
	case len(name) > maxResultName:
		return fmt.Sprintf(`%s\#%d`, name[:maxResultName], seq)
	}
	return name
}

// files are those of a command, empty at its first output, and once more at the first output of another attempt.
func (r *resultDir) files(index, attempt int, j *job) (*resultFiles, error) {
	f := r.open[index]
	if f != nil && f.attempt == attempt {
		return f, nil
	}
	if f != nil {
		f.close()
	}
	dir := filepath.Join(r.root, resultPath(j))
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	f = &resultFiles{attempt: attempt}
	r.open[index] = f
	for i, name := range []string{"stdout", "stderr"} {
		var err error
		if f.streams[i], err = os.Create(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("results: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "seq"), []byte(strconv.Itoa(j.Seq)), 0o666); err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	return f, nil
}

func (f *resultFiles) close() error {
	var errs []error
	for _, s := range f.streams {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// resultTable is --results FILE.csv (or .tsv): a row for each command when it has ended, with its output; GNU parallel's columns. Output waits for that where
// the output of commands waits anyway, so that no column is too large.
type resultTable struct {
	blocks
	file    *os.File
	out     *bufio.Writer
	comma   string
	values  int    // columns for items
	head    string // the first line
	begun   bool   // it has been written
	command func(*ended) string
}

// newResultTable begins a table, or goes on with one.
func newResultTable(name string, goOn bool, values int, command func(*ended) string) (*resultTable, error) {
	mode := os.O_RDWR | os.O_CREATE | os.O_APPEND
	if !goOn {
		mode |= os.O_TRUNC
	}
	f, err := os.OpenFile(name, mode, 0o666)
	if err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	t := &resultTable{blocks: blocks{pending: map[int]*spooled{}}, file: f, out: bufio.NewWriterSize(f, 64<<10), comma: ",", values: values, command: command}
	if strings.HasSuffix(name, ".tsv") {
		t.comma = "\t"
	}
	head := []string{"Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal", "Command"}
	for i := range values {
		head = append(head, "V"+strconv.Itoa(i+1))
	}
	t.head = strings.Join(append(head, "Stdout", "Stderr"), t.comma) + "\n"
	if goOn {
		if err := t.goOn(); err != nil {
			f.Close()
			return nil, err
		}
	}
	return t, nil
}

// goOn leaves the rows of an earlier run. A last one without an end was never written to its end, so that the joblog does not know its item: it is
// cut off.
func (t *resultTable) goOn() error {
	info, err := t.file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	in := bufio.NewReaderSize(t.file, max(64<<10, len(t.head)))
	if first, _ := in.Peek(len(t.head)); !strings.HasPrefix(t.head, string(first)) {
		return fmt.Errorf("results: %s has other columns than this run, in its first line; remove the file, or name another", t.file.Name())
	}
	size, err := wholeRows(in)
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	t.begun = size > 0
	if err := t.file.Truncate(size); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	return nil
}

// wholeRows is how many bytes of a table are rows with an end.
func wholeRows(in *bufio.Reader) (size int64, err error) {
	quoted := false
	for read := int64(1); ; read++ {
		b, err := in.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return size, nil
		case err != nil:
			return 0, err
		case b == '"': // one that is doubled changes nothing
			quoted = !quoted
		case b == '\n' && !quoted:
			size = read
		}
	}
}

// isTable says whether the name of results is that of a table.
func isTable(name string) bool {
	return strings.HasSuffix(name, ".csv") || strings.HasSuffix(name, ".tsv")
}

func (t *resultTable) end(e *ended) error {
	if !t.begun {
		t.begun = true
		fmt.Fprint(t.out, t.head)
	}
	p := t.take(e.Index, e.Attempt)
	if p == nil {
		p = &spooled{streams: [2]spool{{budget: &t.budget}, {budget: &t.budget}}}
	}
	defer p.close()
	for i, tail := range []text.Bytes{e.Result.Stdout, e.Result.Stderr} {
		if _, err := p.streams[i].Write(tail); err != nil {
			return err
		}
	}
	exit, signal := e.exitStatus()
	cells := []string{strconv.Itoa(e.Job.Seq), ":", fmt.Sprintf("%.3f", seconds(e.Start)), fmt.Sprintf("%.3f", e.Result.Seconds),
		strconv.FormatInt(e.Job.sent(), 10), strconv.FormatInt(p.streams[0].size, 10), strconv.Itoa(exit), strconv.Itoa(signal), t.command(e)}
	for i := range t.values {
		value := ""
		if i < len(e.Job.Items) {
			value = e.Job.Items[i]
		}
		cells = append(cells, value)
	}
	t.row(cells)
	for i := range p.streams {
		if err := t.cell(&p.streams[i]); err != nil {
			return err
		}
	}
	fmt.Fprintln(t.out)
	if err := t.out.Flush(); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	return nil
}

// row writes cells. If that fails, so does the Flush.
func (t *resultTable) row(cells []string) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.out, t.comma)
		}
		if strings.ContainsAny(c, t.comma+"\"\r\n") {
			c = `"` + strings.ReplaceAll(c, `"`, `""`) + `"`
		}
		fmt.Fprint(t.out, c)
	}
}

// cell writes output as the next cell of a row. It is quoted whatever it is, unless it is empty.
func (t *resultTable) cell(s *spool) error {
	fmt.Fprint(t.out, t.comma)
	if s.size == 0 {
		return nil
	}
	fmt.Fprint(t.out, `"`)
	if _, err := s.WriteTo(quoteDoubler{t.out}); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	fmt.Fprint(t.out, `"`)
	return nil
}

// quoteDoubler writes every quote twice.
type quoteDoubler struct{ w io.Writer }

func (d quoteDoubler) Write(p []byte) (int, error) {
	if _, err := d.w.Write(bytes.ReplaceAll(p, []byte(`"`), []byte(`""`))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (t *resultTable) flush() error { return t.file.Close() }
