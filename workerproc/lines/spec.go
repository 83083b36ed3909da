package lines

import (
	"errors"
	"fmt"
	"os"

	"github.com/procpool/procpool/proto/payload"
	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/workerproc"
)

// Function is the name of the one function that a line worker offers.
const Function = "line"

// Form is what the function takes and gives.
type Form string

const (
	// Strings is text: items and results are JSON strings, whose text is the line. Another JSON value as an item is passed as JSON. Go programs call
	// client.Func[string, string]("line").
	Strings Form = "strings"
	// Values is a JSON value per line, in both directions. Go programs call client.Func[A, R]("line").
	Values Form = "values"
	// Bytes is lines as they are. Go programs call client.Func[[]byte, []byte]("line").
	Bytes Form = "bytes"
)

// Spec says how a line program is run.
type Spec struct {
	// Command is its argv. The worker looks for the program in its $PATH.
	Command []string
	// Form is what the function takes and gives. Default Strings.
	Form Form
	// Null: items and answers end with NUL, and may have newlines in them. Default: they end with a newline.
	Null bool
}

// word is the first argument of the adapter.
const word = "line-worker"

// framings are the names of what ends a line.
var framings = map[bool]string{false: "newline", true: "nul"}

// Args are the arguments of a program that calls Main, to be the adapter of this line program: client.Program(self, spec.Args()...).
func (s Spec) Args() []string {
	form := s.Form
	if form == "" {
		form = Strings
	}
	return append([]string{word, string(form), framings[s.Null]}, s.Command...)
}

// Program is a pool's program that runs this line program. Adapter is the path of an executable that calls Main: procpool, procpoold, or one of
// yours. Directory, environment and umask are left to be filled in.
func (s Spec) Program(adapter string) *pb.Program {
	return &pb.Program{Path: adapter, Args: s.Args()}
}

// parse reads what Args has made.
func parse(args []string) (s Spec, err error) {
	if len(args) < 3 {
		return s, errors.New("it takes a form, a framing and a command")
	}
	s = Spec{Form: Form(args[0]), Null: args[1] == framings[true], Command: args[2:]}
	if args[1] != framings[s.Null] {
		return s, fmt.Errorf("there is no framing %q", args[1])
	}
	if s.Form != Strings && s.Form != Values && s.Form != Bytes {
		return s, fmt.Errorf("there is no form %q", args[0])
	}
	return s, nil
}

// Main makes this process the adapter of a line program, if it was started as one: then it never returns. In any other process it returns at once.
// Call it first in main, before workerproc.Main, in a program that is to run line workers.
func Main() {
	if len(os.Args) < 2 || os.Args[1] != word {
		return
	}
	spec, err := parse(os.Args[2:])
	if err == nil {
		encoding := payload.NameJSON
		if spec.Form == Bytes {
			encoding = payload.NameBytes
		}
		workerproc.MainPipe(Function, encoding, newProgram(spec))
		err = errors.New("this is for workers, which a pool starts: procpool map --lines, procpool create --lines")
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", word, err)
	os.Exit(workerproc.ExitConfig)
}
