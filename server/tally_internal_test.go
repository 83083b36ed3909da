package server

import "testing"

func TestEveryKillHasACause(t *testing.T) {
	for reason := range killers {
		if killCauses[reason] == "" {
			t.Errorf("%v has no name in the metrics", reason)
		}
	}
	for reason := range killCauses {
		if killers[reason] == "" {
			t.Errorf("%v has no name in kill reports", reason)
		}
	}
}
