package main

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// series is one number of each round.
type series []float64

// median is the middle value, or the mean of the two in the middle.
func (s series) median() float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

// String shows the median and between which values the rounds lie.
func (s series) String() string {
	switch len(s) {
	case 0:
		return ""
	case 1:
		return digits(s[0])
	}
	return fmt.Sprintf("%s [%s..%s]", digits(s.median()), digits(slices.Min(s)), digits(slices.Max(s)))
}

// MarshalJSON keeps every round, so that a reader can compute what we did not.
func (s series) MarshalJSON() ([]byte, error) {
	if len(s) == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(map[string]any{
		"median": s.median(), "min": slices.Min(s), "max": slices.Max(s), "rounds": []float64(s),
	})
}

// digits shows about three significant digits.
func digits(value float64) string {
	switch size := math.Abs(value); {
	case size >= 100:
		return fmt.Sprintf("%.0f", value)
	case size >= 10:
		return fmt.Sprintf("%.1f", value)
	case size >= 1:
		return fmt.Sprintf("%.2f", value)
	default:
		return fmt.Sprintf("%.3f", value)
	}
}

// pairwise combines the values of the same round.
func pairwise(ours, peers series, combine func(ours, peer float64) float64) series {
	combined := make(series, 0, len(ours))
	for round := range min(len(ours), len(peers)) {
		combined = append(combined, combine(ours[round], peers[round]))
	}
	return combined
}

func difference(ours, peer float64) float64 { return ours - peer }

func quotient(ours, peer float64) float64 { return ours / peer }
