package bench

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// fullRound is the default of --time: a round that long or longer has at least as many samples as sample is told, a shorter one in proportion.
const fullRound = 250 * time.Millisecond

// sample does f until that has taken so many seconds, and so many times at least, and returns what each took, the shortest first.
func sample(seconds float64, times int, f func() (time.Duration, error)) ([]time.Duration, error) {
	times = max(1, int(float64(times)*min(1, seconds/fullRound.Seconds())))
	var all []time.Duration
	for sum := time.Duration(0); len(all) < times || sum.Seconds() < seconds; {
		d, err := f()
		if err != nil {
			return nil, err
		}
		all = append(all, d)
		sum += d
	}
	slices.Sort(all)
	return all, nil
}

// rate does the same number of things again and again, and returns how many there were in a second.
func rate(w work, things int, f func() (time.Duration, error)) (*answer, error) {
	took, err := sample(w.Seconds, 1, f)
	if err != nil {
		return nil, err
	}
	sum := time.Duration(0)
	for _, d := range took {
		sum += d
	}
	return &answer{Values: values(float64(things*len(took)) / sum.Seconds()), Checked: w.Items * len(took)}, nil
}

// Samples of a latency that a round has at least: enough for its 99th percentile; and where each costs tens of milliseconds.
const (
	manySamples = 200
	fewSamples  = 5
)

// latency is the percentiles of what f takes.
func latency(w work, times int, f func() (time.Duration, error), percents ...float64) (*answer, error) {
	took, err := sample(w.Seconds, times, f)
	if err != nil {
		return nil, err
	}
	a := &answer{Checked: len(took)}
	for _, p := range percents {
		a.Values = append(a.Values, values(percentile(took, p).Seconds())...)
	}
	return a, nil
}

func wrong(what string, index int, got, want any) error {
	return fmt.Errorf("wrong result: %s %d gave %v, want %v", what, index, got, want)
}

func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

func checkNext(got []int, n int) error {
	if len(got) != n {
		return wrong("all", n, len(got), n)
	}
	for i, v := range got {
		if v != i+1 {
			return wrong("item", i, v, i+1)
		}
	}
	return nil
}

// percentile is the smallest of the values that is not below p percent of them.
func percentile(sorted []time.Duration, p float64) time.Duration {
	return sorted[max(0, int(math.Ceil(p/100*float64(len(sorted))))-1)]
}

// pause lets time pass.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
