package main

import (
	"google.golang.org/grpc"
	channelz "google.golang.org/grpc/channelz/service"
	"google.golang.org/grpc/reflection"
)

// inspection is what stock tools ask of a gRPC server: grpcurl wants reflection, grpcdebug wants channelz.
func inspection(s *grpc.Server) {
	reflection.Register(s)
	channelz.RegisterChannelzServiceToServer(s)
}
