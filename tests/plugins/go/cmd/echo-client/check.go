package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"

	"patchbay.dev/tests/plugins/go/echo"
)

// subject is what is checked.
type subject struct {
	connection *grpc.ClientConn
	echo       echo.EchoClient
	control    echo.ControlClient
}

// check is one sentence that has to be true.
type check struct {
	name string
	// sidecar marks what holds behind a sidecar only: a plugin alone does end on Shutdown.
	sidecar bool
	run     func(context.Context, subject) error
}

func runChecks(arguments []string) error {
	flags := flag.NewFlagSet("check", flag.ExitOnError)
	target := flags.String("target", "", "where to call")
	sidecar := flags.Bool("sidecar", false, "the target is a sidecar: also check what it keeps from the plugin")
	only := flags.String("only", "", "run only checks whose name contains this")
	timeout := flags.Duration("timeout", 20*time.Second, "deadline of each check")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	connection, err := dial(*target)
	if err != nil {
		return err
	}
	defer connection.Close()
	s := subject{
		connection: connection,
		echo:       echo.NewEchoClient(connection),
		control:    echo.NewControlClient(connection),
	}
	passed, failed := 0, 0
	for _, c := range checks() {
		if c.sidecar && !*sidecar || !strings.Contains(c.name, *only) {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), *timeout)
		err := c.run(ctx, s)
		cancel()
		if err != nil {
			failed++
			fmt.Printf("FAIL %s: %v\n", c.name, err)
			continue
		}
		passed++
		fmt.Printf("pass %s\n", c.name)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		return fmt.Errorf("%d of %d checks failed", failed, passed+failed)
	}
	return nil
}

func checks() []check {
	return []check{
		{name: "a unary call is answered", run: unary},
		{name: "a unary call of 3 MiB is answered", run: largeUnary},
		{name: "a response of 20 MiB is delivered", run: bigResponse},
		{name: "a request of 5 MiB is refused with ResourceExhausted", run: bigRequest},
		{name: "200 calls at once are answered, each with its own", run: manyAtOnce},
		{name: "a server stream delivers all messages in order", run: serverStream},
		{name: "a server stream delivers each message when it is sent", run: serverStreamLive},
		{name: "a client stream is answered", run: clientStream},
		{name: "a bidirectional stream answers each message before the next", run: pingPong},
		{name: "a bidirectional stream ends after half-close", run: halfClose},
		{name: "a reader that stops reading does not stop other calls", run: slowReader},
		{name: "metadata arrives, text and binary, several values", run: metadataArrives},
		{name: "headers and trailers come back", run: headersAndTrailers},
		{name: "a status has its code, message and details", run: statusDetails},
		{name: "every status code is passed on", run: everyCode},
		{name: "a deadline ends a call", run: deadline},
		{name: "a deadline is told to the plugin", run: deadlinePassedOn},
		{name: "a cancelled call ends", run: cancellation},
		{name: "a cancelled stream ends", run: streamCancellation},
		{name: "an unknown method is Unimplemented", run: unknownMethod},
		{name: "an unknown service is Unimplemented", run: unknownService},
		{name: "health says SERVING for plugin", run: health},
		{name: "reflection v1 lists the services", run: reflectionV1},
		{name: "reflection v1alpha lists the services", run: reflectionV1Alpha},
		{name: "Shutdown is answered and the plugin lives on", sidecar: true, run: shutdownIsKept},
		{name: "the broker is Unimplemented", sidecar: true, run: brokerIsKept},
	}
}
