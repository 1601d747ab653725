package main

import (
	"fmt"
	"slices"
	"time"
)

// repeat calls one after the other and returns mean, median and 99th percentile in
// microseconds.
func repeat(call func() error, calls int) (mean, p50, p99 float64, err error) {
	times := make([]float64, 0, calls)
	sum := 0.0
	for range calls {
		began := time.Now()
		if err := call(); err != nil {
			return 0, 0, 0, fmt.Errorf("calling: %w", err)
		}
		took := since(began)
		times, sum = append(times, took), sum+took
	}
	slices.Sort(times)
	return sum / float64(calls), times[calls/2], times[calls*99/100], nil
}

// since returns microseconds.
func since(began time.Time) float64 {
	return float64(time.Since(began).Nanoseconds()) / 1000
}
