package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
)

// measureStarts starts the plugin again and again: by an ordinary host, and by launcher and
// sidecar, whose memory is looked at on the way.
func measureStarts(s settings) ([]row, error) {
	var ours, host, idle, busy, launcher series
	plugin := filepath.Join(s.fixtures, "echo-plugin")
	for round := range s.rounds {
		s.progress("starts", round)
		took, err := startByHost(filepath.Join(s.fixtures, "stock-host"), plugin)
		if err != nil {
			return nil, err
		}
		host = append(host, took.Seconds()*1000)
		if took, err = startByPod(s, plugin, func(p *pod) error {
			return memory(s, p, &idle, &busy, &launcher)
		}); err != nil {
			return nil, err
		}
		ours = append(ours, took.Seconds()*1000)
	}
	return []row{
		compared("plugin start, handshake and first call", "ms", ours, "go-plugin host", host, ratioAtMost(1)),
		alone("sidecar's resident memory, plugin ready, session open", "MiB", idle, atMost(8)),
		alone("sidecar's resident memory, 64 calls in flight (largest of the round)", "MiB", busy, atMost(12)),
		alone("launcher's anonymous memory, after those calls", "KiB", launcher, atMost(256)),
	}, nil
}

func startByHost(host, plugin string) (time.Duration, error) {
	output, err := exec.Command(host, "spawn", "-command", plugin, "-plugin", "echo").Output()
	if err != nil {
		return 0, fmt.Errorf("starting the plugin by an ordinary host: %w", err)
	}
	var seen struct {
		Rounds []struct {
			FirstCall float64 `json:"first_call_us"`
		} `json:"rounds"`
	}
	if err := json.Unmarshal(output, &seen); err != nil || len(seen.Rounds) != 1 {
		return 0, fmt.Errorf("reading what stock-host printed: %q: %w", output, err)
	}
	return time.Duration(seen.Rounds[0].FirstCall * 1000), nil
}

// startByPod takes the time from the operator's release to the answer of a client's first call
// on the proxy port. The client connects once the operator hears that the plugin is ready, as
// clients do that wait for a pod.
func startByPod(s settings, plugin string, then func(*pod) error) (time.Duration, error) {
	p, err := newPod(s.programs, plugin)
	if err != nil {
		return 0, err
	}
	defer p.close()
	connection, err := grpc.NewClient("passthrough:///"+p.proxy,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	limited, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// A Payload of the fixture's proto.
	sent := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), make([]byte, payload))
	var got []byte

	began := time.Now()
	if err := p.admit(); err != nil {
		return 0, err
	}
	if err := connection.Invoke(limited, "/patchbay.test.v1.Echo/Unary", &sent, &got); err != nil {
		return 0, fmt.Errorf("the first call: %w\n%s", err, tail(p.folder, "sidecar"))
	}
	took := time.Since(began)

	if data, _ := field(got, 1); len(data) != payload {
		return 0, fmt.Errorf("the first call: %d bytes came back for %d", len(data), payload)
	}
	// What follows is measured without this client's connection.
	if err := connection.Close(); err != nil {
		return 0, err
	}
	return took, then(p)
}

// memory looks at the processes when nothing happens, and while 64 calls are in flight.
func memory(s settings, p *pod, idle, busy, launcher *series) error {
	sidecar := p.sidecar.Process.Pid
	quiet, err := residentMiB(sidecar)
	if err != nil {
		return err
	}
	client := filepath.Join(s.fixtures, "echo-client")
	ended := make(chan error, 1)
	go func() {
		_, err := load{connections: 1, inFlight: inFlight, duration: s.slice}.run(client, p.proxy)
		ended <- err
	}()
	largest := 0.0
	sampling := time.NewTicker(s.slice / 50)
	defer sampling.Stop()
	for running := true; running; {
		select {
		case err := <-ended:
			if err != nil {
				return err
			}
			running = false
		case <-sampling.C:
			now, err := residentMiB(sidecar)
			if err != nil {
				return errors.Join(err, <-ended)
			}
			largest = max(largest, now)
		}
	}
	anonymous, err := kibibytes(p.launcher, "smaps_rollup", "Anonymous")
	if err != nil {
		return err
	}
	*idle, *busy, *launcher = append(*idle, quiet), append(*busy, largest), append(*launcher, anonymous)
	return nil
}
