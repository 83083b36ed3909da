package server

import "testing"

func TestAnAcknowledgementWaitsForCompanyOrForWhoAsks(t *testing.T) {
	t.Parallel()
	var o outbox
	o.init()
	o.hurry()
	if m, _ := o.take(); m != nil {
		t.Errorf("there was nothing to acknowledge: %v", m)
	}
	o.ack(7, 2, false)
	if m, _ := o.take(); m != nil {
		t.Errorf("nobody has asked for %v", m)
	}
	o.hurry()
	if m, _ := o.take(); m == nil || m.Head.GetAck().GetChunk() != 7 || m.Head.GetAck().GetTasks() != 2 {
		t.Errorf("got %v", m)
	}
}
