package mapping

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// duration is a time as people at a shell write it: 5 is seconds, as for sleep and timeout; else 1.5s, 200ms, 2m, 1h30m.
type duration time.Duration

// Set reads one.
func (d *duration) Set(s string) error {
	v, err := parseDuration(s)
	*d = duration(v)
	return err
}

func (d *duration) String() string { return time.Duration(*d).String() }

// Type is what the help calls it.
func (d *duration) Type() string { return "duration" }

func parseDuration(s string) (time.Duration, error) {
	v, err := time.ParseDuration(s)
	if seconds, plain := strconv.ParseFloat(s, 64); plain == nil {
		v, err = time.Duration(seconds*float64(time.Second)), nil
		if math.Abs(seconds) > float64(math.MaxInt64/time.Second) || seconds != seconds {
			err = fmt.Errorf("%s is out of range", s)
		}
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration: write seconds, or a number with ms, s, m or h, as 1.5s", s)
	case v < 0:
		return 0, fmt.Errorf("%s is negative", s)
	}
	return v, nil
}

// timeLimit is how long a command may take: a duration, or percent of the median of the others.
type timeLimit struct {
	fixed   time.Duration
	percent float64
}

// Set reads one.
func (t *timeLimit) Set(s string) (err error) {
	*t = timeLimit{}
	if number, ok := strings.CutSuffix(s, "%"); ok {
		t.percent, err = parsePercent(number)
		if err == nil && t.percent <= 100 {
			err = fmt.Errorf("%s of the median would end every other command: it must be over 100%%, as 300%%", s)
		}
		return err
	}
	t.fixed, err = parseDuration(s)
	return err
}

func (t *timeLimit) String() string {
	if t.percent > 0 {
		return fmt.Sprintf("%g%%", t.percent)
	}
	return t.fixed.String()
}

// Type is what the help calls it.
func (t *timeLimit) Type() string { return "duration|N%" }

// parsePercent reads the number before a percent sign.
func parsePercent(number string) (float64, error) {
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || v <= 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 0, fmt.Errorf("%q is no percentage: a number over 0 stands before %%", number+"%")
	}
	return v, nil
}

// maxWorkers is the most that a pool can have, and manyWorkers what "as many as possible" means: each is a process.
const (
	maxWorkers  = 4096
	manyWorkers = 250
)

// parseJobs reads how many commands run at a time: N; N% of the CPUs; that many and N (+N) or but N (-N), as GNU parallel has it; 0 for as many
// as there are items, at most 250.
func parseJobs(s string, cpus int) (int, error) {
	var n int
	var err error
	switch number, percent := strings.CutSuffix(s, "%"); {
	case s == "":
		return cpus, nil
	case percent:
		var p float64
		if p, err = parsePercent(number); err == nil {
			n = max(int(math.Min(float64(cpus)*p/100, maxWorkers+1)), 1)
		}
	case s[0] == '+' || s[0] == '-':
		n, err = strconv.Atoi(s)
		n = max(cpus+n, 1)
	default:
		if n, err = strconv.Atoi(s); err == nil && n == 0 {
			n = manyWorkers
		}
	}
	if err != nil || n > maxWorkers {
		return 0, fmt.Errorf("-j %s: write a number up to %d, N%% of the CPUs, +N or -N for more or less than these, or 0 for as many as there are items (at most %d)",
			s, maxWorkers, manyWorkers)
	}
	return n, nil
}

// unescape reads a separator as it is typed: \n, \t, \r, \0 and \\ stand for what they stand for in C.
func unescape(s string) string {
	return strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t", `\r`, "\r", `\0`, "\x00").Replace(s)
}
