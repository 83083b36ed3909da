// Package text writes what is nearly always text, and sometimes is not, as JSON that keeps every byte.
package text

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"
)

// Bytes are nearly always text: arguments, file names, output. In JSON they are a string or, if they are not UTF-8,
// {"base64": "…"}: file names and output come through exactly as they are.
type Bytes []byte

type binaryText struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON is the JSON form.
func (t Bytes) MarshalJSON() ([]byte, error) {
	if !utf8.Valid(t) {
		return json.Marshal(binaryText{t})
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(string(t))
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// UnmarshalJSON reads either form.
func (t *Bytes) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var v binaryText
		if err := json.Unmarshal(b, &v); err != nil {
			return fmt.Errorf(`want a string or {"base64": "…"}: %w`, err)
		}
		*t = v.Base64
		return nil
	}
	var s string
	err := json.Unmarshal(b, &s)
	*t = Bytes(s)
	return err
}

// WriteJSONLine writes v on a line of its own, without escapes that only HTML needs.
func WriteJSONLine(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}
