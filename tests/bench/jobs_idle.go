package main

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	// stillness is how long a look at idle workers is.
	stillness = 30 * time.Second
	// looks at them.
	looks = 3
)

// idleLoad of one look, per second.
type idleLoad struct {
	operator, sidecars, plugins float64 // processor seconds
	ourReads, allReads          float64 // GET and LIST that the API server answered
	writes                      float64 // by the operator, without its Lease
}

// measureIdle looks at what it costs that many workers wait and nothing comes.
func (b *jobBench) measureIdle() ([]row, error) {
	before, err := b.look(nil)
	if err != nil {
		return nil, err
	}
	for _, crowd := range crowds {
		if err := b.startHoarder(crowd, crowdPods, crowdThreads, crowdSeconds); err != nil {
			return nil, err
		}
	}
	// The Plugin with one worker is gone, and so is its pod.
	var list objects
	if err := b.do(http.MethodGet, pods.in(b.namespace)+"?labelSelector=patchbay.dev/plugin", nil, &list); err != nil {
		return nil, err
	}
	if b.operatorPid != 0 {
		// Everything that a start brings with it is over.
		if err := b.writesRest(); err != nil {
			return nil, err
		}
	}
	var operator, sidecars, plugins, reads, all, writes series
	for round := range looks {
		progress("jobs, idle", round, looks)
		now, err := b.look(list.Items)
		if err != nil {
			return nil, err
		}
		operator, sidecars, plugins = append(operator, now.operator), append(sidecars, now.sidecars), append(plugins, now.plugins)
		reads, all, writes = append(reads, now.ourReads), append(all, now.allReads), append(writes, now.writes)
	}
	subject := fmt.Sprintf("%d idle workers", workers)
	asked := alone(subject+": GET and LIST of our kinds at the API server", "1/s", reads, atMost(0))
	asked.Note = fmt.Sprintf("%d looks of %s. Of all kinds and by everybody %s/s, and %s/s before the workers came",
		looks, stillness, all, digits(before.allReads))
	if b.operatorPid == 0 {
		return []row{asked, {What: subject + ": processor time", Unit: "s/s", Note: b.elsewhere}}, nil
	}
	ours := alone(subject+": processor time of the operator", "s/s", operator, shown())
	ours.Note = fmt.Sprintf("%s s/s before the workers came", digits(before.operator))
	theirs := alone(fmt.Sprintf("%s: processor time of all %d sidecars", subject, len(list.Items)), "s/s", sidecars, shown())
	theirs.Note = fmt.Sprintf("the plugins' own Python took %s s/s", plugins)
	return []row{ours, theirs, asked, alone(subject+": writes by the operator, without its Lease", "1/s", writes, atMost(0))}, nil
}

// look counts for a while.
func (b *jobBench) look(pods []object) (idleLoad, error) {
	var sidecars, plugins []int
	for _, pod := range pods {
		if pid := processOf(pod.Metadata.UID, "patchbay-sidecar"); pid != 0 {
			sidecars = append(sidecars, pid)
		}
		if pid := processOf(pod.Metadata.UID, "python3"); pid != 0 {
			plugins = append(plugins, pid)
		}
	}
	if b.operatorPid != 0 && (len(sidecars) != len(pods) || len(plugins) != len(pods)) {
		return idleLoad{}, fmt.Errorf("looking for the processes of %d pods: %d sidecars and %d plugins run on this machine",
			len(pods), len(sidecars), len(plugins))
	}
	count := func() (idleLoad, error) {
		var now idleLoad
		page, err := b.text("/metrics")
		if err != nil {
			return now, err
		}
		now.ourReads, now.allReads = reads(page, `group="patchbay.dev"`), reads(page, "")
		if b.operatorPid == 0 {
			return now, nil
		}
		if now.writes, err = b.writes(); err != nil {
			return now, err
		}
		var errs [3]error
		now.operator, errs[0] = cpuOfAll([]int{b.operatorPid})
		now.sidecars, errs[1] = cpuOfAll(sidecars)
		now.plugins, errs[2] = cpuOfAll(plugins)
		return now, errors.Join(errs[:]...)
	}
	before, err := count()
	if err != nil {
		return before, err
	}
	began := time.Now()
	time.Sleep(stillness)
	after, err := count()
	if err != nil {
		return after, err
	}
	took := time.Since(began).Seconds()
	return idleLoad{
		operator: (after.operator - before.operator) / took,
		sidecars: (after.sidecars - before.sidecars) / took,
		plugins:  (after.plugins - before.plugins) / took,
		ourReads: (after.ourReads - before.ourReads) / took,
		allReads: (after.allReads - before.allReads) / took,
		writes:   (after.writes - before.writes) / took,
	}, nil
}

// writes are those of the operator so far, without its Lease.
func (b *jobBench) writes() (float64, error) {
	page, err := b.text(fmt.Sprintf("%s/%s:8080/proxy/metrics", pods.in(b.s.operator), b.operatorPod))
	return sum(page, "patchbay_api_writes_total", func(labels string) bool {
		return !strings.Contains(labels, `kind="leases"`)
	}), err
}

// writesRest returns when the operator has written nothing for some seconds.
func (b *jobBench) writesRest() error {
	last, calm := -1.0, 0
	return b.lookUntil("the operator writes nothing", func() (bool, error) {
		now, err := b.writes()
		if calm++; now != last {
			last, calm = now, 0
		}
		return calm >= 12, err
	})
}

func cpuOfAll(pids []int) (float64, error) {
	total := 0.0
	for _, pid := range pids {
		one, err := cpuSeconds(pid)
		if err != nil {
			return 0, err
		}
		total += one
	}
	return total, nil
}

var reading = regexp.MustCompile(`verb="(GET|LIST)"`)

// reads sums up what the API server answered; `group` is a label that must be there.
func reads(page, group string) float64 {
	return sum(page, "apiserver_request_total", func(labels string) bool {
		return reading.MatchString(labels) && strings.Contains(labels, group)
	})
}

// sum adds the values of a metric over the series that `wanted` says.
func sum(page, metric string, wanted func(labels string) bool) float64 {
	total := 0.0
	for line := range strings.Lines(page) {
		rest, found := strings.CutPrefix(line, metric+"{")
		labels, value, whole := strings.Cut(rest, "} ")
		if found && whole && wanted(labels) {
			one, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			total += one
		}
	}
	return total
}
