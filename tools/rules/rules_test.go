package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/procpool/procpool"

// rooms are the parts of the repository whose imports point one way. A package belongs to the longest name that is a prefix of its path.
// What is not listed here (cmd, examples, tools) may import what it likes.
var rooms = []struct {
	name string
	// May import these rooms, and itself.
	rooms []string
	// May link these modules, beside what grpcModules has. Nil: not checked.
	modules []string
}{
	{name: "proto", modules: []string{}},
	{name: "server/internal/sched", modules: []string{}},
	{name: "server", rooms: []string{"server/internal/sched", "workerproc", "proto"}},
	{name: "server/metrics", rooms: []string{"server", "proto"}}, // and server does not import it: see docs/dependencies.md
	{name: "workerproc", rooms: []string{"proto"}, modules: []string{}},
	{name: "client", rooms: []string{"proto"}, modules: []string{}},
	{name: "client/local", rooms: []string{"client", "server", "workerproc"}, modules: daemonModules},
}

// grpcModules are gRPC and protobuf and what they bring.
var grpcModules = []string{
	"google.golang.org/grpc",
	"google.golang.org/protobuf",
	"google.golang.org/genproto/googleapis/rpc",
	"golang.org/x/net",
	"golang.org/x/sys",
	"golang.org/x/text",
}

// daemonModules are what the daemon needs beside that: hclog, with the three modules it brings, and run.
var daemonModules = []string{
	"github.com/hashicorp/go-hclog",
	"github.com/fatih/color",
	"github.com/mattn/go-colorable",
	"github.com/mattn/go-isatty",
	"github.com/oklog/run",
}

// restarted are the packages whose programs are executed again for each worker: what they link is initialised each time.
var restarted = []string{"workerproc", "workerproc/lines", "client", "client/local", "cmd/procpool"}

// slow are packages that take long to initialise. What else costs time: GODEBUG=inittrace=1 procpool version.
var slow = []string{
	"google.golang.org/protobuf/reflect/protodesc", // 0.5 ms. Reflection and channelz of gRPC need it: only procpoold has them
	"google.golang.org/grpc/channelz/grpc_channelz_v1",
	"google.golang.org/grpc/reflection/grpc_reflection_v1",
	"github.com/spf13/cobra/doc", // 0.8 ms, for a Markdown parser
}

// pure is all that the decision core may import: nothing that has a clock that runs, a goroutine, a process, a socket or a log.
var pure = []string{
	"cmp", "container/heap", "errors", "fmt", "iter", "maps", "math", "math/bits", "slices", "sort", "strconv", "strings",
	"time", // for its types: see clocks
}

// clocks are what the decision core may not use of package time: there, time is an argument.
var clocks = []string{"After", "AfterFunc", "NewTicker", "NewTimer", "Now", "Since", "Sleep", "Tick", "Until"}

type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
	Module     *struct{ Path string }
}

// room is the index in rooms of an import path, or -1.
func room(path string) int {
	best := -1
	for i, r := range rooms {
		name := module + "/" + r.name
		if (path == name || strings.HasPrefix(path, name+"/")) && (best < 0 || len(r.name) > len(rooms[best].name)) {
			best = i
		}
	}
	return best
}

// list is the packages of this module and everything they link, without tests, by import path.
var list = sync.OnceValues(func() (map[string]pkg, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,GoFiles,Imports,Deps,Module", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, &stderr)
	}
	all := map[string]pkg{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the output of go list: %w", err)
		}
		all[p.ImportPath] = p
	}
})

func load(t *testing.T) map[string]pkg {
	t.Helper()
	all, err := list()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func ours(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

func TestImportsPointOneWay(t *testing.T) {
	t.Parallel()
	for path, p := range load(t) {
		from := room(path)
		if !ours(path) || from < 0 {
			continue
		}
		for _, imported := range p.Imports {
			to := room(imported)
			switch {
			case !ours(imported) || to == from:
			case to < 0:
				t.Errorf("%s imports %s, which only programs may do", path, imported)
			case !slices.Contains(rooms[from].rooms, rooms[to].name):
				t.Errorf("%s imports %s; it may import %v", path, imported, rooms[from].rooms)
			}
		}
	}
}

func TestUsersLinkLittle(t *testing.T) {
	t.Parallel()
	all := load(t)
	for path, p := range all {
		from := room(path)
		if !ours(path) || from < 0 || rooms[from].modules == nil {
			continue
		}
		for _, dep := range p.Deps {
			d := all[dep]
			if d.Module == nil || d.Module.Path == module {
				continue
			}
			if !slices.Contains(grpcModules, d.Module.Path) && !slices.Contains(rooms[from].modules, d.Module.Path) {
				t.Errorf("%s links %s of module %s, which its users then link too", path, dep, d.Module.Path)
			}
		}
	}
}

func TestStartsAreCheap(t *testing.T) {
	t.Parallel()
	all := load(t)
	for _, name := range restarted {
		p, ok := all[module+"/"+name]
		if !ok {
			t.Errorf("%s does not exist", name)
		}
		for _, dep := range p.Deps {
			if slices.Contains(slow, dep) {
				t.Errorf("%s links %s, which every start of a worker then pays for", name, dep)
			}
		}
	}
}

func TestProductionCodeHasNoTestMode(t *testing.T) {
	t.Parallel()
	for path, p := range load(t) {
		if ours(path) && slices.ContainsFunc(p.Imports, func(i string) bool { return i == "testing" || strings.HasPrefix(i, "testing/") }) {
			t.Errorf("%s imports a package for tests", path)
		}
	}
}

func TestDecisionCoreIsPure(t *testing.T) {
	t.Parallel()
	core := module + "/server/internal/sched"
	p, ok := load(t)[core]
	if !ok {
		t.Fatalf("%s does not exist", core)
	}
	for _, imported := range p.Imports {
		if !slices.Contains(pure, imported) {
			t.Errorf("%s imports %s; it may import %v", core, imported, pure)
		}
	}
	fset := token.NewFileSet()
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a goroutine in the decision core", fset.Position(n.Pos()))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clocks, n.Sel.Name) {
					t.Errorf("%s: time.%s in the decision core; time is an argument there", fset.Position(n.Pos()), n.Sel.Name)
				}
			}
			return true
		})
	}
}
