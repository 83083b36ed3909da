package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// This file is the one exception to the rule that payloads are opaque: JSON values given for people, by grpcurl for example.

// maxExact is the largest integer up to which a double holds every integer.
const maxExact = 1 << 53

// itemsFromJSON replaces the JSON values of a message by items.
func itemsFromJSON(m *wire.CallRequest) *refusal {
	if m.Items.Len() > 0 {
		return badRequest("a message has either items or json, not both")
	}
	for i, v := range m.JSON.Values {
		b, err := jsonItem(v)
		if err != nil {
			return badRequest("json[%d]: %v", i, err)
		}
		m.Items.Append(b)
	}
	m.JSON = nil
	return nil
}

// jsonItem is a JSON value as text.
func jsonItem(v *structpb.Value) ([]byte, error) {
	if err := exact(v); err != nil {
		return nil, err
	}
	b, err := protojson.Marshal(v)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer // protojson varies its white space on purpose
	if err := json.Compact(&compact, b); err != nil {
		return nil, err
	}
	return compact.Bytes(), nil
}

// exact refuses numbers that have been rounded on their way here, or may have been.
func exact(v *structpb.Value) error {
	switch k := v.GetKind().(type) {
	case nil:
		return fmt.Errorf("the value is missing")
	case *structpb.Value_NumberValue:
		if n := k.NumberValue; n == math.Trunc(n) && math.Abs(n) > maxExact {
			return fmt.Errorf("%.0f may have been rounded on its way: JSON numbers are doubles here, exact up to 2^53; send it as a string, or as items", n)
		}
	case *structpb.Value_ListValue:
		for _, e := range k.ListValue.GetValues() {
			if err := exact(e); err != nil {
				return err
			}
		}
	case *structpb.Value_StructValue:
		for _, e := range k.StructValue.GetFields() {
			if err := exact(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// jsonResults replaces the values of results by JSON values, and text where a value would lose something.
func jsonResults(r *wire.Results) {
	r.JSON = &structpb.ListValue{}
	for it := r.Values.Items(); it.Next(); {
		v, text := jsonValue(it.Item())
		if text != "" {
			if r.JSONText == nil {
				r.JSONText = make(map[uint64]string)
			}
			index := r.First + uint64(len(r.JSON.Values))
			if r.Indexes != nil {
				index = r.Indexes[len(r.JSON.Values)]
			}
			r.JSONText[index] = text
		}
		r.JSON.Values = append(r.JSON.Values, v)
	}
	r.Values = wire.Batch{}
}

// jsonValue is JSON text as a value; or null and the text, if the value would not be the same.
func jsonValue(b []byte) (v *structpb.Value, text string) {
	v = &structpb.Value{}
	if err := protojson.Unmarshal(b, v); err != nil || !survives(b) {
		return structpb.NewNullValue(), string(bytes.ToValidUTF8(b, []byte("\uFFFD")))
	}
	return v, ""
}

// survives tells whether every number in a JSON text is one that a double holds exactly as it is written.
func survives(b []byte) bool {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	for {
		tok, err := d.Token()
		if err != nil {
			return true
		}
		n, ok := tok.(json.Number)
		if !ok {
			continue
		}
		if i, err := n.Int64(); err == nil {
			if i > maxExact || i < -maxExact {
				return false
			}
			continue
		}
		if f, err := n.Float64(); err != nil || (f == math.Trunc(f) && math.Abs(f) > maxExact) {
			return false
		}
	}
}

// forPeople turns a portion of outcomes into JSON.
func forPeople(m *wire.CallResponse) {
	for i := range m.Results {
		jsonResults(&m.Results[i])
	}
}

// applyResponse is the outcome of a single task, out of what was delivered.
func applyResponse(c *call, m *wire.CallResponse) *pb.ApplyResponse {
	out := &pb.ApplyResponse{CallId: c.id, Attempts: 1}
	if len(m.Failures) > 0 {
		out.Failure = m.Failures[0]
		out.Attempts = out.Failure.Attempts
		return out
	}
	r := &m.Results[0]
	out.Attempts = max(1, r.Attempts)
	it := r.Values.Items()
	it.Next()
	if c.json {
		v, text := jsonValue(it.Item())
		if text != "" {
			out.JsonText = text
		} else {
			out.Json = v
		}
		return out
	}
	out.Value = it.Item()
	return out
}
