package wire

import (
	"fmt"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// CallRequest is MapRequest and ApplyAsyncRequest; the two have the same fields, and ids only in the latter.
type CallRequest struct {
	// Settings are fields 1 to 9 and 13, nil when the message has none of them.
	Settings *pb.MapRequest
	Items    Batch
	JSON     *structpb.ListValue
	IDs      []uint64
	// Bad is what is wrong with Items in a message that was received. gRPC would call it an internal error; it is the client's.
	Bad error
}

// CallResponse is MapResponse and ApplyAsyncResponse.
type CallResponse struct {
	Accepted *pb.CallAccepted
	Results  []Results
	Failures []*pb.Failure
	Outputs  []*pb.TaskOutput
}

// Results is pb.Results: tasks that succeeded after the same number of attempts.
type Results struct {
	First    uint64
	Indexes  []uint64
	Attempts uint32 // 0 means 1
	Values   Batch
	JSON     *structpb.ListValue
	JSONText map[uint64]string
}

// AttachRequest is pb.AttachRequest: what a worker says.
type AttachRequest struct {
	// Head has every field but results; nil when there are none.
	Head    *pb.AttachRequest
	Results []ChunkResults
}

// ChunkResults is pb.ChunkResults: the next tasks of a chunk that have ended.
type ChunkResults struct {
	Chunk    uint64
	First    uint32
	Values   Batch
	Failures []*pb.TaskFailure
	RunNS    uint64
}

// Len is the number of tasks, failures included.
func (r *ChunkResults) Len() int { return r.Values.Len() + len(r.Failures) }

// AttachResponse is pb.AttachResponse: what the daemon says to a worker.
type AttachResponse struct {
	// Head has every field but chunks; nil when there are none.
	Head   *pb.AttachResponse
	Chunks []Chunk
}

// Chunk is pb.Chunk: a run of tasks of one call.
type Chunk struct {
	ID             uint64
	Function       uint32
	Attempt        uint32
	Items          Batch
	TaskTimeoutNS  uint64
	DeadlineUnixNS int64
	LingerNS       uint64
}

func (m *CallRequest) size() (n int) {
	if m.Settings != nil {
		n += proto.Size(m.Settings)
	}
	n += batchSize(10, &m.Items)
	if m.JSON != nil {
		n += messageSize(11, m.JSON)
	}
	if len(m.IDs) > 0 {
		n += fieldSize(12, packedSize(m.IDs))
	}
	return n
}

func (m *CallRequest) encode(e *encoder) {
	if m.Settings != nil {
		e.inline(m.Settings)
	}
	m.Items.encode(e, 10)
	if m.JSON != nil {
		e.message(11, m.JSON)
	}
	if len(m.IDs) > 0 {
		packed(e, 12, m.IDs, packedSize(m.IDs))
	}
}

func (m *CallRequest) decode(buf []byte) error {
	*m = CallRequest{}
	var settings []byte
	err := fields(buf, func(num protowire.Number, typ protowire.Type, v uint64, content, raw []byte) (err error) {
		switch {
		case num == 10 && typ == protowire.BytesType:
			if err = m.Items.parse(content); err == nil {
				m.Bad = m.Items.Check()
			}
		case num == 11 && typ == protowire.BytesType:
			m.JSON, err = unmarshalNew[structpb.ListValue](content)
		case num == 12:
			m.IDs, err = list(m.IDs, typ, v, content)
		case num <= 9, num == 13:
			settings = append(settings, raw...)
		}
		return err
	})
	if err != nil || settings == nil {
		return err
	}
	m.Settings, err = unmarshalNew[pb.MapRequest](settings)
	return err
}

func (m *CallResponse) size() (n int) {
	if m.Accepted != nil {
		n += messageSize(1, m.Accepted)
	}
	for i := range m.Results {
		n += fieldSize(2, m.Results[i].size())
	}
	for _, f := range m.Failures {
		n += messageSize(3, f)
	}
	for _, o := range m.Outputs {
		n += messageSize(4, o)
	}
	return n
}

func (m *CallResponse) encode(e *encoder) {
	if m.Accepted != nil {
		e.message(1, m.Accepted)
	}
	for i := range m.Results {
		r := &m.Results[i]
		e.prefix(2, r.size())
		r.encode(e)
	}
	for _, f := range m.Failures {
		e.message(3, f)
	}
	for _, o := range m.Outputs {
		e.message(4, o)
	}
}

func (m *CallResponse) decode(buf []byte) error {
	*m = CallResponse{}
	return fields(buf, func(num protowire.Number, typ protowire.Type, _ uint64, content, raw []byte) (err error) {
		if typ != protowire.BytesType {
			return nil
		}
		switch num {
		case 1:
			m.Accepted, err = unmarshalNew[pb.CallAccepted](content)
		case 2:
			m.Results = extend(m.Results, len(raw), len(buf))
			err = m.Results[len(m.Results)-1].decode(content)
		case 3:
			var f *pb.Failure
			f, err = unmarshalNew[pb.Failure](content)
			m.Failures = append(m.Failures, f)
		case 4:
			var o *pb.TaskOutput
			o, err = unmarshalNew[pb.TaskOutput](content)
			m.Outputs = append(m.Outputs, o)
		}
		return err
	})
}

// rest is the fields of Results that are there for people only.
func (r *Results) rest() *pb.Results {
	if r.JSON == nil && r.JSONText == nil {
		return nil
	}
	return &pb.Results{Json: r.JSON, JsonText: r.JSONText}
}

func (r *Results) size() (n int) {
	n = varintSize(1, r.First)
	if len(r.Indexes) > 0 {
		n += fieldSize(2, packedSize(r.Indexes))
	}
	n += varintSize(3, uint64(r.Attempts)) + batchSize(4, &r.Values)
	if rest := r.rest(); rest != nil {
		n += proto.Size(rest)
	}
	return n
}

func (r *Results) encode(e *encoder) {
	e.varint(1, r.First)
	if len(r.Indexes) > 0 {
		packed(e, 2, r.Indexes, packedSize(r.Indexes))
	}
	e.varint(3, uint64(r.Attempts))
	r.Values.encode(e, 4)
	if rest := r.rest(); rest != nil {
		e.inline(rest)
	}
}

func (r *Results) decode(buf []byte) error {
	var rest []byte
	err := fields(buf, func(num protowire.Number, typ protowire.Type, v uint64, content, raw []byte) (err error) {
		switch {
		case num == 1 && typ == protowire.VarintType:
			r.First = v
		case num == 2:
			r.Indexes, err = list(r.Indexes, typ, v, content)
		case num == 3 && typ == protowire.VarintType:
			r.Attempts = uint32(v)
		case num == 4 && typ == protowire.BytesType:
			err = r.Values.decode(content)
		case num == 5 || num == 6:
			rest = append(rest, raw...)
		}
		return err
	})
	if err == nil && len(r.Indexes) > 0 && r.JSON == nil && r.Values.Len() > 0 && len(r.Indexes) != r.Values.Len() {
		return fmt.Errorf("%d indexes for %d results", len(r.Indexes), r.Values.Len())
	}
	if err != nil || rest == nil {
		return err
	}
	people, err := unmarshalNew[pb.Results](rest)
	if err == nil {
		r.JSON, r.JSONText = people.Json, people.JsonText
	}
	return err
}

func (m *AttachRequest) size() (n int) {
	if m.Head != nil {
		n += proto.Size(m.Head)
	}
	for i := range m.Results {
		n += fieldSize(3, m.Results[i].size())
	}
	return n
}

func (m *AttachRequest) encode(e *encoder) {
	if m.Head != nil {
		e.inline(m.Head)
	}
	for i := range m.Results {
		r := &m.Results[i]
		e.prefix(3, r.size())
		r.encode(e)
	}
}

func (m *AttachRequest) decode(buf []byte) error {
	*m = AttachRequest{Results: m.Results[:0]} // its memory is used again
	var head []byte
	err := fields(buf, func(num protowire.Number, typ protowire.Type, _ uint64, content, raw []byte) error {
		if num == 3 && typ == protowire.BytesType {
			m.Results = extend(m.Results, len(raw), len(buf))
			return m.Results[len(m.Results)-1].decode(content)
		}
		head = append(head, raw...)
		return nil
	})
	if err != nil || head == nil {
		return err
	}
	m.Head, err = unmarshalNew[pb.AttachRequest](head)
	return err
}

func (r *ChunkResults) size() (n int) {
	n = varintSize(1, r.Chunk) + varintSize(2, uint64(r.First)) + batchSize(3, &r.Values)
	for _, f := range r.Failures {
		n += messageSize(4, f)
	}
	return n + varintSize(5, r.RunNS)
}

func (r *ChunkResults) encode(e *encoder) {
	e.varint(1, r.Chunk)
	e.varint(2, uint64(r.First))
	r.Values.encode(e, 3)
	for _, f := range r.Failures {
		e.message(4, f)
	}
	e.varint(5, r.RunNS)
}

func (r *ChunkResults) decode(buf []byte) error {
	return fields(buf, func(num protowire.Number, typ protowire.Type, v uint64, content, _ []byte) (err error) {
		switch {
		case num == 1 && typ == protowire.VarintType:
			r.Chunk = v
		case num == 2 && typ == protowire.VarintType:
			r.First = uint32(v)
		case num == 3 && typ == protowire.BytesType:
			err = r.Values.decode(content)
		case num == 4 && typ == protowire.BytesType:
			var f *pb.TaskFailure
			f, err = unmarshalNew[pb.TaskFailure](content)
			r.Failures = append(r.Failures, f)
		case num == 5 && typ == protowire.VarintType:
			r.RunNS = v
		}
		return err
	})
}

func (m *AttachResponse) size() (n int) {
	if m.Head != nil {
		n += proto.Size(m.Head)
	}
	for i := range m.Chunks {
		n += fieldSize(3, m.Chunks[i].size())
	}
	return n
}

func (m *AttachResponse) encode(e *encoder) {
	if m.Head != nil {
		e.inline(m.Head)
	}
	for i := range m.Chunks {
		c := &m.Chunks[i]
		e.prefix(3, c.size())
		c.encode(e)
	}
}

func (m *AttachResponse) decode(buf []byte) error {
	*m = AttachResponse{Chunks: m.Chunks[:0]} // its memory is used again
	var head []byte
	err := fields(buf, func(num protowire.Number, typ protowire.Type, _ uint64, content, raw []byte) error {
		if num == 3 && typ == protowire.BytesType {
			m.Chunks = extend(m.Chunks, len(raw), len(buf))
			return m.Chunks[len(m.Chunks)-1].decode(content)
		}
		head = append(head, raw...)
		return nil
	})
	if err != nil || head == nil {
		return err
	}
	m.Head, err = unmarshalNew[pb.AttachResponse](head)
	return err
}

func (c *Chunk) size() int {
	return varintSize(1, c.ID) + varintSize(2, uint64(c.Function)) + varintSize(3, uint64(c.Attempt)) + batchSize(4, &c.Items) +
		varintSize(5, c.TaskTimeoutNS) + varintSize(6, uint64(c.DeadlineUnixNS)) + varintSize(7, c.LingerNS)
}

func (c *Chunk) encode(e *encoder) {
	e.varint(1, c.ID)
	e.varint(2, uint64(c.Function))
	e.varint(3, uint64(c.Attempt))
	c.Items.encode(e, 4)
	e.varint(5, c.TaskTimeoutNS)
	e.varint(6, uint64(c.DeadlineUnixNS))
	e.varint(7, c.LingerNS)
}

func (c *Chunk) decode(buf []byte) error {
	return fields(buf, func(num protowire.Number, typ protowire.Type, v uint64, content, _ []byte) (err error) {
		switch {
		case num == 4 && typ == protowire.BytesType:
			err = c.Items.decode(content)
		case typ != protowire.VarintType:
		case num == 1:
			c.ID = v
		case num == 2:
			c.Function = uint32(v)
		case num == 3:
			c.Attempt = uint32(v)
		case num == 5:
			c.TaskTimeoutNS = v
		case num == 6:
			c.DeadlineUnixNS = int64(v)
		case num == 7:
			c.LingerNS = v
		}
		return err
	})
}
