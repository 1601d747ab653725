package main

import (
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// abreast is how many requests we have in flight when the order does not matter.
	abreast = 32
	// glance is the pause between two looks at something that nothing tells us of.
	glance = 250 * time.Millisecond
	// waits is the longest wait for many objects.
	waits = 5 * time.Minute
)

// ends are the phases that a Job stays in.
var ends = map[string]bool{"Succeeded": true, "Failed": true, "Invalid": true}

// objects is a list.
type objects struct {
	Items []object `json:"items"`
}

// each calls `do` with 0 to count-1, many at a time, and returns its first error.
func each(count int, do func(int) error) error {
	var (
		workers sync.WaitGroup
		next    atomic.Int64
		broken  atomic.Pointer[error]
	)
	for range min(abreast, count) {
		workers.Go(func() {
			for broken.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= count {
					return
				}
				if err := do(i); err != nil {
					broken.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	workers.Wait()
	if err := broken.Load(); err != nil {
		return *err
	}
	return nil
}

// nameOf names the i-th Job of a batch, so that the order by name is the order of the numbers.
func nameOf(prefix string, i int) string { return fmt.Sprintf("%s-%05d", prefix, i) }

// submit creates Jobs for some Plugins in turn.
func (b *jobBench) submit(plugins []string, prefix string, count int, start func(int) time.Time) error {
	return each(count, func(i int) error {
		return b.do(http.MethodPost, jobs.in(b.namespace), stamp(plugins[i%len(plugins)], nameOf(prefix, i), start(i)), nil)
	})
}

// stamp is a Job whose output will be the time at which the plugin got it. The zero start is none.
func stamp(plugin, name string, start time.Time) document {
	spec := document{"pluginRef": document{"name": plugin}, "command": document{"name": "stamp"}}
	if !start.IsZero() {
		spec["startTime"] = start.UTC().Format("2006-01-02T15:04:05.000000Z")
	}
	return document{
		"apiVersion": "patchbay.dev/v1alpha1", "kind": "Job", "metadata": document{"name": name}, "spec": spec,
	}
}

// done returns the Jobs of the namespace once they have ended; all of them must have succeeded,
// in their first attempt. `last` is the one that is expected to end last: the others are not
// looked at before it, because looking costs the API server.
func (b *jobBench) done(last string, count int) ([]object, error) {
	err := b.lookUntil(last+" has ended", func() (bool, error) {
		var job object
		err := b.do(http.MethodGet, jobs.in(b.namespace)+"/"+last, nil, &job)
		return ends[job.Status.Phase], err
	})
	if err != nil {
		return nil, err
	}
	if err := b.none(jobs, "fieldSelector", "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Invalid"); err != nil {
		return nil, err
	}
	var list objects
	if err := b.do(http.MethodGet, jobs.in(b.namespace), nil, &list); err != nil {
		return nil, err
	}
	if len(list.Items) != count {
		return nil, fmt.Errorf("reading %d Jobs: there are %d", count, len(list.Items))
	}
	for _, job := range list.Items {
		if job.Status.Phase != "Succeeded" || job.Status.Attempt != 1 {
			return nil, fmt.Errorf("the Job %s is %s in attempt %d: %+v",
				job.Metadata.Name, job.Status.Phase, job.Status.Attempt, job.Status.Conditions)
		}
	}
	return list.Items, nil
}

// clear deletes what submit made.
func (b *jobBench) clear(prefix string, count int) error {
	err := each(count, func(i int) error {
		return b.do(http.MethodDelete, jobs.in(b.namespace)+"/"+nameOf(prefix, i), nil, nil)
	})
	if err != nil {
		return err
	}
	return b.none(jobs, "", "")
}

// none returns when no object is selected any more.
func (c *cluster) none(what kind, selector, value string) error {
	query := url.Values{"limit": {"1"}}
	if selector != "" {
		query.Set(selector, value)
	}
	where := what.in(c.namespace) + "?" + query.Encode()
	return c.lookUntil(fmt.Sprintf("there are no %s with %s", what.name, value), func() (bool, error) {
		var list objects
		err := c.do(http.MethodGet, where, nil, &list)
		return len(list.Items) == 0, err
	})
}

func (c *cluster) lookUntil(what string, look func() (bool, error)) error {
	for deadline := time.Now().Add(waits); time.Now().Before(deadline); time.Sleep(glance) {
		if seen, err := look(); seen || err != nil {
			return err
		}
	}
	return fmt.Errorf("waiting until %s: it did not happen", what)
}

// quiet returns when a process has done next to nothing for a while.
func quiet(pid int) error {
	before, err := cpuSeconds(pid)
	calm := 0
	for deadline := time.Now().Add(waits); err == nil && calm < 4 && time.Now().Before(deadline); {
		time.Sleep(glance)
		var now float64
		if now, err = cpuSeconds(pid); now-before > 0.05*glance.Seconds() {
			calm = 0
		} else {
			calm++
		}
		before = now
	}
	if err == nil && calm < 4 {
		err = fmt.Errorf("waiting until process %d has nothing to do: it always has", pid)
	}
	return err
}
