package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// How the load of the calls looks: 64 bytes; a given rate, or as fast as answers come.
const (
	payload  = 64
	inFlight = 64
	rate     = 1000
)

// report is what echo-client prints, as far as we need it. Times are microseconds.
type report struct {
	Calls      int     `json:"calls"`
	OK         int     `json:"ok"`
	FirstError string  `json:"first_error"`
	Throughput float64 `json:"throughput"`
	P50        float64 `json:"p50_us"`
	P99        float64 `json:"p99_us"`
}

// load describes one run of echo-client.
type load struct {
	connections, inFlight int // in flight on each connection
	rate                  int // calls per second; 0 for as fast as answers come
	duration, warmUp      time.Duration
}

func (l load) run(client, target string) (report, error) {
	var seen report
	arguments := []string{client, "load", "-target", target,
		"-payload", strconv.Itoa(payload), "-rate", strconv.Itoa(l.rate),
		"-connections", strconv.Itoa(l.connections), "-in-flight", strconv.Itoa(l.inFlight),
		"-duration", l.duration.String(), "-warm-up", l.warmUp.String()}
	if on, fixed := placed(); fixed {
		arguments = append([]string{"taskset", "-c", strconv.Itoa(on.client)}, arguments...)
	}
	output, err := exec.Command(arguments[0], arguments[1:]...).Output()
	if err != nil {
		return seen, fmt.Errorf("calling %s: %w", target, err)
	}
	if err := json.Unmarshal(output, &seen); err != nil {
		return seen, fmt.Errorf("reading what echo-client printed: %w", err)
	}
	if seen.Calls == 0 || seen.OK != seen.Calls {
		return seen, fmt.Errorf("calling %s: %d of %d calls were answered: %s", target, seen.OK, seen.Calls, seen.FirstError)
	}
	return seen, nil
}

// path is one way to the plugin and what was seen on it, round by round.
type path struct {
	target       string
	pid          int // of the process between client and plugin; 0 for none
	p50, p99     series
	one, many    series // calls per second, on one and on sixteen connections
	perProcessor series // calls per second of the process's own time
	perCall      series // microseconds of the process's own time, at the given rate
}

// measureCalls compares the ways to one plugin process: straight, through the sidecar, and
// through a plain Go proxy.
func measureCalls(s settings) ([]row, error) {
	plugin, err := newPod(s.programs, filepath.Join(s.fixtures, "echo-plugin"))
	if err != nil {
		return nil, err
	}
	defer plugin.close()
	if err := plugin.admit(); err != nil {
		return nil, err
	}
	socket, err := plugin.plugin()
	if err != nil {
		return nil, err
	}
	goProxy := exec.Command(filepath.Join(s.fixtures, "grpc-proxy"), "-target", "unix:"+socket)
	goProxyAddress, err := firstLine(plugin.folder, "grpc-proxy", goProxy)
	if err != nil {
		return nil, err
	}
	defer end(goProxy)

	if on, fixed := placed(); fixed {
		program, err := onlyChild(plugin.launcher)
		err = errors.Join(err, pin(program, on.plugin), pin(plugin.sidecar.Process.Pid, on.proxy), pin(goProxy.Process.Pid, on.proxy))
		if err != nil {
			return nil, err
		}
	}

	direct := &path{target: socket}
	ours := &path{target: plugin.proxy, pid: plugin.sidecar.Process.Pid}
	peer := &path{target: goProxyAddress, pid: goProxy.Process.Pid}
	client := filepath.Join(s.fixtures, "echo-client")
	for round := range s.rounds {
		s.progress("calls", round)
		paths := []*path{direct, ours, peer}
		// Nobody is always the first one after a pause.
		for turn := range paths {
			if err := paths[(round+turn)%len(paths)].round(client, s.slice); err != nil {
				return nil, err
			}
		}
	}
	added := "call through the sidecar, 1 000/s, 64 B"
	busy := "calls answered, 64 in flight, 64 B"
	return []row{
		compared(added+": p50", "ms", ours.p50, "straight", direct.p50, addsAtMost(0.2)),
		compared(added+": p99", "ms", ours.p99, "straight", direct.p99, addsAtMost(0.75)),
		compared(busy+", one connection", "1/s", ours.one, "straight", direct.one, ratioAtLeast(0.6)),
		compared(busy+", sixteen connections", "1/s", ours.many, "straight", direct.many, ratioAtLeast(0.5)),
		compared("calls per processor second of the proxy, 64 in flight", "1/s",
			ours.perProcessor, "Go proxy", peer.perProcessor, ratioAtLeast(2)),
		// Others on the machine lengthen a call, and hardly what it costs.
		compared("processor time of the proxy for a call, 1 000/s, 64 B", "µs", ours.perCall, "Go proxy", peer.perCall, shown()),
	}, nil
}

func (p *path) round(client string, slice time.Duration) error {
	idle, err := p.fineProcessor()
	if err != nil {
		return err
	}
	paced, err := load{connections: 1, inFlight: 16, rate: rate, duration: slice, warmUp: slice / 5}.run(client, p.target)
	if err != nil {
		return err
	}
	if p.pid != 0 {
		used, err := p.fineProcessor()
		if err != nil {
			return err
		}
		calls := rate * (slice + slice/5).Seconds() // those of the warm-up cost as well
		p.perCall = append(p.perCall, float64((used-idle).Microseconds())/calls)
	}
	p.p50, p.p99 = append(p.p50, paced.P50/1000), append(p.p99, paced.P99/1000)

	before, err := p.processor()
	if err != nil {
		return err
	}
	// Without warm-up: every call that costs is counted.
	one, err := load{connections: 1, inFlight: inFlight, duration: slice}.run(client, p.target)
	if err != nil {
		return err
	}
	after, err := p.processor()
	if err != nil {
		return err
	}
	p.one = append(p.one, one.Throughput)
	if p.pid != 0 {
		p.perProcessor = append(p.perProcessor, float64(one.OK)/(after-before))
	}

	many, err := load{connections: 16, inFlight: inFlight / 16, duration: slice}.run(client, p.target)
	p.many = append(p.many, many.Throughput)
	return err
}

func (p *path) fineProcessor() (time.Duration, error) {
	if p.pid == 0 {
		return 0, nil
	}
	return processorTime(p.pid)
}

func (p *path) processor() (float64, error) {
	if p.pid == 0 {
		return 0, nil
	}
	return cpuSeconds(p.pid)
}
