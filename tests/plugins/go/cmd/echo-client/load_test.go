package main

import (
	"errors"
	"testing"
	"time"
)

func TestSummaryCountsAnswersErrorsAndTheLongestGap(t *testing.T) {
	ms := time.Millisecond
	report := summarize([]sample{
		{ended: 100 * ms, took: 1 * ms},
		{ended: 200 * ms, took: 2 * ms},
		{ended: 300 * ms, took: 90 * ms, err: errors.New("lost")},
		{ended: 700 * ms, took: 3 * ms},
	}, 1000*ms)
	if report.Calls != 4 || report.OK != 3 || report.Errors["Unknown"] != 1 {
		t.Fatalf("counts are wrong: %+v", report)
	}
	if report.LongestGapMs != 500 {
		t.Errorf("the longest gap is %v ms, want 500", report.LongestGapMs)
	}
	if report.P50 != 2000 || report.Max != 3000 || report.Throughput != 3 {
		t.Errorf("times are wrong: %+v", report)
	}
}

func TestASummaryWithoutAnswersIsOneGap(t *testing.T) {
	if gap := summarize(nil, time.Second).LongestGapMs; gap != 1000 {
		t.Errorf("the gap is %v ms, want 1000", gap)
	}
}
