// Command echo-client calls a plugin as an application would: with grpc-go and nothing else.
//
//	echo-client load  -target T [flags]   calls for a while; prints one JSON object
//	echo-client check -target T [flags]   tries every kind of call; prints a line for each
//
// A target is an absolute socket path, host:port, or any grpc-go target.
package main

import (
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const usage = "usage: echo-client load|check -target TARGET [flags]"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	var err error
	switch os.Args[1] {
	case "load":
		err = runLoad(os.Args[2:])
	case "check":
		err = runChecks(os.Args[2:])
	default:
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo-client:", err)
		os.Exit(1)
	}
}

// dial prepares a connection of its own: grpc-go shares none between clients.
func dial(target string) (*grpc.ClientConn, error) {
	if strings.HasPrefix(target, "/") {
		target = "unix:" + target
	}
	connection, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)))
	if err != nil {
		return nil, fmt.Errorf("preparing %q: %w", target, err)
	}
	return connection, nil
}
