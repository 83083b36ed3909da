package main_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
)

// bench --daemon starts the procpoold that lies beside it, measures through it and into it, and leaves nothing behind (which CI looks for).
func TestBenchThroughTheDaemon(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "procpool"), "bench", "--daemon", "--json", "--runs", "1", "--time", "1ms",
		"start-warm", "memory-idle", "cpu-1").Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var report struct {
		Mode     string
		Measures []struct {
			Name    string
			Checked map[string]int
			Figures []struct{ Ours struct{ Median float64 } }
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if report.Mode != "daemon" || len(report.Measures) != 3 {
		t.Errorf("got mode %q and %d measures, want daemon and 3", report.Mode, len(report.Measures))
	}
	for _, m := range report.Measures {
		for _, f := range m.Figures {
			if f.Ours.Median < 0 || (f.Ours.Median == 0 && m.Name != "cpu-1") { // CPU time comes in ticks of 10 ms
				t.Errorf("%s: got %v, want more", m.Name, f.Ours.Median)
			}
		}
		if m.Checked["procpool"] < 1 {
			t.Errorf("%s: nothing was checked", m.Name)
		}
	}
}
