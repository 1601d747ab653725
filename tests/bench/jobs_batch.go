package main

import (
	"fmt"
	"net/http"
	"slices"
	"time"
)

const (
	// piecework is how many Jobs of each kind are done in a round.
	piecework = 20
	// pieceRounds are few, because twenty pods take their time.
	pieceRounds = 3
)

// measureBatch compares Jobs that a running plugin does with batch jobs whose pods do the same, in
// the same image: they look at the clock and print it.
func (b *jobBench) measureBatch() ([]row, error) {
	var ours, peer series
	for round := range pieceRounds {
		progress("jobs, batch", round, pieceRounds)
		turns := []func() error{
			func() error {
				rate, err := b.complete(jobs, func(i int) document { return stamp(lone, nameOf("piece", i), time.Time{}) })
				ours = append(ours, rate)
				if err != nil {
					return err
				}
				return b.clear("piece", piecework)
			},
			func() error {
				rate, err := b.complete(batchJobs, b.batchJob)
				peer = append(peer, rate)
				if err != nil {
					return err
				}
				return b.clearBatch()
			},
		}
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, turn := range turns {
			if err := turn(); err != nil {
				return nil, err
			}
		}
	}
	pieces := compared("Jobs completed by a Plugin of one replica with one worker", "1/s", ours, "batch/v1 Jobs", peer, shown())
	pieces.Note = fmt.Sprintf("%d of each kind in each of %d rounds, from the first creation until the last is seen complete; "+
		"both read the clock in Python, the batch jobs in a pod of their own without sidecar", piecework, pieceRounds)
	return []row{pieces}, nil
}

// complete creates objects and returns how many per second were complete.
func (b *jobBench) complete(what kind, manifest func(int) document) (float64, error) {
	b.follow(what)
	defer b.follow()
	// A watch may begin after the creation: it then tells of it just so.
	began := time.Now()
	err := each(piecework, func(i int) error {
		return b.do(http.MethodPost, what.in(b.namespace), manifest(i), nil)
	})
	if err != nil {
		return 0, err
	}
	all := map[string]bool{}
	err = b.until(fmt.Sprintf("%d %s are complete", piecework, what.base), func(e event) bool {
		if e.object.is("Complete") {
			all[e.object.Metadata.Name] = true
		}
		return len(all) == piecework
	})
	return piecework / time.Since(began).Seconds(), err
}

// batchJob is a pod that does what the plugin does, once.
func (b *jobBench) batchJob(i int) document {
	return document{
		"apiVersion": "batch/v1", "kind": "Job", "metadata": document{"name": nameOf("piece", i)},
		"spec": document{
			"backoffLimit": 0,
			"template": document{
				"metadata": document{"labels": document{"bench": "batch"}},
				"spec": document{
					"restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
					"terminationGracePeriodSeconds": 0,
					"containers": []document{{
						"name": "piece", "image": b.s.images + "/patchbay-python:v1",
						"command": []string{"python3", "-c", `import time; print("%.6f" % time.time())`},
					}},
				},
			},
		},
	}
}

// clearBatch returns when the pods are gone, too.
func (b *jobBench) clearBatch() error {
	err := each(piecework, func(i int) error {
		return b.do(http.MethodDelete, batchJobs.in(b.namespace)+"/"+nameOf("piece", i)+"?propagationPolicy=Background", nil, nil)
	})
	if err != nil {
		return err
	}
	return b.none(pods, "labelSelector", "bench=batch")
}
