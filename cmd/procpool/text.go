package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"
)

// text is bytes that are nearly always text: arguments, file names, output. In JSON it is a string or, if it is not UTF-8,
// {"base64": "…"}: file names and output come through exactly as they are.
type text []byte

type binaryText struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON is the JSON form.
func (t text) MarshalJSON() ([]byte, error) {
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
func (t *text) UnmarshalJSON(b []byte) error {
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
	*t = text(s)
	return err
}

// writeJSONLine writes v on a line of its own, without escapes that only HTML needs.
func writeJSONLine(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}
