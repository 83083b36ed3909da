package text

import (
	"encoding/json"
	"testing"
)

func TestBytesAreKept(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain":       `"plain"`,
		"<a & b>\n":   `"<a & b>\n"`,
		"nul \x00":    `"nul \u0000"`,
		"caf\xe9":     `{"base64":"Y2Fm6Q=="}`,
		"caf\u00e9 ☕": `"café ☕"`,
		"":            `""`,
	} {
		b, err := Bytes(in).MarshalJSON()
		if err != nil || string(b) != want {
			t.Errorf("%q: got %s, %v; want %s", in, b, err, want)
		}
		var back Bytes
		if err := json.Unmarshal(b, &back); err != nil || string(back) != in {
			t.Errorf("%s: got back %q, %v; want %q", b, back, err, in)
		}
	}
}
