package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"patchbay.dev/tests/plugins/go/echo"
)

func unary(ctx context.Context, s subject) error { return roundTrip(ctx, s, []byte("hello")) }

func largeUnary(ctx context.Context, s subject) error {
	return roundTrip(ctx, s, bytes.Repeat([]byte("0123456789abcdef"), 3<<16))
}

func roundTrip(ctx context.Context, s subject, data []byte) error {
	answer, err := s.echo.Unary(ctx, &echo.Payload{Data: data})
	if err != nil {
		return err
	}
	if !bytes.Equal(answer.Data, data) {
		return fmt.Errorf("%d bytes came back for %d, or other ones", len(answer.Data), len(data))
	}
	return nil
}

func bigResponse(ctx context.Context, s subject) error {
	const size = 20 << 20
	answer, err := s.echo.Big(ctx, &echo.BigRequest{Bytes: size})
	if err != nil {
		return err
	}
	if len(answer.Data) != size {
		return fmt.Errorf("%d bytes came, want %d", len(answer.Data), size)
	}
	return nil
}

func bigRequest(ctx context.Context, s subject) error {
	_, err := s.echo.Unary(ctx, &echo.Payload{Data: make([]byte, 5<<20)})
	return wantCode(err, codes.ResourceExhausted)
}

func manyAtOnce(ctx context.Context, s subject) error {
	failures := make(chan error, 200)
	var all sync.WaitGroup
	for i := range cap(failures) {
		all.Go(func() {
			if err := roundTrip(ctx, s, fmt.Appendf(nil, "call %d", i)); err != nil {
				failures <- err
			}
		})
	}
	all.Wait()
	close(failures)
	return <-failures
}

func serverStream(ctx context.Context, s subject) error {
	stream, err := s.echo.ServerStream(ctx, &echo.StreamRequest{Payload: &echo.Payload{Data: []byte("x")}, Count: 1000})
	if err != nil {
		return err
	}
	count := 0
	for {
		_, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		count++
	}
	if count != 1000 {
		return fmt.Errorf("%d messages came, want 1000", count)
	}
	return nil
}

func serverStreamLive(ctx context.Context, s subject) error {
	began := time.Now()
	stream, err := s.echo.ServerStream(ctx, &echo.StreamRequest{Payload: &echo.Payload{}, Count: 2, IntervalMs: 2000})
	if err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if took := time.Since(began); took > time.Second {
		return fmt.Errorf("the first message took %v: it was held back until the next", took)
	}
	_, err = stream.Recv()
	return err
}

func clientStream(ctx context.Context, s subject) error {
	stream, err := s.echo.ClientStream(ctx)
	if err != nil {
		return err
	}
	var want []byte
	for i := range 100 {
		part := fmt.Appendf(nil, "part %d;", i)
		want = append(want, part...)
		if err := stream.Send(&echo.Payload{Data: part}); err != nil {
			return err
		}
	}
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	if !bytes.Equal(answer.Data, want) {
		return errors.New("the parts came in another order or not all of them")
	}
	return nil
}

func pingPong(ctx context.Context, s subject) error {
	stream, err := s.echo.Bidi(ctx)
	if err != nil {
		return err
	}
	for i := range 50 {
		data := fmt.Appendf(nil, "ping %d", i)
		if err := stream.Send(&echo.Payload{Data: data}); err != nil {
			return err
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if !bytes.Equal(answer.Data, data) {
			return fmt.Errorf("%q came back for %q", answer.Data, data)
		}
	}
	return stream.CloseSend()
}

func halfClose(ctx context.Context, s subject) error {
	stream, err := s.echo.Bidi(ctx)
	if err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("got %v, want the end of the stream", err)
	}
	return nil
}

// slowReader opens a stream of 64 MiB, reads nothing of it, and calls beside it.
func slowReader(ctx context.Context, s subject) error {
	slow, stop := context.WithCancel(ctx)
	defer stop()
	_, err := s.echo.ServerStream(slow, &echo.StreamRequest{Payload: &echo.Payload{Data: make([]byte, 1<<16)}, Count: 1024})
	if err != nil {
		return err
	}
	for range 100 {
		if err := roundTrip(ctx, s, []byte("beside")); err != nil {
			return err
		}
	}
	return nil
}

func deadline(ctx context.Context, s subject) error {
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := s.echo.Sleep(short, &echo.SleepRequest{Milliseconds: 10_000})
	if err := wantCode(err, codes.DeadlineExceeded); err != nil {
		return err
	}
	if took := time.Since(began); took > time.Second {
		return fmt.Errorf("it took %v to end after 0.1 s", took)
	}
	return nil
}

func cancellation(ctx context.Context, s subject) error {
	cancellable, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := s.echo.Sleep(cancellable, &echo.SleepRequest{Milliseconds: 10_000})
		ended <- err
	}()
	// A call that comes back shows that the first one had time to leave.
	if err := unary(ctx, s); err != nil {
		cancel()
		return err
	}
	cancel()
	if err := wantCode(<-ended, codes.Canceled); err != nil {
		return err
	}
	return unary(ctx, s)
}

func streamCancellation(ctx context.Context, s subject) error {
	cancellable, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.echo.ServerStream(cancellable, &echo.StreamRequest{Payload: &echo.Payload{}, Count: 1000, IntervalMs: 1000})
	if err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	cancel()
	_, err = stream.Recv()
	if err := wantCode(err, codes.Canceled); err != nil {
		return err
	}
	return unary(ctx, s)
}

func wantCode(err error, code codes.Code) error {
	if got := status.Code(err); got != code {
		return fmt.Errorf("got %v (%v), want %v", got, err, code)
	}
	return nil
}
