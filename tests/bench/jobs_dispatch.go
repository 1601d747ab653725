package main

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"
)

const (
	// dispatched Jobs in a round.
	dispatched = 100
	// spacing between two of them is longer than one takes, so that the worker waits again.
	spacing = 200 * time.Millisecond
	// ahead is how early they are created: all are accepted when the first start comes.
	ahead = 5 * time.Second
)

// lowest is what raw_replaces prints about the floor, in milliseconds.
type lowest struct {
	Replace         series `json:"replace_ms"`
	ReplaceAndEvent series `json:"replace_and_event_ms"`
	RoundTrip       series `json:"round_trip_ms"`
}

// measureDispatch takes the time until the only worker, which waits, has a Job: from the start of
// one that is accepted, and from the creation of one that is wanted at once. All stamps are of
// this machine's clock, or nothing is measured.
func (b *jobBench) measureDispatch() ([]row, error) {
	if b.operatorPid == 0 {
		return []row{{What: "dispatch of a Job to a waiting worker", Unit: "ms", Note: b.elsewhere}}, nil
	}
	started, created := latency{}, latency{}
	var floors lowest
	for round := range b.rounds {
		progress("jobs, dispatch", round, b.rounds)
		low, byStart, err := b.dispatchByStart()
		if err != nil {
			return nil, err
		}
		byCreation, err := b.dispatchByCreation()
		if err != nil {
			return nil, err
		}
		// The path of one that is created has a write more: its acceptance.
		one, two := make(series, len(low.Replace)), make(series, len(low.Replace))
		for i := range one {
			one[i] = low.ReplaceAndEvent[i] + low.RoundTrip[i]
			two[i] = one[i] + low.Replace[(i+1)%len(one)]
		}
		started.add(byStart, one)
		created.add(byCreation, two)
		floors.Replace = append(floors.Replace, low.Replace...)
		floors.ReplaceAndEvent = append(floors.ReplaceAndEvent, low.ReplaceAndEvent...)
		floors.RoundTrip = append(floors.RoundTrip, low.RoundTrip...)
	}
	rows := append(started.rows("accepted Job, its start until its waiting plugin has it"),
		created.rows("new Job, the creation's answer until its waiting plugin has it")...)
	rows[0].Note = fmt.Sprintf("%d Jobs in each of %d rounds. The floor is one status replace (median %s ms), its watch event (with it %s ms) "+
		"and a round trip to the API server (%s ms), one at a time by the operator's own client; for a new Job one replace more",
		dispatched, b.rounds, digits(floors.Replace.median()), digits(floors.ReplaceAndEvent.median()), digits(floors.RoundTrip.median()))
	return rows, nil
}

// latency is what was seen, round by round.
type latency struct{ p50, p99, floor50, floor99 series }

func (l *latency) add(ours, floor series) {
	l.p50, l.p99 = append(l.p50, ours.quantile(0.5)), append(l.p99, ours.quantile(0.99))
	l.floor50, l.floor99 = append(l.floor50, floor.quantile(0.5)), append(l.floor99, floor.quantile(0.99))
}

func (l *latency) rows(what string) []row {
	return []row{
		compared(what+": p50", "ms", l.p50, "floor", l.floor50, shown()),
		compared(what+": p99", "ms", l.p99, "floor", l.floor99, ratioAtMost(2)),
	}
}

// dispatchByStart lets the starts of accepted Jobs come one after the other, and finds the floor
// with one of them when all are done.
func (b *jobBench) dispatchByStart() (lowest, series, error) {
	var low lowest
	begin := time.Now().Add(ahead)
	start := func(i int) time.Time { return begin.Add(time.Duration(i) * spacing).Truncate(time.Microsecond) }
	if err := b.submit([]string{lone}, "start", dispatched, start); err != nil {
		return low, nil, err
	}
	if err := b.accepted(); err != nil {
		return low, nil, err
	}
	if !time.Now().Before(begin) {
		return low, nil, fmt.Errorf("accepting %d Jobs took longer than %s", dispatched, ahead)
	}
	time.Sleep(time.Until(start(dispatched)))
	list, err := b.done(nameOf("start", dispatched-1), dispatched)
	if err != nil {
		return low, nil, err
	}
	var took series
	for _, job := range list {
		came, err := receipt(job)
		if err != nil {
			return low, nil, err
		}
		took = append(took, (came-seconds(job.Spec.StartTime))*1000)
	}
	output, err := b.rawReplaces("floor", "--times", strconv.Itoa(dispatched),
		"--pause-ms", strconv.FormatInt(spacing.Milliseconds()/2, 10))
	if err != nil {
		return low, nil, err
	}
	if err := json.Unmarshal(output, &low); err != nil || len(low.Replace) != dispatched {
		return low, nil, fmt.Errorf("reading what raw_replaces printed: %q: %w", output, err)
	}
	return low, took, b.clear("start", dispatched)
}

// dispatchByCreation creates Jobs one by one, each when the one before is done.
func (b *jobBench) dispatchByCreation() (series, error) {
	b.follow(jobs)
	defer b.follow()
	var took series
	for i := range dispatched {
		// The worker's answer has returned to it, and it asks again.
		time.Sleep(spacing / 2)
		name := nameOf("new", i)
		if err := b.do(http.MethodPost, jobs.in(b.namespace), stamp(lone, name, time.Time{}), nil); err != nil {
			return nil, err
		}
		created := seconds(time.Now())
		var job object
		err := b.until("the Job "+name+" has ended", func(e event) bool {
			job = e.object
			return job.Metadata.Name == name && ends[job.Status.Phase]
		})
		if err != nil {
			return nil, err
		}
		if job.Status.Phase != "Succeeded" {
			return nil, fmt.Errorf("the Job %s is %s: %+v", name, job.Status.Phase, job.Status.Conditions)
		}
		came, err := receipt(job)
		if err != nil {
			return nil, err
		}
		took = append(took, (came-created)*1000)
	}
	return took, b.clear("new", dispatched)
}

// quantile is the smallest value that is not exceeded by this share of all.
func (s series) quantile(share float64) float64 {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[max(0, int(math.Ceil(share*float64(len(sorted))))-1)]
}
