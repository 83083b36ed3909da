package workerproc

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// The test binary is also the program whose workers are tested. This variable says what else it is to be.
const roleVar = "WORKERPROC_TEST_ROLE"

const (
	roleForgottenProgram = "a program that does not call Main and sleeps"
	roleForgottenTests   = "a test binary that does not call Main and runs tests"
	roleSlowStart        = "a program whose packages initialise slowly"
	rolePanic            = "a program that panics"
	roleEscape           = "a program that leaves a process outside its group, which holds stdout"
	roleEscapeLoudly     = "a program that leaves a process outside its group, which writes to stdout"
)

// lastWords are what such a program writes before it ends.
const lastWords = "so long"

func init() {
	if os.Getenv(roleVar) == roleSlowStart {
		<-time.After(1600 * time.Millisecond) // longer than the patience with a program that has forgotten Main
	}
}

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case roleForgottenProgram:
		<-time.After(time.Minute) // going about its business
		os.Exit(0)
	case roleForgottenTests:
		os.Exit(m.Run())
	case rolePanic:
		panic("so long")
	case roleEscape, roleEscapeLoudly:
		called.Store(true) // it is not about that
		c := exec.Command("sleep", "30")
		if os.Getenv(roleVar) == roleEscapeLoudly {
			c = exec.Command("yes") // ends when nobody reads
		}
		c.Stdout, c.SysProcAttr = os.Stdout, &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			os.Exit(2)
		}
		fmt.Print(lastWords) // not a whole line
		os.Exit(0)
	}
	Main()
	os.Exit(m.Run())
}

// TestForgottenTestsRunLong is what roleForgottenTests runs.
func TestForgottenTestsRunLong(t *testing.T) {
	if os.Getenv(roleVar) != roleForgottenTests {
		return // it is there for a test binary that has forgotten Main
	}
	<-time.After(time.Minute)
}

// patience is how long anything here may take at most, on a busy machine; nothing waits for it to pass.
const patience = 30 * time.Second

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !cond(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
