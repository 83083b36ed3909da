package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/server"
	"github.com/procpool/procpool/server/metrics"
)

// key is a setting of C, which is the daemon or a pool.
type key[C any] struct {
	name        string // in the file; "task.timeout" stands in table [task]
	help        string // what it is for, in a line
	def         string // what holds when nobody says anything, for a person
	placeholder string // for its value
	field       string // what the protocol calls it in PoolSpec, if it does and says something about it

	set  func(c *C, v any) error       // v is as TOML has it
	text func(c *C, text string) error // from the command line or the environment
	show func(c *C) string             // as TOML
}

// kind is a kind of values.
type kind[T any] struct {
	placeholder string
	read        func(v any) (T, error) // from TOML
	parse       func(s string) (T, error)
	show        func(T) string
}

func newKey[C, T any](name string, k kind[T], at func(*C) *T, def, help string) key[C] {
	store := func(c *C, v T, err error) error {
		if err != nil {
			return fmt.Errorf("%s %w", name[strings.Index(name, ".")+1:], err)
		}
		*at(c) = v
		return nil
	}
	return key[C]{
		name: name, help: help, def: def, placeholder: k.placeholder,
		set:  func(c *C, v any) error { t, err := k.read(v); return store(c, t, err) },
		text: func(c *C, s string) error { t, err := k.parse(s); return store(c, t, err) },
		show: func(c *C) string { return k.show(*at(c)) },
	}
}

func (k key[C]) named(field string) key[C] {
	k.field = field
	return k
}

// daemonKeys are the daemon's own settings. Another one is a line here, a field of Config, and a paragraph in docs/configuration.md and deploy/procpoold.toml.
var daemonKeys = []key[Config]{
	newKey("mode", oneOf(modeUser, modeSystem), func(c *Config) *string { return &c.mode }, modeUser,
		"user: serve the user who started it; system: serve the members of a group"),
	newKey("addr", socket, func(c *Config) *string { return &c.Addr }, "see procpool addr; in system mode "+systemAddr, "path of the client socket"),
	newKey("socket_mode", fileMode, func(c *Config) *fs.FileMode { return &c.SocketMode }, "0600; in system mode 0660", "mode of the client socket"),
	newKey("socket_group", group, func(c *Config) *Group { return &c.SocketGroup }, "the daemon's own", "system mode: whose members may connect"),
	newKey("admin_group", group, func(c *Config) *Group { return &c.AdminGroup }, "none: root alone", "system mode: whose members may steer pools and see all calls"),
	newKey("drain_timeout", duration, func(c *Config) *time.Duration { return &c.DrainTimeout }, "60s", "how long accepted calls may go on after SIGTERM"),
	newKey("log_level", oneOf("trace", "debug", "info", "warn", "error"), func(c *Config) *string { return &c.LogLevel }, "info", "how much it logs"),
	newKey("log_format", oneOf("text", "json"), func(c *Config) *string { return &c.LogFormat }, "text", "how it logs"),
	newKey("metrics", metricsAddr, func(c *Config) *string { return &c.Metrics }, "nowhere",
		"where Prometheus metrics are served"),
	newKey("cgroup", place, func(c *Config) *string { return &c.Cgroup }, "auto",
		"where workers have cgroups of their own: auto, below the daemon's if that has been delegated; off; or a directory"),
	newKey("limit_calls", count(1), func(c *Config) *int { return &c.limitCalls }, "4096", "calls of one user at a time; all users together have four times that"),
	newKey("limit_streams", count(1), func(c *Config) *int { return &c.limitStreams }, "8192", "streams of one user at a time, likewise"),
	newKey("limit_items", count(1), func(c *Config) *int { return &c.limitItems }, "1048576", "items of one user in the daemon, likewise"),
	newKey("limit_bytes", size, func(c *Config) *int64 { return &c.limitBytes }, "256MiB", "bytes of one user in the daemon, likewise"),
	newKey("conf_dir", path("DIR", systemDir+"/conf.d"), func(c *Config) *string { return &c.ConfDir }, "conf.d beside the configuration file", "directory with a file NAME.toml for each pool"),
}

// poolKeys are the settings of a pool.
var poolKeys = []key[Pool]{
	newKey("command", argv, func(p *Pool) *[]string { return &p.command }, "", "the program of the workers, and its arguments").named("program"),
	newKey("dir", path("DIR", "/srv"), func(p *Pool) *string { return &p.dir }, "the daemon's", "working directory"),
	newKey("env", environment, func(p *Pool) *map[string]string { return &p.env }, "the daemon's", "environment, beside the daemon's"),
	newKey("workers", count(1), func(p *Pool) *int { return &p.workers }, "usable CPUs", "how many").named("workers"),
	newKey("peer", oneOf(slices.Sorted(maps.Keys(peers))...), func(p *Pool) *string { return &p.peer }, "exact", "which process may say Hello for a worker").named("peer"),
	newKey("lines", boolean, func(p *Pool) *bool { return &p.lines }, "false", "the program answers a line with a line: a line worker"),
	newKey("json_lines", boolean, func(p *Pool) *bool { return &p.jsonLines }, "false", "the same, and each line is a JSON value"),
	newKey("null", boolean, func(p *Pool) *bool { return &p.null }, "false", "its lines end with NUL"),
	newKey("dedicated", boolean, func(p *Pool) *bool { return &p.dedicated }, "false", "keep the pool to the first user who makes a call"),

	newKey("task.timeout", duration, func(p *Pool) *time.Duration { return &p.taskTimeout }, "none", "how long a task may run, if its call does not say"),
	newKey("task.max_attempts", between(1, server.MaxAttempts), func(p *Pool) *int { return &p.maxAttempts }, "1", "how often a task is tried, if its call does not say"),
	newKey("task.cancel_grace", duration, func(p *Pool) *time.Duration { return &p.cancelGrace }, "5s", "how long a cancelled task has to return before SIGTERM").named("cancel_grace"),
	newKey("task.kill_delay", duration, func(p *Pool) *time.Duration { return &p.killDelay }, "2s", "how long after SIGTERM comes SIGKILL").named("kill_delay"),

	newKey("worker.start_timeout", duration, func(p *Pool) *time.Duration { return &p.startTimeout }, "10s", "how long a worker has to say Hello").named("start_timeout"),
	newKey("worker.ready_timeout", duration, func(p *Pool) *time.Duration { return &p.readyTimeout }, "60s", "how long its init function has after that").named("ready_timeout"),
	newKey("worker.max_tasks", count(1), func(p *Pool) *int { return &p.maxTasks }, "no limit", "tasks after which a worker is replaced").named("max_tasks_per_worker"),
	newKey("worker.max_age", duration, func(p *Pool) *time.Duration { return &p.maxAge }, "no limit", "age at which a worker is replaced").named("max_worker_age"),
	newKey("worker.max_idle", duration, func(p *Pool) *time.Duration { return &p.maxIdle }, "no limit", "time without a task after which a worker stops").named("max_worker_idle"),
	newKey("worker.min_workers", count(0), func(p *Pool) *int { return &p.minWorkers }, "0", "how many stay when idle; for max_idle").named("min_workers"),
	newKey("worker.spares", count(0), func(p *Pool) *int { return &p.spares }, "0", "workers kept ready to replace others").named("spares"),
	newKey("worker.drain_memory", size, func(p *Pool) *int64 { return &p.drainMemory }, "no limit", "resident memory above which a worker is replaced after its task").named("drain_memory"),
	newKey("worker.max_memory", size, func(p *Pool) *int64 { return &p.maxMemory }, "no limit", "memory of a worker and its children above which they are killed").named("max_memory"),
	newKey("worker.max_processes", count(1), func(p *Pool) *int { return &p.maxProcesses }, "no limit", "processes and threads of a worker and its children; needs a cgroup").named("max_processes"),

	newKey("limits.calls", count(1), func(p *Pool) *int { return &p.calls }, "no limit", "calls at a time"),
	newKey("limits.calls_per_user", count(1), func(p *Pool) *int { return &p.callsPerUser }, "no limit", "those of one user"),
}

// Kinds of values.

// ofString is a kind whose values are strings in TOML.
func ofString[T any](placeholder, example string, parse func(string) (T, error), show func(T) string) kind[T] {
	return kind[T]{placeholder: placeholder, parse: parse, show: show, read: func(v any) (T, error) {
		s, ok := v.(string)
		if !ok {
			var none T
			return none, fmt.Errorf("is %s; it must be a string, in quotes, such as %q", describe(v), example)
		}
		return parse(s)
	}}
}

// path is the path of a file or directory. In a file it must be absolute; on the command line it need not.
func path(placeholder, example string) kind[string] {
	k := ofString(placeholder, example, func(s string) (string, error) {
		if s == "" || strings.ContainsRune(s, 0) {
			return "", fmt.Errorf("is %q; leave it out for the default", s)
		}
		return filepath.Abs(s)
	}, strconv.Quote)
	read := k.read
	k.read = func(v any) (string, error) {
		if s, ok := v.(string); ok && s != "" && !filepath.IsAbs(s) {
			return "", fmt.Errorf("is %q; it must be an absolute path, such as %q", s, example)
		}
		return read(v)
	}
	return k
}

// socket is the path of the client socket. As for clients, "unix:" may stand before it.
var socket = func() kind[string] {
	k := path("PATH", systemAddr)
	parse, read := k.parse, k.read
	k.parse = func(s string) (string, error) { return parse(client.SocketPath(s)) }
	k.read = func(v any) (string, error) {
		if s, ok := v.(string); ok {
			v = client.SocketPath(s)
		}
		return read(v)
	}
	return k
}()

var metricsAddr = ofString("unix:PATH|127.0.0.1:PORT", "127.0.0.1:9464", func(s string) (string, error) {
	if s == "" {
		return "", nil // nowhere, whatever the file says
	}
	_, _, err := metrics.ParseAddr(s)
	return s, err
}, strconv.Quote)

// place is where cgroups are.
var place = func() kind[string] {
	k := path("auto|off|DIR", "/sys/fs/cgroup/procpool")
	word := func(s string) bool { return s == "auto" || s == "off" }
	parse, read := k.parse, k.read
	k.parse = func(s string) (string, error) {
		if word(s) {
			return s, nil
		}
		return parse(s)
	}
	k.read = func(v any) (string, error) {
		if s, ok := v.(string); ok && word(s) {
			return s, nil
		}
		return read(v)
	}
	return k
}()

func oneOf(words ...string) kind[string] {
	return ofString(strings.Join(words, "|"), words[0], func(s string) (string, error) {
		if slices.Contains(words, s) {
			return s, nil
		}
		last := len(words) - 1
		err := fmt.Errorf("is %q; it must be %s or %s", s, strings.Join(words[:last], ", "), words[last])
		if near := nearest(s, words); near != "" {
			err = fmt.Errorf("%w; did you mean %q?", err, near)
		}
		return "", err
	}, strconv.Quote)
}

var duration = ofString("DURATION", "30s", func(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf(`is %q, which is no duration; write "500ms", "30s", "10m" or "24h"`, s)
	}
	if d <= 0 {
		return 0, fmt.Errorf("is %v; it must be more than 0", d)
	}
	return d, nil
}, func(d time.Duration) string { return strconv.Quote(d.String()) })

// fileMode is the permissions of a socket, in octal.
var fileMode = ofString("MODE", "0660", func(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 || n&0o600 != 0o600 {
		return 0, fmt.Errorf(`is %q; write octal digits such as "0660", and let the owner read and write`, s)
	}
	return fs.FileMode(n), nil
}, func(m fs.FileMode) string { return fmt.Sprintf("%q", fmt.Sprintf("%04o", uint32(m))) })

// group is a group by its name or number.
var group = ofString("GROUP", "procpool", func(s string) (Group, error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return Group{s, uint32(n)}, nil
	}
	g, err := user.LookupGroup(s)
	if err != nil {
		return Group{}, fmt.Errorf("is %q, and there is no such group; make it (groupadd --system %s) or name another one", s, s)
	}
	n, err := strconv.ParseUint(g.Gid, 10, 32)
	return Group{s, uint32(n)}, err
}, func(g Group) string { return strconv.Quote(g.Name) })

func ownGroup() Group {
	gid := os.Getgid()
	name := strconv.Itoa(gid)
	if g, err := user.LookupGroupId(name); err == nil {
		name = g.Name
	}
	return Group{name, uint32(gid)}
}

func count(least int64) kind[int] { return between(least, 1<<31-1) } // more than any limit that the daemon has

func between(least, most int64) kind[int] {
	within := func(n int64) (int, error) {
		if n < least || n > most {
			return 0, fmt.Errorf("is %d; it must be %d to %d. Leave it out for the default", n, least, most)
		}
		return int(n), nil
	}
	return kind[int]{
		placeholder: "N",
		read: func(v any) (int, error) {
			n, ok := v.(int64)
			if !ok {
				return 0, fmt.Errorf("is %s; it must be a number, without quotes", describe(v))
			}
			return within(n)
		},
		parse: func(s string) (int, error) {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("is %q; it must be a number", s)
			}
			return within(n)
		},
		show: strconv.Itoa,
	}
}

// units of sizes, smallest first.
var units = []struct {
	name  string
	bytes int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}

var size = ofString("SIZE", "512MiB", func(s string) (int64, error) {
	for _, u := range units {
		if digits, ok := strings.CutSuffix(s, u.name); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 32)
			if err == nil && n > 0 {
				return n * u.bytes, nil
			}
		}
	}
	return 0, fmt.Errorf(`is %q, which is no size; write "512MiB" or "2GiB"`, s)
}, func(n int64) string {
	for _, u := range slices.Backward(units) {
		if n%u.bytes == 0 {
			return fmt.Sprintf(`"%d%s"`, n/u.bytes, u.name)
		}
	}
	return strconv.FormatInt(n, 10)
})

var boolean = kind[bool]{
	placeholder: "BOOL",
	read: func(v any) (bool, error) {
		b, ok := v.(bool)
		if !ok {
			return false, fmt.Errorf("is %s; it must be true or false, without quotes", describe(v))
		}
		return b, nil
	},
	parse: strconv.ParseBool,
	show:  strconv.FormatBool,
}

var argv = kind[[]string]{
	placeholder: "ARGV",
	read: func(v any) ([]string, error) {
		const advice = `it must be a list of strings, the program and its arguments: ["/usr/bin/python3", "/srv/worker.py"]`
		list, ok := v.([]any)
		if !ok || len(list) == 0 {
			return nil, fmt.Errorf("is %s; %s", describe(v), advice)
		}
		var words []string
		for i, e := range list {
			s, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("has %s at place %d; %s", describe(e), i+1, advice)
			}
			words = append(words, s)
		}
		if !filepath.IsAbs(words[0]) {
			return nil, fmt.Errorf("begins with %q; it must begin with the absolute path of a program, such as %q", words[0], found(words[0]))
		}
		return words, nil
	},
	parse: func(string) ([]string, error) { return nil, errors.ErrUnsupported },
	show: func(words []string) string {
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, strconv.Quote(w))
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	},
}

// found is where a program of that name may be.
func found(name string) string {
	for _, dir := range []string{"/usr/local/bin", "/usr/bin", "/bin"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() {
			return filepath.Join(dir, name)
		}
	}
	return filepath.Join("/usr/local/bin", filepath.Base(name))
}

var environment = kind[map[string]string]{
	placeholder: "TABLE",
	read: func(v any) (map[string]string, error) {
		table, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf(`is %s; it must be a table: [env] and then NAME = "value"`, describe(v))
		}
		env := make(map[string]string)
		for name, v := range table {
			s, ok := v.(string)
			if !ok {
				return nil, fmt.Errorf("has %s for %s; it must be a string, in quotes", describe(v), name)
			}
			if strings.ContainsAny(name, "=\x00") || strings.ContainsRune(s, 0) {
				return nil, fmt.Errorf("has %q, which cannot be a variable", name)
			}
			env[name] = s
		}
		return env, nil
	},
	parse: func(string) (map[string]string, error) { return nil, errors.ErrUnsupported },
	show: func(env map[string]string) string { // not the values: they may be secrets, and this is shown around
		var names []string
		for _, name := range slices.Sorted(maps.Keys(env)) {
			names = append(names, name+` = "…"`)
		}
		return "{ " + strings.Join(names, ", ") + " }"
	},
}

// describe is a value for a person.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case []any:
		if len(v) == 0 {
			return "an empty list"
		}
		return "a list"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	default:
		return fmt.Sprint(v)
	}
}
