package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"patchbay.dev/tests/plugins/go/echo"
)

const (
	healthCheck = "/grpc.health.v1.Health/Check"
	shutdown    = "/plugin.GRPCController/Shutdown"
)

// state is what all services of the process share.
type state struct {
	modes  modes
	health atomic.Int32
	calls  atomic.Uint64
	first  sync.Once
	// stderr is the real one, kept before go-plugin replaces the variable.
	stderr *os.File
}

func newState(m modes) *state {
	s := &state{modes: m, stderr: os.Stderr}
	s.health.Store(int32(m.health))
	return s
}

// intercept sees every unary call, go-plugin's own services included: that is the only way to
// their health and shutdown without changing the library.
func (s *state) intercept(ctx context.Context, request any, call *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	// When a call arrives, go-plugin has replaced os.Stdout and os.Stderr already.
	s.first.Do(func() { go s.firstCall() })
	switch {
	case call.FullMethod == healthCheck:
		return s.answerHealth(ctx, request, next)
	case call.FullMethod == shutdown && s.modes.hangShutdown:
		<-ctx.Done()
		return nil, ctx.Err()
	case call.FullMethod == shutdown && s.modes.ignoreShutdown:
		// The library's handler is not asked; its reply is the empty message anyway.
		return new(echo.Nothing), nil
	default:
		return next(ctx, request)
	}
}

func (s *state) answerHealth(ctx context.Context, request any, next grpc.UnaryHandler) (any, error) {
	switch echo.SetHealthRequest_State(s.health.Load()) {
	case echo.SetHealthRequest_NOT_SERVING:
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}, nil
	case echo.SetHealthRequest_HANG:
		<-ctx.Done()
		return nil, ctx.Err()
	default:
		return next(ctx, request)
	}
}

func (s *state) firstCall() {
	if s.modes.noise {
		s.noise()
	}
	if s.modes.flood > 0 {
		var both sync.WaitGroup
		for name, out := range map[string]*os.File{"stdout": os.Stdout, "stderr": os.Stderr} {
			both.Go(func() { flood(out, name, s.modes.flood) })
		}
		both.Wait()
		fmt.Fprintln(s.stderr, "flood done")
	}
}

// noise writes one line in every way that programs use.
func (s *state) noise() {
	fmt.Fprintln(os.Stdout, "noise on os.Stdout")
	fmt.Fprintln(os.Stderr, "noise on os.Stderr")
	writeAll(1, []byte("noise on descriptor 1\n"))
	writeAll(2, []byte("noise on descriptor 2\n"))
	log.New(s.stderr, "", log.LstdFlags).Println("[WARN] noise by the log package")
	fmt.Fprintln(s.stderr, "[INFO] noise with a level")
	logger := hclog.New(&hclog.LoggerOptions{Name: "echo", Level: hclog.Trace, Output: s.stderr, JSONFormat: true})
	for _, level := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn, hclog.Error} {
		logger.Log(level, "noise by hclog", "key", "value", "number", 7)
	}
}

// flood writes lines of 64 bytes that count upward, until `bytes` are written.
func flood(out io.Writer, name string, bytes int) {
	for line := 0; bytes > 0; line++ {
		text := fmt.Sprintf("%s %012d %s\n", name, line, "abcdefghijklmnopqrstuvwxyzabcdefghijklmnop")
		if len(text) > bytes {
			text = text[:bytes]
		}
		if _, err := io.WriteString(out, text); err != nil {
			return
		}
		bytes -= len(text)
	}
}

// writeAll writes to a descriptor past every wrapper. Errors have nowhere to go.
func writeAll(descriptor int, data []byte) {
	for len(data) > 0 {
		n, err := syscall.Write(descriptor, data)
		if err != nil {
			return
		}
		data = data[n:]
	}
}
