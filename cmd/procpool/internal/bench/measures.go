package bench

import (
	"fmt"
	"slices"
	"strings"
)

// A measure is a piece of work that one side after the other does, and the figures that come of it.
type measure struct {
	name    string
	what    string
	figures []figure
	work    work
	peers   []string // who can do the same, beside us
	command bool     // the work is done by command lines
	own     bool     // it looks at the daemon's process, which must then be one that bench has started
}

// figure is one number of a measure. The name is empty if there is no other.
type figure struct {
	name string
	unit unit
}

// work is what a side is asked to do in one round, as a line of JSON.
type work struct {
	Do      string  `json:"do"`
	Workers int     `json:"workers"`
	Items   int     `json:"items,omitempty"`
	Chunk   int     `json:"chunk,omitempty"` // 0: the side's own choice
	Bytes   int     `json:"bytes,omitempty"` // of an item
	Clients int     `json:"clients,omitempty"`
	Rate    int     `json:"rate,omitempty"` // items a second
	Seconds float64 `json:"seconds"`        // the work is repeated until it has taken so long; at least once
}

// answer is what a side says after a round, as a line of JSON. Before the first round it says that it is there.
type answer struct {
	Values  []*float64 `json:"values"`  // one per figure, in the base unit; null: this side has none
	Checked int        `json:"checked"` // results that were compared with what they have to be
	Note    string     `json:"note,omitempty"`
	Error   string     `json:"error,omitempty"`
}

func values(list ...float64) []*float64 {
	out := make([]*float64, len(list))
	for i := range list {
		out[i] = &list[i]
	}
	return out
}

// The peers.
const (
	peerPool     = "mp.Pool"
	peerSpawn    = "mp.Pool (spawn)"
	peerExecutor = "ProcessPoolExecutor"
	peerXargs    = "xargs"
	peerParallel = "GNU parallel"
	peerStreams  = "bare gRPC relay"
	peerSockets  = "bare socket relay"
	peerExec     = "fork+exec"
)

// comparisons are the values of --compare, and who is behind them.
var comparisons = map[string][]string{
	"python": {peerPool, peerSpawn, peerExecutor},
	"xargs":  {peerXargs, peerParallel},
	"floor":  {peerStreams, peerSockets, peerExec},
}

// measures are all of them, in the order in which they are done.
var measures = slices.Concat(
	[]measure{
		{
			name: "map-auto", what: "Map, automatic chunks", figures: []figure{{"", perSecond}}, peers: []string{peerPool, peerStreams, peerSockets},
			work: work{Do: "map", Items: 1_000_000},
		},
		{
			name: "map-10", what: "Map, chunk size 10", figures: []figure{{"", perSecond}}, peers: []string{peerPool, peerExecutor},
			work: work{Do: "map", Items: 100_000, Chunk: 10},
		},
		{
			name: "map-1", what: "Map, chunk size 1", figures: []figure{{"", perSecond}}, peers: []string{peerPool, peerExecutor, peerStreams, peerSockets},
			work: work{Do: "map", Items: 20_000, Chunk: 1},
		},
		{
			name: "imap", what: "IMap, chunk size 1", figures: []figure{{"", perSecond}}, peers: []string{peerPool},
			work: work{Do: "imap", Items: 20_000, Chunk: 1},
		},
		{
			name: "apply-async", what: "ApplyAsync, all at once", figures: []figure{{"", perSecond}}, peers: []string{peerPool, peerExecutor},
			work: work{Do: "apply-async", Items: 20_000},
		},
		{
			name: "apply", what: "Apply, one at a time", figures: []figure{{"p50", inSeconds}, {"p99", inSeconds}},
			peers: []string{peerPool, peerExecutor, peerStreams, peerSockets},
			work:  work{Do: "apply"},
		},
	},
	payloads("argument"),
	payloads("result"),
	[]measure{
		{
			name: "start-cold", what: "New pool to first result", figures: []figure{{"", inSeconds}}, peers: []string{peerPool, peerSpawn, peerExecutor},
			work: work{Do: "start-cold"},
		},
		{
			name: "start-worker", what: "New pool of one worker to first result, on a daemon that runs", figures: []figure{{"", inSeconds}},
			work: work{Do: "start-worker"},
		},
		{
			name: "start-warm", what: "First result on a pool that runs", figures: []figure{{"p50", inSeconds}, {"p99", inSeconds}}, peers: []string{peerPool},
			work: work{Do: "start-warm"},
		},
		{
			name: "line-rate", what: "A line worker in Python, over a lazy input", figures: []figure{{"", perSecond}}, peers: []string{peerPool},
			work: work{Do: "line-rate", Items: 50_000},
		},
		{
			name: "command-rate", what: "A command (true) per item", figures: []figure{{"", perSecond}}, peers: []string{peerXargs, peerParallel, peerExec},
			work: work{Do: "command-rate", Items: 2000}, command: true,
		},
		{
			name: "command-one", what: "map -- true ::: x, from start to end", figures: []figure{{"", inSeconds}}, peers: []string{peerXargs, peerParallel},
			work: work{Do: "command-one"}, command: true,
		},
		{
			name: "fair-apply", what: "Apply during a Map of a million 1 ms tasks", figures: []figure{{"p50", inSeconds}, {"p99", inSeconds}, {"max", inSeconds}},
			work: work{Do: "fair-apply", Items: 1_000_000},
		},
		{
			name: "fair-queue", what: "Apply behind a Map of 1,000 1 ms tasks", figures: []figure{{"", inSeconds}}, peers: []string{peerPool, peerExecutor},
			work: work{Do: "fair-queue", Items: 1000},
		},
		{
			name: "fair-shares", what: "Two clients, tasks of 1 ms and of 10 ms: run time of who gets less", figures: []figure{{"", asShare}},
			work: work{Do: "fair-shares"},
		},
		{
			name: "memory-imap", what: "Endless IMap of 1 KiB items, read at 100/s", figures: []figure{{"memory above idle", inBytes}, {"items ahead", inItems}},
			peers: []string{peerPool}, work: work{Do: "memory-imap", Bytes: 1024}, own: true,
		},
		{
			name: "memory-calls", what: "64 endless IMaps of 1 KiB items on one connection, whose tasks do not end", figures: []figure{{"memory above idle", inBytes}, {"items taken", inItems}},
			work: work{Do: "memory-calls", Items: 64, Bytes: 1024}, own: true,
		},
		{
			name: "memory-idle", what: "Idle pool", figures: []figure{{"process of the daemon", inBytes}, {"worker", inBytes}, {"worker, proportional", inBytes}},
			peers: []string{peerPool}, work: work{Do: "memory-idle"}, own: true,
		},
		{
			name: "crash", what: "Death of a worker to the error of its task", figures: []figure{{"p50", inSeconds}, {"p99", inSeconds}},
			peers: []string{peerPool, peerExecutor}, work: work{Do: "crash"},
		},
		{
			name: "recycle", what: "Map of 0.1 ms naps, chunk size 1", figures: []figure{{"", perSecond}, {"workers replaced every 25 tasks", perSecond}, {"what is left", asShare}},
			peers: []string{peerPool}, work: work{Do: "recycle", Items: 1000},
		},
		{
			name: "recycle-paced", what: "0.1 ms naps, 3,956 a second",
			figures: []figure{
				{"", perSecond}, {"workers replaced every 25 tasks", perSecond}, {"what is left", asShare},
				{"p95", inSeconds}, {"p95, workers replaced", inSeconds},
			},
			peers: []string{peerPool}, work: work{Do: "recycle-paced", Items: 8000, Rate: 3956},
		},
		{
			name: "cpu-auto", what: "CPU time of a task, automatic chunks", figures: []figure{{"", inSeconds}}, peers: []string{peerPool},
			work: work{Do: "cpu", Items: 1_000_000}, own: true,
		},
		{
			name: "cpu-1", what: "CPU time of a task, chunk size 1", figures: []figure{{"", inSeconds}}, peers: []string{peerPool},
			work: work{Do: "cpu", Items: 50_000, Chunk: 1}, own: true,
		},
		{
			name: "cpu-64", what: "CPU time of a task, automatic chunks, 64 clients at once", figures: []figure{{"", inSeconds}},
			work: work{Do: "cpu", Items: 1_000_000, Clients: 64}, own: true,
		},
	},
)

// payloads are the measures of items of all sizes, one way. Small ones travel in automatic chunks, as they do for users; large ones one by one,
// because a list of them is short.
func payloads(way string) []measure {
	var list []measure
	for _, size := range []struct {
		name  string
		bytes int
	}{{"64B", 64}, {"1KiB", 1 << 10}, {"64KiB", 64 << 10}, {"1MiB", 1 << 20}, {"16MiB", 16 << 20}} {
		m := measure{
			name: way + "-" + size.name, figures: []figure{{"", bytesPerSecond}}, peers: []string{peerPool},
			work: work{Do: way, Bytes: size.bytes, Items: max(4, min(20_000, 32<<20/size.bytes))},
		}
		m.what = fmt.Sprintf("Map, %s of %s, automatic chunks", way, unitApart(size.name))
		if size.bytes >= 64<<10 {
			m.work.Chunk, m.peers = 1, append(m.peers, peerExecutor, peerStreams, peerSockets) // which have no chunks of their own choice
			m.what = fmt.Sprintf("Map, %s of %s, chunk size 1", way, unitApart(size.name))
		}
		list = append(list, m)
	}
	return list
}

// unitApart is 64 KiB for 64KiB.
func unitApart(s string) string {
	i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	return s[:i] + " " + s[i:]
}

// selectMeasures finds what is asked for: a measure by its name, or all whose names begin with the word and "-". Without a word it is all, or those that have
// something to compare with; "all" is all in any case.
func selectMeasures(words, peers []string) ([]measure, error) {
	if len(words) == 0 {
		return slices.DeleteFunc(slices.Clone(measures), func(m measure) bool {
			return len(peers) > 0 && !slices.ContainsFunc(m.peers, func(p string) bool { return slices.Contains(peers, p) })
		}), nil
	}
	if slices.Contains(words, "all") {
		return measures, nil
	}
	var names []string
	for _, word := range words {
		n := len(names)
		for _, m := range measures {
			if m.name == word {
				names = append(names[:n], m.name) // it alone, whatever else begins like it
				break
			}
			if strings.HasPrefix(m.name, word+"-") {
				names = append(names, m.name)
			}
		}
		if len(names) == n {
			return nil, fmt.Errorf("there is no measure %q (procpool bench --list has them)", word)
		}
	}
	return slices.DeleteFunc(slices.Clone(measures), func(m measure) bool { return !slices.Contains(names, m.name) }), nil
}
