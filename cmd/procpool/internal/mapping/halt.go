package mapping

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// haltRule says when no more commands are begun. The zero value is never.
type haltRule struct {
	now     bool   // the running ones are ended, too
	of      string // what is counted: fail, success or done
	count   int
	percent float64 // instead of count: of all items
	text    string
}

var errHalt = errors.New(`write never, or now or soon, then a comma and fail=N, success=N or done=N; N may be a percentage of all items: soon,fail=10%`)

// Set reads one.
func (h *haltRule) Set(s string) error {
	*h = haltRule{}
	if s == "never" {
		return nil
	}
	when, why, _ := strings.Cut(s, ",")
	of, number, _ := strings.Cut(why, "=")
	if (when != "now" && when != "soon") || (of != "fail" && of != "success" && of != "done") {
		return errHalt
	}
	rule := haltRule{now: when == "now", of: of, text: s}
	var err error
	if p, ok := strings.CutSuffix(number, "%"); ok {
		rule.percent, err = parsePercent(p)
	} else if rule.count, err = strconv.Atoi(number); err == nil && rule.count < 1 {
		err = fmt.Errorf("%d is not a number of items", rule.count)
	}
	if err != nil || rule.percent > 100 {
		return errHalt
	}
	*h = rule
	return nil
}

func (h *haltRule) String() string { return h.text }

// Type is what the help calls it.
func (h *haltRule) Type() string { return "when,why" }

// met says whether the rule holds now. Percentages are of all items: while total is not known (-1) they are not reached.
func (h *haltRule) met(done, failed, total int) bool {
	var n int
	switch h.of {
	case "fail":
		n = failed
	case "success":
		n = done - failed
	case "done":
		n = done
	default:
		return false
	}
	if h.percent > 0 {
		return total > 0 && n >= max(int(math.Ceil(float64(total)*h.percent/100)), 1)
	}
	return n >= h.count
}

// haltedError is the cause of an end by the rule.
type haltedError struct{ rule haltRule }

func (e haltedError) Error() string { return "halted (" + e.rule.text + ")" }
