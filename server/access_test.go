package server

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc"
	channelz "google.golang.org/grpc/channelz/service"
	"google.golang.org/grpc/reflection"
)

func TestEveryRPCHasARule(t *testing.T) {
	dir, err := os.MkdirTemp("", "p") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := New(Config{Dir: dir, Services: func(r *grpc.Server) { // as procpoold has them
		reflection.Register(r)
		channelz.RegisterChannelzServiceToServer(r)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.clients.Close()
		s.workers.Close()
	})
	served := make(map[string]bool)
	for service, info := range s.apiServer.GetServiceInfo() {
		for _, method := range info.Methods {
			name := "/" + service + "/" + method.Name
			served[name] = true
			if _, ok := rules[name]; !ok {
				t.Errorf("%s has no rule, so that in system mode it is for administrators; say who may call it", name)
			}
		}
	}
	for name := range rules {
		if !served[name] {
			t.Errorf("there is a rule for %s, which is not served", name)
		}
	}
	for name, r := range rules {
		if strings.HasPrefix(name, "/grpc.channelz") && r != forAdmins {
			t.Errorf("%s is not for administrators alone, though it shows who is connected", name)
		}
	}
}
