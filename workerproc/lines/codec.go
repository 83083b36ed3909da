package lines

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/procpool/procpool/proto/payload"
)

// codec turns items into lines and lines into results.
type codec struct {
	form Form
	end  byte // of a line
}

func newCodec(s Spec) codec {
	if s.Null {
		return codec{s.Form, 0}
	}
	return codec{s.Form, '\n'}
}

var (
	errNewline = errors.New("the item has a newline in it, which ends a line: use --null, where items and answers end with NUL")
	errNUL     = errors.New("the item has a NUL in it, which ends an item here")
	errUTF8    = errors.New("the answer is not UTF-8, which a JSON string cannot hold")
	text       = payload.JSON[string]()
)

// appendLine appends an item as a line to dst, or nothing if it cannot be one.
func (c codec) appendLine(dst, item []byte) ([]byte, error) {
	from := len(dst)
	switch {
	case c.form == Strings && len(item) > 0 && item[0] == '"':
		s, err := text.Decode(item)
		if err != nil {
			return dst, fmt.Errorf("the item is not JSON: %w", err)
		}
		dst = append(dst, s...)
	case c.form == Bytes:
		dst = append(dst, item...)
	default: // JSON has no newline in it but between its tokens, and no NUL at all
		b := bytes.NewBuffer(dst)
		if err := json.Compact(b, item); err != nil {
			return dst, fmt.Errorf("the item is not JSON: %w", err)
		}
		dst = b.Bytes()
	}
	if bytes.IndexByte(dst[from:], c.end) >= 0 {
		if c.end == 0 {
			return dst[:from], errNUL
		}
		return dst[:from], errNewline
	}
	return append(dst, c.end), nil
}

// appendResult appends the result that an answer is, without its end.
func (c codec) appendResult(dst, line []byte) ([]byte, error) {
	switch {
	case c.form == Bytes:
		return append(dst, line...), nil
	case c.form == Values && !json.Valid(line):
		return dst, fmt.Errorf("the answer is not one JSON value: %s", sample(line))
	case c.form == Values && !utf8.Valid(line):
		return dst, errUTF8
	case c.form == Values:
		return append(dst, line...), nil
	}
	if plain(line) {
		dst = append(dst, '"')
		dst = append(dst, line...)
		return append(dst, '"'), nil
	}
	if !utf8.Valid(line) {
		return dst, fmt.Errorf("%w: %s", errUTF8, sample(line))
	}
	return text.Append(dst, string(line))
}

// plain tells whether a text is its own JSON, but for the quotes.
func plain(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// sample is the beginning of a line, for a message.
func sample(line []byte) string {
	const most = 60
	if len(line) > most {
		return fmt.Sprintf("%q…", line[:most])
	}
	return fmt.Sprintf("%q", line)
}
