package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/server"
)

// Config is the configuration, checked.
type Config struct {
	System       bool
	Addr         string
	SocketMode   fs.FileMode
	SocketGroup  Group
	AdminGroup   Group // zero: root alone
	DrainTimeout time.Duration
	LogLevel     string
	LogFormat    string
	Cgroup       string
	Metrics      string // empty: nowhere
	ConfDir      string
	Pools        []Pool // by name

	limitCalls   int
	limitStreams int
	limitItems   int
	limitBytes   int64

	mode   string
	origin map[string]string // where each key's value comes from
}

// Group is a group of users; the zero value is none.
type Group struct {
	Name string // as it was given
	GID  uint32
}

// Limits are those of one user.
func (c *Config) Limits() server.Limits {
	return server.Limits{Calls: c.limitCalls, Streams: c.limitStreams, Items: c.limitItems, Bytes: int(c.limitBytes)}
}

// Source is where the configuration of a process comes from.
type Source struct {
	// Flags are the keys that were given on the command line.
	Flags map[string]string
	// Env is the environment, "NAME=value" each.
	Env []string
	// File is the file that the command line names. Empty: $PROCPOOLD_CONFIG, else the default one, if it exists.
	File string
}

// envPrefix and a key in capitals are the variable for it.
const envPrefix = "PROCPOOLD_"

// Env is the environment variable for a key.
func Env(key string) string { return envPrefix + strings.ToUpper(key) }

// Flag is the flag for a key.
func Flag(key string) string { return "--" + strings.ReplaceAll(key, "_", "-") }

// Load reads the configuration. Its error is Problems, all of them.
func Load(src Source) (*Config, error) {
	c := &Config{origin: make(map[string]string)}
	var problems Problems
	env := variables(src.Env)
	given := make(map[string]bool) // by something stronger than the file
	for _, k := range daemonKeys {
		if text, ok := src.Flags[k.name]; ok {
			given[k.name] = true
			problems.add(c.take(k, text, Flag(k.name), "flag "+Flag(k.name)))
		} else if text := env[Env(k.name)]; text != "" {
			given[k.name] = true
			problems.add(c.take(k, text, "$"+Env(k.name), "environment "+Env(k.name)))
		}
	}
	problems = append(problems, strangers(env)...)
	path, named := c.file(src.File, env)
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	text, err := read(path, c.mode == modeSystem)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
	case err != nil:
		problems.add(Problem{File: path, What: err.Error()})
	default:
		d, bad := parse(path, text)
		problems.add(bad)
		problems = append(problems, fill(c, daemonKeys, d, func(k, at string) bool {
			if given[k] {
				return false
			}
			c.origin[k] = at
			return true
		})...)
		if c.System = c.mode == modeSystem; c.System && bad == (Problem{}) {
			if err := rootsOwn(path); err != nil { // it is the file that chooses system mode
				problems.add(Problem{File: path, What: err.Error()})
			}
		}
	}
	c.System = c.mode == modeSystem
	problems = append(problems, c.complete(path)...)
	_, named = c.origin["conf_dir"]
	problems = append(problems, c.readPools(named)...)
	if len(problems) > 0 {
		slices.SortStableFunc(problems, func(a, b Problem) int {
			return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
		})
		return nil, problems
	}
	return c, nil
}

// variables are the variables that are for us.
func variables(environ []string) map[string]string {
	env := make(map[string]string)
	for _, e := range environ {
		if name, value, _ := strings.Cut(e, "="); strings.HasPrefix(name, envPrefix) {
			env[name] = value
		}
	}
	return env
}

// strangers complains about variables that look like ours and are not.
func strangers(env map[string]string) (problems Problems) {
	known := []string{envPrefix + "CONFIG"}
	for _, k := range daemonKeys {
		known = append(known, Env(k.name))
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if slices.Contains(known, name) {
			continue
		}
		p := Problem{File: "$" + name, What: "there is no such setting", Advice: "there is " + strings.Join(known, ", ")}
		if near := nearest(strings.TrimPrefix(name, envPrefix), trimmed(known)); near != "" {
			p.Advice = "did you mean " + envPrefix + near + "?"
		}
		problems.add(p)
	}
	return problems
}

func trimmed(names []string) (short []string) {
	for _, n := range names {
		short = append(short, strings.TrimPrefix(n, envPrefix))
	}
	return short
}

// take sets a key to a text from the command line or the environment.
func (c *Config) take(k key[Config], text, where, origin string) Problem {
	if err := k.text(c, text); err != nil {
		return Problem{File: where, What: err.Error()}
	}
	c.origin[k.name] = origin
	return Problem{}
}

// file is the configuration file, and whether somebody has named it.
func (c *Config) file(flag string, env map[string]string) (path string, named bool) {
	if path := cmp.Or(flag, env[envPrefix+"CONFIG"]); path != "" {
		return path, true
	}
	dir := systemDir
	if c.mode != modeSystem {
		base, err := os.UserConfigDir()
		if err != nil {
			base = "/nonexistent" // a user without a home has no file
		}
		dir = filepath.Join(base, "procpool")
	}
	return filepath.Join(dir, "procpoold.toml"), false
}

const (
	systemDir  = "/etc/procpool"
	systemAddr = "/run/procpool/api.sock"
	modeUser   = "user"
	modeSystem = "system"
)

// complete fills in what nobody has said, and looks at what belongs together. file is where a configuration file is, or would be.
func (c *Config) complete(file string) (problems Problems) {
	c.mode = cmp.Or(c.mode, modeUser)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 60*time.Second)
	c.LogLevel = cmp.Or(c.LogLevel, "info")
	c.LogFormat = cmp.Or(c.LogFormat, "text")
	c.Cgroup = cmp.Or(c.Cgroup, "auto")
	c.limitCalls = cmp.Or(c.limitCalls, server.DefaultLimits.Calls)
	c.limitStreams = cmp.Or(c.limitStreams, server.DefaultLimits.Streams)
	c.limitItems = cmp.Or(c.limitItems, server.DefaultLimits.Items)
	c.limitBytes = cmp.Or(c.limitBytes, int64(server.DefaultLimits.Bytes))
	c.ConfDir = cmp.Or(c.ConfDir, filepath.Join(filepath.Dir(file), "conf.d"))
	if c.System {
		c.Addr = cmp.Or(c.Addr, systemAddr)
		c.SocketMode = cmp.Or(c.SocketMode, 0o660)
		if c.SocketGroup.Name == "" {
			c.SocketGroup = ownGroup()
		}
	} else {
		if c.Addr == "" {
			c.Addr = client.Addresses()[0]
			if abs, err := filepath.Abs(c.Addr); err == nil { // $PROCPOOL_ADDR may be any path
				c.Addr = abs
			}
		}
		c.SocketMode = cmp.Or(c.SocketMode, 0o600)
		for _, k := range []string{"socket_group", "admin_group"} {
			if at, ok := c.origin[k]; ok {
				problems.add(Problem{File: at, What: k + " is for system mode, and this is user mode", Advice: `say mode = "system", or leave it out`})
			}
		}
	}
	return problems
}

// readPools reads the pools in conf_dir. A directory that somebody has named must exist.
func (c *Config) readPools(named bool) (problems Problems) {
	entries, err := os.ReadDir(c.ConfDir)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil
	}
	if err != nil {
		return Problems{{File: c.ConfDir, What: "conf_dir: " + err.Error()}}
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".toml") || strings.HasPrefix(e.Name(), ".") {
			continue // an editor's copy, or a package manager's
		}
		p, bad := c.readPool(filepath.Join(c.ConfDir, e.Name()))
		problems = append(problems, bad...)
		if len(bad) == 0 {
			c.Pools = append(c.Pools, *p)
		}
	}
	return problems
}

func (c *Config) readPool(path string) (*Pool, Problems) {
	text, err := read(path, c.System)
	if err != nil {
		return nil, Problems{{File: path, What: err.Error()}}
	}
	d, bad := parse(path, text)
	if bad != (Problem{}) {
		return nil, Problems{bad}
	}
	p := &Pool{Name: strings.TrimSuffix(filepath.Base(path), ".toml"), File: path, origin: make(map[string]string)}
	problems := fill(p, poolKeys, d, func(k, at string) bool {
		p.origin[k] = at
		return true
	})
	if len(problems) > 0 {
		return nil, problems
	}
	if len(p.command) == 0 {
		return nil, Problems{{File: path, What: "there is no command", Advice: `say which program the workers are: command = ["/usr/local/bin/worker"]`}}
	}
	if c.System {
		if err := trusted(p.command[0], uint32(os.Getuid())); err != nil {
			return nil, Problems{d.problem(err.Error(), "whoever can change the program could run anything as the daemon's user", "command")}
		}
	}
	isLines := p.lines || p.jsonLines
	switch {
	case p.lines && p.jsonLines:
		return nil, Problems{d.problem("lines and json_lines exclude each other", "", "json_lines")}
	case p.drainMemory > 0 && isLines:
		return nil, Problems{d.problem("drain_memory looks at the worker's own process, which a line program is a child of", "say max_tasks, or max_memory", "worker", "drain_memory")}
	case p.null && !isLines:
		return nil, Problems{d.problem("null is for lines and json_lines", "", "null")}
	}
	pool := p.Config()
	err = server.CheckPool(pool)
	if err == nil && isLines { // what the adapter will run
		pool.Spec.Program.Path, pool.Spec.Program.Args = p.command[0], p.command[1:]
		err = server.CheckPool(pool)
	}
	if err != nil {
		return nil, Problems{p.explain(err, d)}
	}
	return p, nil
}

// Keys lists the daemon's keys, with one line on each.
func Keys() (list []KeyInfo) {
	for _, k := range daemonKeys {
		list = append(list, KeyInfo{k.name, k.help, k.def, k.placeholder})
	}
	return list
}

// KeyInfo describes a key for --help.
type KeyInfo struct{ Name, Help, Default, Placeholder string }

// Unchangeable names the keys of the daemon in which two configurations differ, and which a daemon that runs cannot change.
func (c *Config) Unchangeable(next *Config) (names []string) {
	for _, k := range daemonKeys {
		if k.name != "log_level" && k.show(c) != k.show(next) {
			names = append(names, k.name)
		}
	}
	return names
}

// Explain puts the keys of the files in the place of the protocol's names.
func Explain(err error) string { return inKeys(fmt.Sprint(err)) }

// String is the configuration in a few words.
func (c *Config) String() string {
	var names []string
	for i := range c.Pools {
		names = append(names, c.Pools[i].Name)
	}
	return fmt.Sprintf("%s mode, at %s, pools: %s", c.mode, c.Addr, cmp.Or(strings.Join(names, " "), "none"))
}
