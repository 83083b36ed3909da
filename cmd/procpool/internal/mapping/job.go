package mapping

import (
	"iter"
	"strings"
)

// job is what one command works on.
type job struct {
	Seq   int      // its number, from 1
	Items []string // what takes the place of placeholders
	Block *block   // what the command reads, with --pipe; else nil
}

// name is what a job is called.
func (j *job) name() string { return strings.Join(j.Items, " ") }

// sent is how many bytes it has to read.
func (j *job) sent() int64 {
	if j.Block == nil {
		return 0
	}
	return j.Block.size
}

// release gives back what it holds.
func (j *job) release() {
	if j.Block != nil {
		j.Block.close()
	}
}

// jobs makes jobs of n items each; the last one may have fewer.
func jobs(items iter.Seq[string], n int) iter.Seq[*job] {
	return func(yield func(*job) bool) {
		next := &job{Seq: 1}
		for item := range items {
			if next.Items = append(next.Items, item); len(next.Items) < n {
				continue
			}
			if !yield(next) {
				return
			}
			next = &job{Seq: next.Seq + 1}
		}
		if len(next.Items) > 0 {
			yield(next)
		}
	}
}
