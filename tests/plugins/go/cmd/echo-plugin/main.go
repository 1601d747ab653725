// Command echo-plugin is a real go-plugin plugin for tests. It serves the services of
// ../../../proto/echo.proto and misbehaves as its environment says:
//
//	ECHO_VERSIONS=3,5           interface versions served
//	ECHO_BANNER=text            a line on standard output before the handshake line
//	ECHO_SLEEP_MS=n             wait before serving
//	ECHO_CRASH_AFTER_MS=n       exit with code 3 that long after the start
//	ECHO_NOISE=1                one line on each output and log form at the first call
//	ECHO_FLOOD=n                n bytes each to os.Stdout and os.Stderr at the first call
//	ECHO_HEALTH=NOT_SERVING     what health says at first (also HANG)
//	ECHO_IGNORE_SHUTDOWN=1      answer Shutdown and go on
//	ECHO_HANG_SHUTDOWN=1        never answer Shutdown
//	ECHO_IGNORE_SIGTERM=1       go on after SIGTERM
//	ECHO_TLS_CERT, ECHO_TLS_KEY PEM files of a server certificate (Explicit TLS)
//	ECHO_TLS_CLIENT_CA          PEM file; clients must then show a certificate of it
//	ECHO_TLS_MAX=1.2            highest TLS version with ECHO_TLS_CERT
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"patchbay.dev/tests/plugins/go/echo"
)

// The cookie is that of go-plugin's own example.
const cookieKey, cookieValue = "BASIC_PLUGIN", "hello"

// fixture is the plugin in one of its versions.
type fixture struct {
	plugin.NetRPCUnsupportedPlugin
	state   *state
	version uint32
}

func (f fixture) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	echo.RegisterEchoServer(server, echoService{})
	echo.RegisterControlServer(server, &controlService{state: f.state, version: f.version})
	return nil
}

func (fixture) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

func main() {
	modes, err := modesFromEnvironment()
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo-plugin:", err)
		os.Exit(1)
	}
	if modes.crashAfter > 0 {
		time.AfterFunc(modes.crashAfter, func() { os.Exit(3) })
	}
	if modes.ignoreSigterm {
		signal.Ignore(syscall.SIGTERM)
	}
	if modes.banner != "" {
		fmt.Println(modes.banner)
	}
	// The handshake is late on purpose.
	time.Sleep(modes.sleep)

	state := newState(modes)
	versions := map[int]plugin.PluginSet{}
	for _, version := range modes.versions {
		versions[version] = plugin.PluginSet{"echo": fixture{state: state, version: uint32(version)}}
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  plugin.HandshakeConfig{MagicCookieKey: cookieKey, MagicCookieValue: cookieValue},
		VersionedPlugins: versions,
		TLSProvider:      modes.tlsProvider(),
		GRPCServer: func(options []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(options, grpc.ChainUnaryInterceptor(state.intercept))...)
		},
	})
}
