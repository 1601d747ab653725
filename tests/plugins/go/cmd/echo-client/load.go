package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	kv "github.com/hashicorp/go-plugin/examples/grpc/proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"patchbay.dev/tests/plugins/go/echo"
)

// load is what to do.
type load struct {
	target       string
	call         string
	connections  int
	inFlight     int
	rate         float64
	payload      int
	duration     time.Duration
	warmUp       time.Duration
	timeout      time.Duration
	waitForReady bool
}

// Report is what was seen. Times are microseconds unless the name says otherwise.
type Report struct {
	Calls      int            `json:"calls"`
	OK         int            `json:"ok"`
	Errors     map[string]int `json:"errors"`
	FirstError string         `json:"first_error,omitempty"`
	Seconds    float64        `json:"seconds"`
	// Throughput is answered calls per second.
	Throughput float64 `json:"throughput"`
	P50        float64 `json:"p50_us"`
	P90        float64 `json:"p90_us"`
	P99        float64 `json:"p99_us"`
	Max        float64 `json:"max_us"`
	// LongestGapMs is the longest time without an answered call.
	LongestGapMs float64 `json:"longest_gap_ms"`
	// Late counts calls of a given rate that found no free worker at their time.
	Late int `json:"late"`
	// CPUSeconds is what this client itself used.
	CPUSeconds float64 `json:"cpu_seconds"`
}

// sample is one call that was made.
type sample struct {
	ended time.Duration // since the start
	took  time.Duration
	err   error
}

func runLoad(arguments []string) error {
	var l load
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	flags.StringVar(&l.target, "target", "", "where to call")
	flags.StringVar(&l.call, "call", "echo", "echo (Echo.Unary of the fixture) or kv (KV.Get of the examples)")
	flags.IntVar(&l.connections, "connections", 1, "connections")
	flags.IntVar(&l.inFlight, "in-flight", 1, "calls in flight on each connection")
	flags.Float64Var(&l.rate, "rate", 0, "calls per second over all connections; 0 calls as fast as answers come")
	flags.IntVar(&l.payload, "payload", 64, "bytes of payload")
	flags.DurationVar(&l.duration, "duration", 10*time.Second, "how long; a signal ends it before")
	flags.DurationVar(&l.warmUp, "warm-up", 0, "calls before that are made and not counted")
	flags.DurationVar(&l.timeout, "timeout", 10*time.Second, "deadline of each call")
	flags.BoolVar(&l.waitForReady, "wait-for-ready", false, "wait for a connection instead of failing")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if l.connections < 1 || l.inFlight < 1 || l.rate < 0 || l.payload < 0 {
		return errors.New("connections and in-flight are 1 or more, rate and payload not negative")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	report, err := l.run(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

func (l load) run(ctx context.Context) (Report, error) {
	var calls []func(context.Context) error
	for range l.connections {
		connection, err := dial(l.target)
		if err != nil {
			return Report{}, err
		}
		defer connection.Close()
		call, err := l.prepare(ctx, connection)
		if err != nil {
			return Report{}, err
		}
		calls = append(calls, call)
	}
	if l.warmUp > 0 {
		l.drive(ctx, calls, l.warmUp)
	}
	before := cpu()
	samples, late, took := l.drive(ctx, calls, l.duration)
	report := summarize(samples, took)
	report.Late, report.CPUSeconds = late, cpu()-before
	return report, nil
}

// prepare makes the function of one call, and connects.
func (l load) prepare(ctx context.Context, connection *grpc.ClientConn) (func(context.Context) error, error) {
	payload := bytes.Repeat([]byte{'p'}, l.payload)
	options := []grpc.CallOption{grpc.WaitForReady(l.waitForReady)}
	first, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	switch l.call {
	case "echo":
		client, request := echo.NewEchoClient(connection), &echo.Payload{Data: payload}
		call := func(ctx context.Context) error {
			_, err := client.Unary(ctx, request, options...)
			return err
		}
		return call, call(first)
	case "kv":
		client := kv.NewKVClient(connection)
		const key = "load"
		if _, err := client.Put(first, &kv.PutRequest{Key: key, Value: payload}, options...); err != nil {
			return nil, fmt.Errorf("putting the value to get: %w", err)
		}
		return func(ctx context.Context) error {
			_, err := client.Get(ctx, &kv.GetRequest{Key: key}, options...)
			return err
		}, nil
	default:
		return nil, fmt.Errorf("there is no call %q", l.call)
	}
}

// drive calls until the time is over and returns every call, how many started late, and the
// time that it took.
func (l load) drive(ctx context.Context, calls []func(context.Context) error, duration time.Duration) ([]sample, int, time.Duration) {
	start := time.Now()
	workers := len(calls) * l.inFlight
	taken := make([][]sample, workers)
	var turns chan struct{}
	var late int
	var all sync.WaitGroup
	if l.rate > 0 {
		turns = make(chan struct{})
		all.Go(func() { late = l.pace(ctx, turns, start, duration) })
	}
	for worker := range workers {
		call := calls[worker%len(calls)]
		all.Go(func() {
			samples := make([]sample, 0, 1<<14)
			for l.turn(ctx, turns, start, duration) {
				began := time.Now()
				limited, cancel := context.WithTimeout(context.Background(), l.timeout)
				err := call(limited)
				cancel()
				ended := time.Now()
				samples = append(samples, sample{ended: ended.Sub(start), took: ended.Sub(began), err: err})
			}
			taken[worker] = samples
		})
	}
	all.Wait()
	return slices.Concat(taken...), late, time.Since(start)
}

// turn waits for the next call's time; false means that there is none.
func (l load) turn(ctx context.Context, turns <-chan struct{}, start time.Time, duration time.Duration) bool {
	if turns != nil {
		_, more := <-turns
		return more
	}
	return ctx.Err() == nil && time.Since(start) < duration
}

// pace hands out turns at the rate. A turn that nobody takes at its time is given as soon as
// somebody can: the load does not become less because answers are slow.
func (l load) pace(ctx context.Context, turns chan<- struct{}, start time.Time, duration time.Duration) int {
	defer close(turns)
	late := 0
	step := float64(time.Second) / l.rate
	for n := 0; ; n++ {
		due := start.Add(time.Duration(float64(n) * step))
		if due.Sub(start) >= duration {
			return late
		}
		timer := time.NewTimer(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return late
		}
		select {
		case turns <- struct{}{}:
		default:
			late++
			select {
			case turns <- struct{}{}:
			case <-ctx.Done():
				return late
			}
		}
	}
}

func summarize(samples []sample, took time.Duration) Report {
	report := Report{Calls: len(samples), Errors: map[string]int{}, Seconds: took.Seconds()}
	var times, ends []time.Duration
	for _, one := range samples {
		if one.err == nil {
			times, ends = append(times, one.took), append(ends, one.ended)
			continue
		}
		report.Errors[status.Code(one.err).String()]++
		if report.FirstError == "" {
			report.FirstError = one.err.Error()
		}
	}
	slices.Sort(times)
	slices.Sort(ends)
	report.OK = len(times)
	report.Throughput = float64(len(times)) / took.Seconds()
	report.P50, report.P90, report.P99 = quantile(times, 0.5), quantile(times, 0.9), quantile(times, 0.99)
	report.Max = quantile(times, 1)
	last := time.Duration(0)
	longest := took
	if len(ends) > 0 {
		longest = 0
	}
	for _, end := range ends {
		longest = max(longest, end-last)
		last = end
	}
	report.LongestGapMs = float64(max(longest, took-last).Microseconds()) / 1000
	return report
}

// quantile returns microseconds of a sorted list.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	index := min(int(q*float64(len(sorted))), len(sorted)-1)
	return float64(sorted[index].Nanoseconds()) / 1000
}

// cpu returns the processor seconds of this process.
func cpu() float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(usage.Utime) + seconds(usage.Stime)
}
