// Command grpc-proxy forwards any gRPC call to one target without knowing its messages. It is
// the peer that benchmarks compare the sidecar's proxy with: plain grpc-go, no tuning.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	target := flag.String("target", "", "gRPC target, for example unix:/run/p.sock")
	flag.Parse()
	if err := run(*listen, *target); err != nil {
		fmt.Fprintln(os.Stderr, "grpc-proxy:", err)
		os.Exit(1)
	}
}

func run(listen, target string) error {
	backend, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{}), grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)))
	if err != nil {
		return fmt.Errorf("preparing %q: %w", target, err)
	}
	defer backend.Close()
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	server := grpc.NewServer(
		grpc.ForceServerCodec(rawCodec{}),
		grpc.MaxRecvMsgSize(1<<30), grpc.MaxSendMsgSize(1<<30),
		grpc.UnknownServiceHandler(func(_ any, inbound grpc.ServerStream) error { return forward(backend, inbound) }))
	// The address is the whole output: whoever started us waits for it.
	fmt.Println(listener.Addr())

	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	go func() {
		<-stop.Done()
		server.Stop()
	}()
	return server.Serve(listener)
}

// forward pumps one call in both directions until the target has ended it.
func forward(backend *grpc.ClientConn, inbound grpc.ServerStream) error {
	method, ok := grpc.MethodFromServerStream(inbound)
	if !ok {
		return status.Error(codes.Internal, "a call without a method")
	}
	ctx, cancel := context.WithCancel(inbound.Context())
	defer cancel()
	incoming, _ := metadata.FromIncomingContext(ctx)
	outbound, err := backend.NewStream(
		metadata.NewOutgoingContext(ctx, incoming.Copy()),
		&grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	go requests(inbound, outbound, cancel)
	return responses(inbound, outbound)
}

func requests(inbound grpc.ServerStream, outbound grpc.ClientStream, cancel context.CancelFunc) {
	for {
		var message raw
		err := inbound.RecvMsg(&message)
		if errors.Is(err, io.EOF) {
			if outbound.CloseSend() != nil {
				cancel()
			}
			return
		}
		if err == nil {
			err = outbound.SendMsg(&message)
		}
		if err != nil {
			// The target's own status comes out of responses; a broken client ends the call.
			if !errors.Is(err, io.EOF) {
				cancel()
			}
			return
		}
	}
}

func responses(inbound grpc.ServerStream, outbound grpc.ClientStream) error {
	header, err := outbound.Header()
	if err == nil && len(header) > 0 {
		if err := inbound.SendHeader(header); err != nil {
			return err
		}
	}
	for {
		var message raw
		err := outbound.RecvMsg(&message)
		if err != nil {
			inbound.SetTrailer(outbound.Trailer())
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := inbound.SendMsg(&message); err != nil {
			return err
		}
	}
}

// raw is a message that nobody looks into.
type raw []byte

// rawCodec passes messages on as they are.
type rawCodec struct{}

func (rawCodec) Marshal(message any) ([]byte, error) {
	content, ok := message.(*raw)
	if !ok {
		return nil, fmt.Errorf("marshalling %T: only raw messages are passed on", message)
	}
	return *content, nil
}

func (rawCodec) Unmarshal(data []byte, message any) error {
	content, ok := message.(*raw)
	if !ok {
		return fmt.Errorf("unmarshalling into %T: only raw messages are passed on", message)
	}
	// The buffer goes back to a pool when this returns.
	*content = append([]byte(nil), data...)
	return nil
}

// Name is that of the ordinary codec, so that the content type stays what the client sent.
func (rawCodec) Name() string { return "proto" }
