package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"patchbay.dev/tests/plugins/go/echo"
)

// binary is every byte once, so that a wrong encoding shows.
var binary = func() string {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	return string(all)
}()

func metadataArrives(ctx context.Context, s subject) error {
	sent := metadata.Pairs("x-text", "one", "x-text", "two", "x-raw-bin", binary)
	answer, err := s.echo.EchoMetadata(metadata.NewOutgoingContext(ctx, sent), &echo.Payload{})
	if err != nil {
		return err
	}
	seen := metadata.MD{}
	for _, entry := range answer.Entries {
		seen.Append(entry.Key, string(entry.Value))
	}
	return same(seen, sent, "")
}

func headersAndTrailers(ctx context.Context, s subject) error {
	sent := metadata.Pairs("x-text", "one", "x-text", "two", "x-raw-bin", binary)
	var headers, trailers metadata.MD
	_, err := s.echo.EchoMetadata(metadata.NewOutgoingContext(ctx, sent), &echo.Payload{},
		grpc.Header(&headers), grpc.Trailer(&trailers))
	if err != nil {
		return err
	}
	if err := same(headers, sent, ""); err != nil {
		return fmt.Errorf("headers: %w", err)
	}
	if err := same(trailers, sent, "trailing-"); err != nil {
		return fmt.Errorf("trailers: %w", err)
	}
	return nil
}

func same(got, want metadata.MD, prefix string) error {
	for key, values := range want {
		if !slices.Equal(got.Get(prefix+key), values) {
			return fmt.Errorf("%s is %q, want %q", prefix+key, got.Get(prefix+key), values)
		}
	}
	return nil
}

func statusDetails(ctx context.Context, s subject) error {
	const message = "no such thing: 50 % of ünïcödé\nand a second line"
	_, err := s.echo.Fail(ctx, &echo.FailRequest{Code: int32(codes.NotFound), Message: message, Details: []string{"a", "b"}})
	failure := status.Convert(err)
	if failure.Code() != codes.NotFound || failure.Message() != message {
		return fmt.Errorf("got %v %q", failure.Code(), failure.Message())
	}
	var details []string
	for _, detail := range failure.Details() {
		if text, ok := detail.(*wrapperspb.StringValue); ok {
			details = append(details, text.Value)
		}
	}
	if !slices.Equal(details, []string{"a", "b"}) {
		return fmt.Errorf("details are %q", details)
	}
	return nil
}

func everyCode(ctx context.Context, s subject) error {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		_, err := s.echo.Fail(ctx, &echo.FailRequest{Code: int32(code), Message: "asked for"})
		if err := wantCode(err, code); err != nil {
			return err
		}
	}
	return nil
}

// deadlinePassedOn asks the plugin how much time it was told that the call has.
func deadlinePassedOn(ctx context.Context, s subject) error {
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer, err := s.echo.TimeLeft(limited, &echo.Payload{})
	if err != nil {
		return err
	}
	if answer.Milliseconds == 0 || answer.Milliseconds > 5000 {
		return fmt.Errorf("the plugin sees %d ms left of 5000", answer.Milliseconds)
	}
	return nil
}

func unknownMethod(ctx context.Context, s subject) error {
	err := s.connection.Invoke(ctx, "/patchbay.test.v1.Echo/Nonsense", &emptypb.Empty{}, &emptypb.Empty{})
	return wantCode(err, codes.Unimplemented)
}

func unknownService(ctx context.Context, s subject) error {
	err := s.connection.Invoke(ctx, "/no.such.Service/Method", &emptypb.Empty{}, &emptypb.Empty{})
	return wantCode(err, codes.Unimplemented)
}

func health(ctx context.Context, s subject) error {
	answer, err := healthpb.NewHealthClient(s.connection).Check(ctx, &healthpb.HealthCheckRequest{Service: "plugin"})
	if err != nil {
		return err
	}
	if answer.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("it says %v", answer.Status)
	}
	return nil
}

func reflectionV1(ctx context.Context, s subject) error {
	stream, err := reflectionv1.NewServerReflectionClient(s.connection).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{ListServices: "*"}})
	if err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	var names []string
	for _, service := range answer.GetListServicesResponse().GetService() {
		names = append(names, service.Name)
	}
	return lists(names)
}

func reflectionV1Alpha(ctx context.Context, s subject) error {
	stream, err := reflectionv1alpha.NewServerReflectionClient(s.connection).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&reflectionv1alpha.ServerReflectionRequest{
		MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{ListServices: "*"}})
	if err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	var names []string
	for _, service := range answer.GetListServicesResponse().GetService() {
		names = append(names, service.Name)
	}
	return lists(names)
}

func lists(names []string) error {
	if !slices.Contains(names, echo.Echo_ServiceDesc.ServiceName) {
		return fmt.Errorf("the services are %q", names)
	}
	return nil
}

// shutdownIsKept asks the plugin to end as a stock host does when it closes.
func shutdownIsKept(ctx context.Context, s subject) error {
	before, err := s.control.WhoAmI(ctx, &echo.Nothing{})
	if err != nil {
		return err
	}
	err = s.connection.Invoke(ctx, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	if err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	after, err := s.control.WhoAmI(ctx, &echo.Nothing{})
	if err != nil {
		return fmt.Errorf("after shutdown: %w", err)
	}
	// Process ids repeat in containers; the count of calls does not.
	if after.Pid != before.Pid || after.Calls <= before.Calls {
		return fmt.Errorf("another process answers: %v, before %v", after, before)
	}
	return nil
}

func brokerIsKept(ctx context.Context, s subject) error {
	stream, err := s.connection.NewStream(ctx,
		&grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/plugin.GRPCBroker/StartStream")
	if err == nil {
		err = stream.RecvMsg(&emptypb.Empty{})
	}
	return wantCode(err, codes.Unimplemented)
}
