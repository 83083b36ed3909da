package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/procpool/procpool/workerproc"
	"google.golang.org/grpc"
)

// Config is what a daemon needs to know. Only Dir must be given.
type Config struct {
	// Dir is the daemon's runtime directory. It is made with mode 0700 if it does not exist. The private worker socket lives in it,
	// and the client socket unless Addr says otherwise.
	Dir string

	// Addr is the path of the client socket. Defaults to Dir/api.sock. A path has at most 107 bytes.
	Addr string

	// Listener is a client socket that somebody else has bound, systemd for example. It is not removed at the end.
	// Defaults to none: the daemon binds Addr.
	Listener net.Listener

	// SocketMode is the mode of the client socket. Defaults to 0600, with System to 0660.
	SocketMode os.FileMode

	// System says that the daemon serves other users than its own, and which ones. Its pools are those of Configure only.
	// Defaults to none: it serves its own user and root, who may do everything.
	System *System

	// Embedded says that the daemon lives inside its only client's program.
	Embedded bool

	// InProcess serves workers by goroutines of this process, for debuggers and unit tests: no isolation at all.
	InProcess bool

	// Cgroup says where the workers' cgroups are: "auto", below that of this process if it has been delegated to it; "off", nowhere; or below the one whose
	// directory this is, which is made if it is not there. Defaults to "auto".
	Cgroup string

	// DrainTimeout is how long accepted calls may go on when the daemon is told to stop. Defaults to 60 s.
	DrainTimeout time.Duration

	// WindowItems and WindowBytes bound what the daemon holds of one call: items accepted, and bytes of items or results, whose
	// outcome the client has not read. Default to 16,384 and 16 MiB.
	WindowItems int
	WindowBytes int

	// PerUser and Total bound what one user, and all users together, have in the daemon. PerUser defaults to DefaultLimits, and
	// Total to four times that. An embedded daemon has one user and no such limits.
	PerUser Limits
	Total   Limits

	// Services registers more services on the client socket, beside our own and health: procpoold has reflection and channelz there. In system mode
	// what the table of package server does not name is for administrators. Defaults to none.
	//
	// It is a function so that a program with an embedded daemon does not link those two: their descriptors are a millisecond of the start of each of
	// its workers.
	Services func(*grpc.Server)

	// Logger gets the daemon's log. Defaults to none.
	Logger hclog.Logger
}

// withDefaults fills what is zero and reports everything that is wrong.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("the runtime directory is not set"))
	} else if !filepath.IsAbs(c.Dir) {
		errs = append(errs, fmt.Errorf("the runtime directory %q is not an absolute path", c.Dir))
	}
	if c.DrainTimeout < 0 {
		errs = append(errs, fmt.Errorf("the drain timeout %v is negative", c.DrainTimeout))
	}
	if c.WindowItems < 0 || c.WindowBytes < 0 {
		errs = append(errs, fmt.Errorf("the window of %d items and %d bytes is negative", c.WindowItems, c.WindowBytes))
	}
	errs = append(errs, c.PerUser.valid(), c.Total.valid())
	if c.Embedded {
		c.PerUser, c.Total = c.PerUser.or(noLimits), c.Total.or(noLimits)
	}
	c.PerUser = c.PerUser.or(DefaultLimits)
	c.Total = c.Total.or(c.PerUser.times(totalFactor))
	if c.Cgroup == "" {
		c.Cgroup = workerproc.CgroupAuto
	}
	if c.Addr == "" {
		c.Addr = filepath.Join(c.Dir, "api.sock")
	}
	if c.System != nil && runtime.GOOS != "linux" {
		errs = append(errs, errors.New("system mode works on Linux only"))
	}
	if c.SocketMode == 0 {
		c.SocketMode = 0o600
		if c.System != nil {
			c.SocketMode = 0o660
		}
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 60 * time.Second
	}
	if c.WindowItems == 0 {
		c.WindowItems = 16384
	}
	if c.WindowBytes == 0 {
		c.WindowBytes = 16 << 20
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c, errors.Join(errs...)
}
