package server

import (
	"strings"
	"testing"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"google.golang.org/grpc"
)

// sent keeps what a handler sends.
type sent struct {
	grpc.ServerStream
	messages []*wire.CallResponse
}

func (s *sent) SendMsg(m any) error {
	message := *m.(*wire.CallResponse) // it will be another
	s.messages = append(s.messages, &message)
	return nil
}

// Whatever has come together, no message is over the limit, and all of it arrives in order: output before outcomes.
func TestALargePortionIsSeveralMessages(t *testing.T) {
	const n = 100
	text := strings.Repeat("x", maxBatch/3)
	m := wire.CallResponse{Accepted: &pb.CallAccepted{CallId: "a"}}
	for i := range n {
		m.Outputs = append(m.Outputs, &pb.TaskOutput{Index: uint64(i), Data: []byte(text)})
		r := wire.Results{First: uint64(i)}
		r.Values.Append([]byte(text))
		m.Results = append(m.Results, r)
		m.Failures = append(m.Failures, &pb.Failure{Index: uint64(n + i), Message: text})
	}
	m.Results[0].Values = wire.Batch{}
	m.Results[0].Values.Append(nil) // which takes no room, and has to wait for the outputs all the same
	var s sent
	if err := (&call{}).sendPortion(&s, &m); err != nil {
		t.Fatal(err)
	}
	var outputs, results, failures int
	for i, m := range s.messages {
		data, err := wire.Codec{}.Marshal(m)
		if err != nil || data.Len() > maxBatch+maxBatch/100 {
			t.Errorf("message %d has %d bytes, %v; want at most about %d", i, data.Len(), err, maxBatch)
		}
		if (m.Accepted != nil) != (i == 0) {
			t.Errorf("message %d says that the call is accepted: %v", i, m.Accepted)
		}
		for _, o := range m.Outputs {
			if int(o.Index) != outputs || results+failures > 0 {
				t.Errorf("output %d comes after %d outputs, %d results and %d failures", o.Index, outputs, results, failures)
			}
			outputs++
		}
		for j := range m.Results {
			if int(m.Results[j].First) != results {
				t.Errorf("result %d comes after %d", m.Results[j].First, results)
			}
			results++
		}
		failures += len(m.Failures)
	}
	if outputs != n || results != n || failures != n {
		t.Errorf("%d outputs, %d results and %d failures have been sent, want %d each", outputs, results, failures, n)
	}
}
