package workerproc

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	pb "github.com/procpool/procpool/proto/procpool/v1"
	"google.golang.org/protobuf/proto"
)

func TestBootstrapFrameRoundTrip(t *testing.T) {
	want := &pb.Bootstrap{
		Socket: "/run/procpool/worker.sock", Worker: "p-1", Generation: 7, Token: bytes.Repeat([]byte{0xff}, 32),
		ProtocolMin: 1, ProtocolMax: 1, StartTimeoutMs: 10_000, ProgressFd: 4, ProgressSize: ProgressSize,
	}
	frame, err := encodeBootstrap(want)
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(append(frame, "the lifeline goes on"...))
	got, err := readBootstrap(r)
	if err != nil || !proto.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if r.Len() != len("the lifeline goes on") {
		t.Errorf("%d bytes are left after the frame, want %d", r.Len(), len("the lifeline goes on"))
	}
}

func TestBootstrapFrameFitsIntoAnyPipe(t *testing.T) {
	if _, err := encodeBootstrap(&pb.Bootstrap{Worker: strings.Repeat("w", 4096)}); err == nil {
		t.Error("a frame that a pipe of one page cannot hold has been made")
	}
}

func TestForeignFramesAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		frame string
		ours  bool // it is a frame, but a bad one
	}{
		"nothing":          {"", false},
		"a make jobserver": {"++++++++++++++++", false},
		"half a head":      {"PROCPO", false},
		"a wrong magic":    {"procpool\x00\x00\x00\x00", false},
		"too long":         {"PROCPOOL\xff\xff\xff\xff", true},
		"cut off":          {"PROCPOOL\x00\x00\x00\x05ab", true},
		"not a message":    {"PROCPOOL\x00\x00\x00\x01\xff", true},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := readBootstrap(strings.NewReader(tt.frame))
			if err == nil || errors.Is(err, errNotOurs) == tt.ours {
				t.Errorf("got %v, %v; want an error that is errNotOurs: %v", b, err, !tt.ours)
			}
		})
	}
}

func FuzzReadBootstrap(f *testing.F) {
	frame, err := encodeBootstrap(&pb.Bootstrap{Socket: "/s", Token: []byte("token")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame)
	f.Add(frame[:len(frame)-1])
	f.Add([]byte("PROCPOOL\x00\x01\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readBootstrap(bytes.NewReader(b))
		if (m == nil) == (err == nil) {
			t.Errorf("got %v, %v: neither or both", m, err)
		}
	})
}
