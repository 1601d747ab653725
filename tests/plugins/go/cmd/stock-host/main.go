// Command stock-host is an ordinary host on the unmodified go-plugin library.
//
//	stock-host reattach -addr HOST:PORT|/SOCKET -plugin kv|echo
//	    attaches as to a plugin in test mode, calls, closes; prints one JSON object
//	stock-host spawn -command PROGRAM -plugin kv|echo [-rounds N] [-auto-mtls] [-calls N]
//	    starts the program the ordinary way and measures; prints one JSON object
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/examples/grpc/shared"
	"google.golang.org/grpc"

	"patchbay.dev/tests/plugins/go/echo"
)

const usage = "usage: stock-host reattach|spawn [flags]"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	var answer any
	var err error
	switch os.Args[1] {
	case "reattach":
		answer, err = reattach(os.Args[2:])
	case "spawn":
		answer, err = spawn(os.Args[2:])
	default:
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "stock-host:", err)
		os.Exit(1)
	}
}

// echoPlugin is the host's side of the fixture.
type echoPlugin struct{ plugin.NetRPCUnsupportedPlugin }

func (echoPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("a host serves nothing")
}

func (echoPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, connection *grpc.ClientConn) (any, error) {
	return echo.NewEchoClient(connection), nil
}

// config is what both verbs share. All versions mean the same to this host.
func config(verbose bool) *plugin.ClientConfig {
	set := plugin.PluginSet{"kv": &shared.KVGRPCPlugin{}, "echo": echoPlugin{}}
	level := hclog.Off
	if verbose {
		level = hclog.Trace
	}
	return &plugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			MagicCookieKey:   shared.Handshake.MagicCookieKey,
			MagicCookieValue: shared.Handshake.MagicCookieValue,
		},
		VersionedPlugins: map[int]plugin.PluginSet{1: set, 3: set, 5: set},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           hclog.New(&hclog.LoggerOptions{Level: level, Output: os.Stderr}),
		Stderr:           io.Discard,
	}
}

// caller returns the function of one call to the plugin.
func caller(protocol plugin.ClientProtocol, name string) (func() error, error) {
	raw, err := protocol.Dispense(name)
	if err != nil {
		return nil, fmt.Errorf("dispensing %s: %w", name, err)
	}
	switch service := raw.(type) {
	case shared.KV:
		stored := false
		return func() error {
			if !stored {
				if err := service.Put("stock", []byte("from a stock host")); err != nil {
					return fmt.Errorf("putting: %w", err)
				}
				stored = true
			}
			value, err := service.Get("stock")
			if err == nil && !strings.HasPrefix(string(value), "from a stock host") {
				err = fmt.Errorf("got %q", value)
			}
			return err
		}, nil
	case echo.EchoClient:
		request := &echo.Payload{Data: make([]byte, 64)}
		return func() error {
			answer, err := service.Unary(context.Background(), request)
			if err == nil && len(answer.Data) != len(request.Data) {
				err = fmt.Errorf("%d bytes came back for %d", len(answer.Data), len(request.Data))
			}
			return err
		}, nil
	default:
		return nil, fmt.Errorf("the plugin %s is a %T", name, raw)
	}
}

// attached says how a reattach went.
type attached struct {
	Calls int  `json:"calls"`
	Ping  bool `json:"ping"`
	// CloseError is what the close told, which includes the Shutdown call.
	CloseError string `json:"close_error,omitempty"`
}

func reattach(arguments []string) (attached, error) {
	flags := flag.NewFlagSet("reattach", flag.ExitOnError)
	where := flags.String("addr", "", "host:port or socket path")
	name := flags.String("plugin", "kv", "kv or echo")
	version := flags.Int("version", 1, "interface version that the re-attach record names")
	calls := flags.Int("calls", 3, "calls to make")
	verbose := flags.Bool("v", false, "show the library's log")
	if err := flags.Parse(arguments); err != nil {
		return attached{}, err
	}
	if _, known := config(false).VersionedPlugins[*version]; !known {
		return attached{}, fmt.Errorf("this host does not know version %d", *version)
	}
	address, err := resolve(*where)
	if err != nil {
		return attached{}, fmt.Errorf("reading -addr: %w", err)
	}
	c := config(*verbose)
	// Nothing is negotiated here, so the library looks only at the plain set.
	c.Plugins = c.VersionedPlugins[*version]
	c.Reattach = &plugin.ReattachConfig{
		Protocol: plugin.ProtocolGRPC, ProtocolVersion: *version, Addr: address,
		// The library wants a process to watch. The plugin's is not visible from here.
		Pid: os.Getpid(), Test: true,
	}
	client := plugin.NewClient(c)
	defer client.Kill()
	protocol, err := client.Client()
	if err != nil {
		return attached{}, fmt.Errorf("attaching: %w", err)
	}
	answer := attached{Ping: protocol.Ping() == nil}
	call, err := caller(protocol, *name)
	if err != nil {
		return answer, err
	}
	for range *calls {
		if err := call(); err != nil {
			return answer, fmt.Errorf("calling: %w", err)
		}
		answer.Calls++
	}
	// Closing the protocol is what calls Shutdown; Kill does not in test mode.
	if err := protocol.Close(); err != nil {
		answer.CloseError = err.Error()
	}
	return answer, nil
}

func resolve(where string) (net.Addr, error) {
	if strings.HasPrefix(where, "/") {
		return net.ResolveUnixAddr("unix", where)
	}
	return net.ResolveTCPAddr("tcp", where)
}

// round is one start of the plugin, in microseconds from the start of the process.
type round struct {
	Handshake float64 `json:"handshake_us"`
	FirstCall float64 `json:"first_call_us"`
	// Call is the mean of the further calls, one after the other.
	Call float64 `json:"call_us,omitempty"`
	// P50 and P99 are of those calls.
	P50 float64 `json:"p50_us,omitempty"`
	P99 float64 `json:"p99_us,omitempty"`
}

func spawn(arguments []string) (map[string][]round, error) {
	flags := flag.NewFlagSet("spawn", flag.ExitOnError)
	command := flags.String("command", "", "the plugin's program")
	name := flags.String("plugin", "echo", "kv or echo")
	rounds := flags.Int("rounds", 1, "starts")
	calls := flags.Int("calls", 0, "calls after the first")
	automatic := flags.Bool("auto-mtls", false, "ask for AutoMTLS")
	verbose := flags.Bool("v", false, "show the library's log")
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "stock-host-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	var all []round
	for range *rounds {
		c := config(*verbose)
		c.AutoMTLS = *automatic
		c.Cmd = exec.Command(*command)
		c.Cmd.Dir = folder
		one, err := measure(c, *name, *calls)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return map[string][]round{"rounds": all}, nil
}

func measure(c *plugin.ClientConfig, name string, calls int) (round, error) {
	var one round
	client := plugin.NewClient(c)
	defer client.Kill()
	began := time.Now()
	if _, err := client.Start(); err != nil {
		return one, fmt.Errorf("starting the plugin: %w", err)
	}
	one.Handshake = since(began)
	protocol, err := client.Client()
	if err != nil {
		return one, fmt.Errorf("connecting: %w", err)
	}
	call, err := caller(protocol, name)
	if err != nil {
		return one, err
	}
	if err := call(); err != nil {
		return one, fmt.Errorf("first call: %w", err)
	}
	one.FirstCall = since(began)
	if calls > 0 {
		one.Call, one.P50, one.P99, err = repeat(call, calls)
	}
	return one, err
}
