package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/procpool/procpool/server"
)

// files writes files into a directory of its own, and returns it.
func files(t *testing.T, contents map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range contents {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// truth is a program that is everywhere.
const truth = `command = ["/bin/sh"]` + "\n"

func load(t *testing.T, contents map[string]string) (*Config, string, error) {
	t.Helper()
	dir := files(t, contents)
	c, err := Load(Source{File: filepath.Join(dir, "procpoold.toml")})
	return c, dir, err
}

func TestFlagsWinOverEnvironmentOverFile(t *testing.T) {
	dir := files(t, map[string]string{"p.toml": "log_level = \"warn\"\nlog_format = \"json\"\ndrain_timeout = \"1s\"\n"})
	c, err := Load(Source{
		Flags: map[string]string{"log_level": "debug"},
		Env:   []string{"PROCPOOLD_LOG_LEVEL=error", "PROCPOOLD_LOG_FORMAT=text", "PROCPOOLD_CONFIG=" + filepath.Join(dir, "p.toml"), "PROCPOOLD_MODE=", "HOME=/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.LogLevel != "debug" || c.LogFormat != "text" || c.DrainTimeout != time.Second || c.System {
		t.Errorf("got %+v", c)
	}
	var out strings.Builder
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`(?m)^log_level = "debug" +# flag --log-level$`, `(?m)^log_format = "text" +# environment PROCPOOLD_LOG_FORMAT$`, `(?m)^drain_timeout = "1s" +# .*/p\.toml:3$`,
		`(?m)^mode = "user" +# default$`, `(?m)^conf_dir = ".*/conf\.d" +# default$`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("%s\nhas no line %s", out.String(), want)
		}
	}
}

func TestAnAddressMayBeAsGRPCHasIt(t *testing.T) {
	for _, addr := range []string{"unix:/run/x/api.sock", "unix:///run/x/api.sock", "/run/x/api.sock"} {
		c, err := Load(Source{Flags: map[string]string{"addr": addr, "conf_dir": t.TempDir()}})
		if err != nil || c.Addr != "/run/x/api.sock" {
			t.Errorf("--addr %s: %+v, %v", addr, c, err)
		}
		if c, _, err = load(t, map[string]string{"procpoold.toml": "addr = \"" + addr + "\"\n"}); err != nil || c.Addr != "/run/x/api.sock" {
			t.Errorf("addr = %s: %+v, %v", addr, c, err)
		}
		t.Setenv("PROCPOOL_ADDR", addr)
		if c, _, err = load(t, map[string]string{"procpoold.toml": ""}); err != nil || c.Addr != "/run/x/api.sock" {
			t.Errorf("$PROCPOOL_ADDR = %s: %+v, %v", addr, c, err)
		}
	}
}

func TestAPoolIsWhatItsFileSays(t *testing.T) {
	t.Setenv("PROCPOOLD_LOG_LEVEL", "info")
	t.Setenv("NOTIFY_SOCKET", "/run/x")
	t.Setenv("REPLACED", "no")
	c, dir, err := load(t, map[string]string{"procpoold.toml": "", "conf.d/count.toml": `
command = ["/bin/sh", "-c", "exec worker"]
dir = "/"
workers = 3
peer = "group"
dedicated = true
env = { SECRET = "token", REPLACED = "yes" }
[task]
timeout = "90s"
max_attempts = 2
cancel_grace = "1s"
kill_delay = "500ms"
[worker]
start_timeout = "3s"
ready_timeout = "4s"
max_tasks = 100
max_age = "2h"
max_idle = "3m"
min_workers = 1
spares = 1
drain_memory = "1536MiB"
max_memory = "2GiB"
max_processes = 50
[limits]
calls = 9
calls_per_user = 3
`, "conf.d/count.toml~": "an editor's", "conf.d/.#x.toml": "another's"})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Pools) != 1 {
		t.Fatalf("got %d pools", len(c.Pools))
	}
	p := c.Pools[0].Config()
	env := strings.Join(p.Spec.Program.Env, "\n")
	p.Spec.Program.Env = nil
	got := fmt.Sprint(p.Spec.Name, " ", p.Spec.Program.Path, p.Spec.Program.Args, p.Spec.Program.Dir, " ", p.Spec.Workers, p.Spec.Peer, p.Dedicated, p.TaskTimeout, p.MaxAttempts, " ",
		p.Spec.CancelGrace.AsDuration(), p.Spec.KillDelay.AsDuration(), p.Spec.StartTimeout.AsDuration(), p.Spec.ReadyTimeout.AsDuration(), " ",
		p.Spec.MaxTasksPerWorker, p.Spec.MaxWorkerAge.AsDuration(), p.Spec.MaxWorkerIdle.AsDuration(), " ", p.Spec.MinWorkers, p.Spec.Spares, p.Spec.DrainMemory,
		p.Spec.MaxMemory, p.Spec.MaxProcesses, p.Calls, p.CallsPerUser)
	if want := "count /bin/sh[-c exec worker]/ 3 PEER_MATCH_GROUP true 1m30s 2 1s 500ms 3s 4s 100 2h0m0s 3m0s 1 1 1610612736 2147483648 50 9 3"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, want := range []string{"SECRET=token", "REPLACED=yes", "PATH="} {
		if !strings.Contains(env, want) {
			t.Errorf("the environment lacks %s", want)
		}
	}
	for _, unwanted := range []string{"PROCPOOLD_", "NOTIFY_SOCKET", "REPLACED=no"} {
		if strings.Contains(env, unwanted) {
			t.Errorf("the environment has %s, which is for the daemon", unwanted)
		}
	}
	var out strings.Builder
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "token") || !strings.Contains(out.String(), `SECRET = "…"`) {
		t.Errorf("a variable is printed with its value, or not at all:\n%s", out.String())
	}
	if want := filepath.Join(dir, "conf.d/count.toml:20"); !strings.Contains(out.String(), `drain_memory = "1536MiB"`) || !strings.Contains(out.String(), want) {
		t.Errorf("%s\nlacks drain_memory or %s", out.String(), want)
	}
}

func TestTheCommandOfALineWorkerIsRunByThisProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for keys, want := range map[string]string{
		"lines = true":                   "[line-worker strings newline /bin/sh -c cat]",
		"json_lines = true\nnull = true": "[line-worker values nul /bin/sh -c cat]",
	} {
		c, _, err := load(t, map[string]string{"procpoold.toml": "", "conf.d/a.toml": "command = [\"/bin/sh\", \"-c\", \"cat\"]\ndir = \"/\"\n" + keys + "\n"})
		if err != nil {
			t.Fatal(err)
		}
		if p := c.Pools[0].Config().Spec.Program; p.Path != self || fmt.Sprint(p.Args) != want || p.Dir != "/" || len(p.Env) == 0 {
			t.Errorf("%s: got %s %v in %q, want %s %s in /", keys, p.Path, p.Args, p.Dir, self, want)
		}
	}
}

func TestLimitsAndCgroupOfTheDaemon(t *testing.T) {
	c, _, err := load(t, map[string]string{"procpoold.toml": "limit_calls = 5\nlimit_streams = 6\nlimit_items = 7\nlimit_bytes = \"8MiB\"\ncgroup = \"off\"\n"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%+v %s", c.Limits(), c.Cgroup); got != "{Calls:5 Streams:6 Items:7 Bytes:8388608} off" {
		t.Errorf("got %s", got)
	}
	if c, _, err = load(t, map[string]string{"procpoold.toml": ""}); err != nil || c.Cgroup != "auto" || c.Limits() != server.DefaultLimits {
		t.Errorf("without a word: got %+v, %v", c, err)
	}
	var out strings.Builder
	if err := errors.Join(c.Print(&out), os.Mkdir(c.ConfDir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := load(t, map[string]string{"procpoold.toml": out.String()}); err != nil || !strings.Contains(out.String(), "\nlimit_bytes = \"256MiB\"") {
		t.Errorf("it prints\n%s\nwhich as a file is %v", out.String(), err)
	}
}

func TestProblemsHavePlaceAndAdvice(t *testing.T) {
	for _, test := range []struct{ daemon, pool, want string }{
		{"drain_timout = \"3s\"", truth, "procpoold.toml:1:1: there is no key drain_timout; did you mean drain_timeout?"},
		{"\n  log_level = \"inof\"", truth, `procpoold.toml:2:3: log_level is "inof"; it must be trace, debug, info, warn or error; did you mean "info"?`},
		{"drain_timeout = 30", truth, `procpoold.toml:1:1: drain_timeout is 30; it must be a string, in quotes, such as "30s"`},
		{"drain_timeout = \"30\"", truth, `drain_timeout is "30", which is no duration; write "500ms"`},
		{"drain_timeout = \"-1s\"", truth, `drain_timeout is -1s; it must be more than 0`},
		{"socket_mode = \"0999\"", truth, `socket_mode is "0999"; write octal digits such as "0660"`},
		{"admin_group = \"no-such-group\"\nmode=\"user\"", truth, `procpoold.toml:1:1: admin_group is "no-such-group", and there is no such group; make it (groupadd --system no-such-group)`},
		{"socket_group = \"0\"", truth, "socket_group is for system mode, and this is user mode; say mode = \"system\", or leave it out"},
		{"addr = \"api.sock\"", truth, `addr is "api.sock"; it must be an absolute path, such as "/run/procpool/api.sock"`},
		{"[pools]\nx = 1", truth, "procpoold.toml:1:2: there is no table [pools]; there is mode, addr"},
		{"mode = \"system", truth, "procpoold.toml:1:"},
		{"log_level = \"info\"\nlog_level = \"info\"", truth, "procpoold.toml:2:"},
		{"metrics = \"0.0.0.0:9464\"", truth, `procpoold.toml:1:1: metrics address "0.0.0.0:9464" is open to the whole network`},
		{"metrics = \"9464\"", truth, `metrics address "9464" is neither unix:PATH nor 127.0.0.1:PORT`},
		{"conf_dir = \"/nonexistent/conf.d\"", truth, "/nonexistent/conf.d: conf_dir: open /nonexistent/conf.d: no such file"},
		{"", "", "p.toml: there is no command; say which program the workers are"},
		{"", `command = "/bin/sh -c x"`, "p.toml:1:1: command is \"/bin/sh -c x\"; it must be a list of strings"},
		{"", `command = ["sh"]`, `p.toml:1:1: command begins with "sh"; it must begin with the absolute path of a program, such as "`},
		{"", `command = ["/bin/sh", 3]`, "command has 3 at place 2"},
		{"", `command = ["/nonexistent/worker"]`, "p.toml:1:1: the program /nonexistent/worker does not exist"},
		{"", truth + "worker = 4", "p.toml:2:1: worker is a table, not a value; write [worker] on a line of its own, and its keys below"},
		{"", truth + "wrokers = 4", "p.toml:2:1: there is no key wrokers; did you mean workers?"},
		{"", truth + "workers = \"4\"", `p.toml:2:1: workers is "4"; it must be a number, without quotes`},
		{"", truth + "workers = 0", "p.toml:2:1: workers is 0; it must be 1 to 2147483647. Leave it out for the default"},
		{"", truth + "workers = 5000", "p.toml:2:1: workers is 5000; at most 4096 are allowed"},
		{"", truth + "max_tasks = 4", "p.toml:2:1: there is no key max_tasks; max_tasks belongs into [worker]"},
		{"", truth + "[worker]\ntimeout = \"3s\"", "p.toml:3:1: there is no key timeout in [worker]; timeout belongs into [task]"},
		{"", truth + "[worker]\ncommand = \"3s\"", "p.toml:3:1: there is no key command in [worker]; command belongs into the top of the file, before the first [table]"},
		{"", truth + "[worker]\nmax_age = \"10ms\"", "p.toml:3:1: [worker] max_age is 10ms; it must be at least 1s"},
		{"", truth + "[worker]\nmin_workers = 9\nmax_idle = \"1m\"", "p.toml:3:1: [worker] min_workers is 9, but the pool has only"},
		{"", truth + "[worker]\ndrain_memory = \"3MB\"", `drain_memory is "3MB", which is no size; write "512MiB" or "2GiB"`},
		{"", truth + "lines = true\n[worker]\ndrain_memory = \"1GiB\"", "p.toml:4:1: drain_memory looks at the worker's own process"},
		{"", truth + "null = true", "p.toml:2:1: null is for lines and json_lines"},
		{"", truth + "lines = true\njson_lines = true", "p.toml:3:1: lines and json_lines exclude each other"},
		{"", "lines = true\n" + `command = ["/nonexistent/worker"]`, "p.toml:2:1: the program /nonexistent/worker does not exist"},
		{"", truth + "[task]\nmax_attempts = 1001", "p.toml:3:1: max_attempts is 1001; it must be 1 to 1000"},
		{"", truth + "dedicated = \"yes\"", `dedicated is "yes"; it must be true or false, without quotes`},
		{"", truth + "[env]\nA = 1", "env has 1 for A; it must be a string, in quotes"},
		{"", truth + "[task]\n[worker\n", "p.toml:3:"},
	} {
		_, dir, err := load(t, map[string]string{"procpoold.toml": test.daemon, "conf.d/p.toml": test.pool})
		if err == nil {
			t.Errorf("%q and %q: nothing is wrong; want %s", test.daemon, test.pool, test.want)
			continue
		}
		got := strings.ReplaceAll(strings.ReplaceAll(err.Error(), dir+"/conf.d/", ""), dir+"/", "")
		if !strings.HasPrefix(got, test.want) && !strings.Contains(got, ": "+test.want) {
			t.Errorf("%q and %q:\ngot  %s\nwant %s", test.daemon, test.pool, got, test.want)
		}
	}
}

func TestProblemsOfFlagsAndEnvironment(t *testing.T) {
	_, err := Load(Source{
		Flags: map[string]string{"log_level": "loud"}, Env: []string{"PROCPOOLD_LOGLEVEL=info", "PROCPOOLD_DRAIN_TIMEOUT=soon"}, File: "/nonexistent/p.toml",
	})
	got := fmt.Sprint(err)
	for _, want := range []string{
		`--log-level: log_level is "loud"; it must be`, "$PROCPOOLD_LOGLEVEL: there is no such setting; did you mean PROCPOOLD_LOG_LEVEL?",
		`$PROCPOOLD_DRAIN_TIMEOUT: drain_timeout is "soon"`, "/nonexistent/p.toml: no such file or directory",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s\nwithout %s", got, want)
		}
	}
}

func TestTheNameOfAPoolIsChecked(t *testing.T) {
	if _, _, err := load(t, map[string]string{"procpoold.toml": "", "conf.d/a b.toml": truth}); err == nil || !strings.Contains(err.Error(), "a name has 1 to 63 of") {
		t.Errorf("got %v", err)
	}
}

func TestAFileThatOthersMayWriteIsRefused(t *testing.T) {
	dir := files(t, map[string]string{"procpoold.toml": "", "conf.d/p.toml": truth})
	if err := os.Chmod(filepath.Join(dir, "conf.d/p.toml"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Source{File: filepath.Join(dir, "procpoold.toml")}); err == nil || !strings.Contains(err.Error(), "others than its owner may write it") {
		t.Errorf("got %v", err)
	}
}

// The shipped examples are for people who copy a line and remove its #. So every such line must hold, and they must have every key.
var commentedOut = regexp.MustCompile(`(?m)^# ([a-z_]+ = |\[env\]|[A-Z]+ = )`)

func example(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../../../deploy", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTheShippedExamplesHoldAndAreComplete(t *testing.T) {
	daemon, pool := example(t, "procpoold.toml"), example(t, "conf.d/example.toml")
	if c, _, err := load(t, map[string]string{"procpoold.toml": daemon}); err != nil || len(c.origin) != 0 {
		t.Errorf("as it is shipped it changes %v: %v", c, err)
	}

	all := commentedOut.ReplaceAllString(daemon, "$1")
	all = strings.NewReplacer(`"procpool"`, `"0"`, `"procpool-admin"`, `"0"`).Replace(all) // groups that are everywhere
	d, bad := parse("procpoold.toml", all)
	c := &Config{origin: make(map[string]string)}
	if problems := fill(c, daemonKeys, d, func(k, at string) bool { c.origin[k] = at; return true }); bad != (Problem{}) || len(problems) > 0 {
		t.Errorf("deploy/procpoold.toml: %v %v", bad, problems)
	}
	for _, k := range daemonKeys {
		if c.origin[k.name] == "" {
			t.Errorf("deploy/procpoold.toml lacks %s", k.name)
		}
	}

	d, bad = parse("example.toml", commentedOut.ReplaceAllString(pool, "$1"))
	p := &Pool{origin: make(map[string]string)}
	if problems := fill(p, poolKeys, d, func(k, at string) bool { p.origin[k] = at; return true }); bad != (Problem{}) || len(problems) > 0 {
		t.Errorf("deploy/conf.d/example.toml: %v %v", bad, problems)
	}
	for _, k := range poolKeys {
		if p.origin[k.name] == "" {
			t.Errorf("deploy/conf.d/example.toml lacks %s", k.name)
		}
	}
}

func TestTheDocumentationHasEveryKeyAndNoOther(t *testing.T) {
	b, err := os.ReadFile("../../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]bool)
	for _, k := range daemonKeys {
		want[k.name] = true
	}
	for _, k := range poolKeys {
		want["pool "+k.name] = true
	}
	section, got := "elsewhere ", make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "## ") {
			section = "elsewhere "
			if strings.Contains(line, "NAME.toml") {
				section = "pool "
			} else if strings.Contains(line, "procpoold.toml") {
				section = ""
			}
		}
		if key, _, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` |"); ok && strings.HasPrefix(line, "| `") && section != "elsewhere " {
			got[section+key] = true
		}
	}
	for k := range want {
		if !got[k] {
			t.Errorf("docs/configuration.md lacks a row for %s", k)
		}
	}
	for k := range got {
		if !want[k] {
			t.Errorf("docs/configuration.md has a row for %s, which is no key", k)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("mode = \"user\"\n[x]\ny = [1, {a=2}]")
	f.Add("command = [\"/bin/sh\"]\n\"a.b\" = 1\n[worker]\nmax_tasks = 3\n[[task]]\n")
	f.Fuzz(func(_ *testing.T, text string) {
		if d, bad := parse("f", text); bad == (Problem{}) {
			_ = fill(new(Config), daemonKeys, d, func(string, string) bool { return true })
			_ = fill(new(Pool), poolKeys, d, func(string, string) bool { return true })
		}
	})
}
