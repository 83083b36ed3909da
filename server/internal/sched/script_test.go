package sched

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite what the scripts expect")

// TestScripts runs the stories in testdata. A line at the left edge is an event, the lines indented below it are the effects of the
// Settle that follows. "+2s" before an event lets time pass, with a Settle at every deadline; "/" joins events into one Settle.
// The events are the cases of script.event.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(want))
			if got == string(want) {
				return
			}
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("%s tells another story (-update rewrites it):\n%s", file, firstDifference(got, string(want)))
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	n := 0
	for n < len(g) && n < len(w) && g[n] == w[n] {
		n++
	}
	show := func(l []string) string { return strings.Join(l[max(0, min(n, len(l))-3):min(len(l), n+4)], "\n") }
	return fmt.Sprintf("line %d\ngot\n%s\nwant\n%s", n+1, show(g), show(w))
}

// script is a story in progress.
type script struct {
	t     *testing.T
	pool  *Pool
	start time.Time
	now   time.Time
	held  map[WorkerID][]*told // chunks as they were sent
	out   strings.Builder
}

// told is a chunk as its worker knows it.
type told struct {
	id   ChunkID
	done int
	n    int
}

func runScript(t *testing.T, text string) string {
	t.Helper()
	start := time.Unix(1_000_000_000, 0)
	s := &script{t: t, start: start, now: start, held: map[WorkerID][]*told{}}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "\t") {
			continue
		}
		fmt.Fprintln(&s.out, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if rest, ok := strings.CutPrefix(line, "+"); ok {
			d, after, _ := strings.Cut(rest, " ")
			s.pass(s.duration(d))
			line = after
		}
		for event := range strings.SplitSeq(line, " / ") {
			s.event(strings.Fields(event))
		}
		s.settle("")
	}
	return s.out.String()
}

// pass lets time pass.
func (s *script) pass(d time.Duration) {
	end := s.now.Add(d)
	for range 1000 {
		at, ok := s.pool.NextDeadline()
		if !ok || !at.Before(end) {
			s.now = end
			return
		}
		s.now = at
		s.settle(fmt.Sprintf("\tat %v\n", at.Sub(s.start)))
	}
	s.t.Fatalf("1000 deadlines within %v", d)
}

func (s *script) settle(head string) {
	if s.pool == nil {
		return
	}
	for _, e := range s.pool.Settle(s.now) {
		s.out.WriteString(head)
		head = ""
		s.tell(&e)
	}
	checkPool(s.t, s.pool)
}

func (s *script) event(f []string) {
	if len(f) == 0 {
		return
	}
	verb, args := f[0], f[1:]
	opt := map[string]string{}
	var pos []int
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if n, err := strconv.Atoi(a); err == nil {
			pos = append(pos, n)
		} else {
			opt[k] = v
			if !ok {
				opt[k] = "yes"
			}
		}
	}
	arg := func(i int) int {
		if i >= len(pos) {
			s.t.Fatalf("%s: argument %d is missing", strings.Join(f, " "), i+1)
		}
		return pos[i]
	}
	num := func(k string, def int) int {
		if v, ok := opt[k]; ok {
			n, err := strconv.Atoi(v)
			if err != nil {
				s.t.Fatalf("%s: %v", strings.Join(f, " "), err)
			}
			return n
		}
		return def
	}
	dur := func(k string) time.Duration {
		if v, ok := opt[k]; ok {
			return s.duration(v)
		}
		return 0
	}
	p := s.pool
	switch verb {
	case "pool": // another story
		s.start, s.held = s.now, map[WorkerID][]*told{}
		s.pool = New(Config{
			Workers: num("workers", 1), MaxStarting: num("starting", 0), WindowBytes: num("window", 0), MaxChunkTasks: num("tasks", 0),
			Spares: num("spares", 0), MaxTasks: num("max-tasks", 0), MaxAge: dur("max-age"), MaxIdle: dur("max-idle"), MinWorkers: num("min", 0),
			DrainMemory: int64(num("drain-memory", 0)), CancelGrace: dur("grace"), TargetChunk: dur("target"), Prefetch: dur("prefetch"),
		})
	case "tick":
	case "spawned":
		p.Spawned(s.now, WorkerID(arg(0)))
	case "hello", "up":
		h := Hello{Functions: []Function{{"f", "json"}, {"g", "bytes"}}, CreditTasks: num("tasks", 1024), CreditBytes: num("bytes", 1<<20)}
		switch opt["functions"] {
		case "none":
			h.Functions = nil
		case "new": // g has another place, f another encoding, and there is a new one
			h.Functions = []Function{{"g", "bytes"}, {"f", "proto"}, {"h", "json"}}
		case "more":
			h.Functions = append([]Function{{"h", "json"}}, h.Functions...)
		}
		for _, w := range pos {
			p.Registered(s.now, WorkerID(w), h)
			if verb == "up" {
				p.Ready(s.now, WorkerID(w))
			}
		}
	case "ready":
		p.Ready(s.now, WorkerID(arg(0)))
	case "open", "call":
		spec := CallSpec{
			ID: CallID(arg(0)), UID: uint32(num("uid", 0)), Weight: num("weight", 0), Function: "f", Encoding: opt["encoding"], Single: opt["single"] != "",
			ChunkSize: num("chunk", 0), TaskTimeout: dur("timeout"), QueueTimeout: dur("queue"), Linger: dur("linger"), MaxAttempts: num("attempts", 0),
		}
		if fn, ok := opt["function"]; ok {
			spec.Function = fn
		}
		for name := range strings.SplitSeq(opt["retry"], ",") {
			if i := slices.Index(outcomes[:], strings.ReplaceAll(name, "-", " ")); i > 0 {
				spec.RetryOn |= 1 << i
			}
		}
		p.Open(s.now, spec)
		if verb == "call" {
			p.Add(s.now, spec.ID, Items{N: arg(1), ItemSize: uint32(num("size", 1))})
			p.EndInput(s.now, spec.ID)
		}
	case "add":
		p.Add(s.now, CallID(arg(0)), Items{N: arg(1), ItemSize: uint32(num("size", 1))})
	case "end":
		p.EndInput(s.now, CallID(arg(0)))
	case "cancel":
		if len(pos) == 1 {
			p.Cancel(s.now, CallID(arg(0)), NoReason)
			break
		}
		var seqs []uint64
		for _, n := range pos[1:] {
			seqs = append(seqs, uint64(n))
		}
		p.CancelTasks(s.now, CallID(arg(0)), seqs)
	case "deadline":
		p.Cancel(s.now, CallID(arg(0)), DeadlinePassed)
	case "written":
		p.Written(s.now, CallID(arg(0)), arg(1), arg(2))
	case "done": // the next n tasks of worker w, or all of its chunk
		w := WorkerID(arg(0))
		p.Results(s.now, w, s.report(w, num("n", 0), opt, num("bytes", 0), dur("ran")))
	case "results": // whatever a worker may say
		p.Results(s.now, WorkerID(arg(0)), Report{Chunk: ChunkID(num("chunk", 0)), First: num("first", 0), N: num("n", 1)})
	case "returned":
		w, from := WorkerID(arg(0)), num("from", 0)
		for _, k := range s.held[w] {
			if k.id == ChunkID(num("chunk", 0)) {
				k.n = min(k.n, from)
			}
		}
		s.tidy(w)
		p.Returned(s.now, w, ChunkID(num("chunk", 0)), from)
	case "progress":
		p.Progress(s.now, WorkerID(arg(0)), ChunkID(num("chunk", 0)), num("offset", 0), s.now.Add(-dur("since")), opt["idle"] == "")
	case "exited":
		w := WorkerID(arg(0))
		x := Exit{Known: opt["unknown"] == "", Why: opt["why"]}
		if n := num("recovered", 0); n > 0 {
			x.Recovered = append(x.Recovered, s.report(w, n, opt, 0, 0))
		}
		if opt["clean"] != "" {
			x.Kind = ExitClean
		}
		if opt["permanent"] != "" {
			x.Kind = ExitPermanent
		}
		if len(s.held[w]) > 0 && opt["between"] == "" {
			x.Running, x.Chunk, x.Offset = true, ChunkID(num("chunk", int(s.held[w][0].id))), s.held[w][0].done
		}
		delete(s.held, w)
		p.Exited(s.now, w, x)
	case "memory":
		p.Memory(s.now, WorkerID(arg(0)), int64(arg(1)))
	case "outgrew":
		p.Outgrew(s.now, WorkerID(arg(0)))
	case "resize":
		p.Resize(s.now, arg(0))
	case "restart":
		if p.Restart(s.now) == 0 {
			s.say("no restart")
		}
	case "close":
		p.Close(s.now)
	case "terminate":
		r := NoReason
		if opt["stopping"] != "" {
			r = Stopping
		}
		p.Terminate(s.now, r)
	case "show":
		p.Settle(s.now)
		s.show()
	default:
		s.t.Fatalf("unknown event %q", verb)
	}
}

// report is the next n tasks of what w runs.
func (s *script) report(w WorkerID, n int, opt map[string]string, bytes int, ran time.Duration) Report {
	if len(s.held[w]) == 0 {
		s.t.Fatalf("worker %d holds nothing after\n%s", w, s.out.String())
	}
	k := s.held[w][0]
	if n == 0 {
		n = k.n - k.done
	}
	r := Report{Chunk: k.id, First: k.done, N: n, Bytes: bytes, Ran: ran}
	for i, o := range outcomes {
		if v, ok := opt[strings.ReplaceAll(o, " ", "-")]; ok {
			r.Failed = append(r.Failed, Failed{int(s.number(v)), Outcome(i)})
		}
	}
	k.done += n
	s.tidy(w)
	return r
}

func (s *script) tidy(w WorkerID) {
	s.held[w] = slices.DeleteFunc(s.held[w], func(k *told) bool { return k.done >= k.n })
}

func (s *script) number(v string) uint64 {
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *script) duration(v string) time.Duration {
	d, err := time.ParseDuration(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *script) say(format string, args ...any) { fmt.Fprintf(&s.out, "\t"+format+"\n", args...) }

func (s *script) tell(e *Effect) {
	switch e.Kind {
	case Spawn:
		if e.Generation > 1 {
			s.say("spawn worker %d, generation %d", e.Worker, e.Generation)
		} else {
			s.say("spawn worker %d", e.Worker)
		}
	case Dispatch:
		s.held[e.Worker] = append(s.held[e.Worker], &told{id: e.Chunk.ID, n: e.Chunk.N})
		text := fmt.Sprintf("worker %d: chunk %d, call %d %s, attempt %d", e.Worker, e.Chunk.ID, e.Call, seqs(e.Chunk.Parts), e.Chunk.Attempt)
		if e.Chunk.Function > 0 {
			text += fmt.Sprintf(", function %d", e.Chunk.Function)
		}
		s.say("%s", text)
	case CancelTask:
		s.say("worker %d: cancel chunk %d place %d", e.Worker, e.ChunkID, e.Offset)
	case Revoke:
		s.say("worker %d: give back chunk %d from %d", e.Worker, e.ChunkID, e.Offset)
	case Stop:
		if e.Reason != NoReason {
			s.say("worker %d: stop, %v", e.Worker, e.Reason)
		} else {
			s.say("worker %d: stop", e.Worker)
		}
	case Inspect:
		s.say("worker %d: %v", e.Worker, e.Kind)
	case Restarted:
		if e.Reason != NoReason {
			s.say("restart to generation %d: failed, %v%s", e.Generation, e.Reason, because(e.Why))
		} else {
			s.say("restart to generation %d: done, %d replaced", e.Generation, e.Offset)
		}
	case Signal, Kill:
		s.say("worker %d: %v, %v", e.Worker, e.Kind, e.Reason)
	case Opened:
		s.say("call %d: opened, %s", e.Call, e.Encoding)
	case Refused:
		s.say("call %d: refused, %v%s", e.Call, e.Reason, because(e.Why))
	case Deliver:
		d := e.Delivery
		text := fmt.Sprintf("call %d: %s %v", e.Call, seqs(d.Parts), d.Outcome)
		if d.Reason != NoReason {
			text += fmt.Sprintf(", %v", d.Reason)
		}
		text += fmt.Sprintf(", attempts %d", d.Attempts)
		for _, f := range d.Report.Failed {
			if f.Offset >= d.First && f.Offset < d.First+d.N {
				text += fmt.Sprintf(", place %d %v", f.Offset, f.Outcome)
			}
		}
		s.say("%s%s", text, because(d.Why))
	case Ended:
		s.say("call %d: ended", e.Call)
	case StateChange:
		s.say("pool: %v", e.State)
	}
}

func because(why any) string {
	if why == nil || why == "" {
		return ""
	}
	return fmt.Sprintf(" (%v)", why)
}

// seqs is the numbers of tasks, as ranges.
func seqs(parts []Part) string {
	var b strings.Builder
	b.WriteString("tasks ")
	for i := 0; i < len(parts); i++ {
		first, n := parts[i].Seq, parts[i].N
		for i+1 < len(parts) && parts[i+1].Seq == first+uint64(n) {
			i++
			n += parts[i].N
		}
		if b.Len() > len("tasks ") {
			b.WriteString(" ")
		}
		fmt.Fprint(&b, first)
		if n > 1 {
			fmt.Fprintf(&b, "-%d", first+uint64(n)-1)
		}
	}
	return b.String()
}

func (s *script) show() {
	i := s.pool.Info()
	if i.Spare > 0 || i.Generation > 1 {
		s.say("%d spare, generation %d", i.Spare, i.Generation)
	}
	s.say("pool %v: %d starting, %d idle, %d busy, %d calls, %d tasks pending, %d done", i.State, i.Starting, i.Idle, i.Busy, i.Calls, i.Pending, i.Done)
	for _, w := range s.pool.Workers() {
		line := fmt.Sprintf("worker %d %v, %d tasks done", w.ID, w.Activity, w.Done)
		if w.Call != 0 {
			line += fmt.Sprintf(", runs call %d task %d attempt %d since %v", w.Call, w.Seq, w.Attempt, w.Since.Sub(s.start))
		}
		s.say("%s", line)
	}
	for _, c := range s.pool.Calls() {
		line := fmt.Sprintf("call %d: %d accepted, %d running, %d done, %d failed, input ended %v", c.ID, c.Accepted, c.Running, c.Done, c.Failed, c.InputEnded)
		if !c.OldestSince.IsZero() {
			line += fmt.Sprintf(", oldest %d since %v", c.Oldest, c.OldestSince.Sub(s.start))
		}
		s.say("%s", line)
	}
}
