package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"patchbay.dev/tests/plugins/go/echo"
)

// mostBytes bounds what a caller may ask the fixture to make.
const mostBytes = 256 << 20

type echoService struct{ echo.UnimplementedEchoServer }

func (echoService) Unary(_ context.Context, request *echo.Payload) (*echo.Payload, error) {
	return request, nil
}

func (echoService) ServerStream(request *echo.StreamRequest, stream grpc.ServerStreamingServer[echo.Payload]) error {
	for i := range request.Count {
		if i > 0 {
			if err := pause(stream.Context(), request.IntervalMs); err != nil {
				return err
			}
		}
		if err := stream.Send(request.Payload); err != nil {
			return err
		}
	}
	return nil
}

func (echoService) ClientStream(stream grpc.ClientStreamingServer[echo.Payload, echo.Payload]) error {
	var joined bytes.Buffer
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&echo.Payload{Data: joined.Bytes()})
		}
		if err != nil {
			return err
		}
		if joined.Len()+len(message.Data) > mostBytes {
			return status.Errorf(codes.ResourceExhausted, "more than %d bytes", mostBytes)
		}
		joined.Write(message.Data)
	}
}

func (echoService) Bidi(stream grpc.BidiStreamingServer[echo.Payload, echo.Payload]) error {
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(message); err != nil {
			return err
		}
	}
}

func (echoService) Sleep(ctx context.Context, request *echo.SleepRequest) (*echo.Payload, error) {
	if err := pause(ctx, request.Milliseconds); err != nil {
		return nil, err
	}
	return &echo.Payload{}, nil
}

func (echoService) Big(_ context.Context, request *echo.BigRequest) (*echo.Payload, error) {
	if request.Bytes > mostBytes {
		return nil, status.Errorf(codes.InvalidArgument, "more than %d bytes", mostBytes)
	}
	return &echo.Payload{Data: bytes.Repeat([]byte{'b'}, int(request.Bytes))}, nil
}

func (echoService) Fail(_ context.Context, request *echo.FailRequest) (*echo.Payload, error) {
	failure := status.New(codes.Code(request.Code), request.Message)
	for _, detail := range request.Details {
		more, err := failure.WithDetails(wrapperspb.String(detail))
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "adding a detail: %v", err)
		}
		failure = more
	}
	return nil, failure.Err()
}

func (echoService) EchoMetadata(ctx context.Context, _ *echo.Payload) (*echo.Metadata, error) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	answer := &echo.Metadata{}
	headers, trailers := metadata.MD{}, metadata.MD{}
	keys := make([]string, 0, len(incoming))
	for key := range incoming {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		for _, value := range incoming[key] {
			answer.Entries = append(answer.Entries, &echo.Metadata_Entry{Key: key, Value: []byte(value)})
			// Only what the caller added on purpose goes back as metadata.
			if strings.HasPrefix(key, "x-") {
				headers.Append(key, value)
				trailers.Append("trailing-"+key, value)
			}
		}
	}
	if err := grpc.SetHeader(ctx, headers); err != nil {
		return nil, err
	}
	return answer, grpc.SetTrailer(ctx, trailers)
}

func (echoService) TimeLeft(ctx context.Context, _ *echo.Payload) (*echo.Duration, error) {
	deadline, set := ctx.Deadline()
	if !set {
		return &echo.Duration{}, nil
	}
	return &echo.Duration{Milliseconds: uint32(max(time.Until(deadline).Milliseconds(), 1))}, nil
}

type controlService struct {
	echo.UnimplementedControlServer
	state   *state
	version uint32
}

func (c *controlService) SetHealth(_ context.Context, request *echo.SetHealthRequest) (*echo.Nothing, error) {
	c.state.health.Store(int32(request.State))
	return &echo.Nothing{}, nil
}

func (c *controlService) Print(_ context.Context, request *echo.PrintRequest) (*echo.Nothing, error) {
	for range max(request.Times, 1) {
		switch request.Output {
		case echo.PrintRequest_STDOUT:
			os.Stdout.Write(request.Data)
		case echo.PrintRequest_STDERR:
			os.Stderr.Write(request.Data)
		case echo.PrintRequest_RAW_STDOUT:
			writeAll(1, request.Data)
		case echo.PrintRequest_RAW_STDERR:
			writeAll(2, request.Data)
		}
	}
	return &echo.Nothing{}, nil
}

func (c *controlService) Panic(context.Context, *echo.Nothing) (*echo.Nothing, error) {
	panic("asked to panic")
}

func (c *controlService) Exit(_ context.Context, request *echo.ExitRequest) (*echo.Nothing, error) {
	os.Exit(int(request.Code))
	return nil, nil
}

func (c *controlService) WhoAmI(context.Context, *echo.Nothing) (*echo.Identity, error) {
	return &echo.Identity{Pid: int32(os.Getpid()), Version: c.version, Calls: c.state.calls.Add(1)}, nil
}

// pause waits, or ends with the status of a call that is over before.
func pause(ctx context.Context, milliseconds uint32) error {
	timer := time.NewTimer(time.Duration(milliseconds) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}
