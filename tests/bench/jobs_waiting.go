package main

import (
	"fmt"
	"time"
)

// waiting is how many Jobs wait for their start.
const waiting = 10000

// measureWaiting looks at the operator's memory before and after many Jobs came whose start is far
// away. Once: memory that was freed is used again, so a second round would show less.
func (b *jobBench) measureWaiting() ([]row, error) {
	what := fmt.Sprintf("operator's resident memory for %d waiting Jobs", waiting)
	if b.operatorPid == 0 {
		return []row{{What: what, Unit: "MiB", Note: b.elsewhere}}, nil
	}
	progress("jobs, memory", 0, 1)
	before, err := b.settledMemory()
	if err != nil {
		return nil, err
	}
	tomorrow := time.Now().Add(24 * time.Hour)
	if err := b.submit([]string{lone}, "wait", waiting, func(int) time.Time { return tomorrow }); err != nil {
		return nil, err
	}
	if err := b.accepted(); err != nil {
		return nil, err
	}
	after, err := b.settledMemory()
	if err != nil {
		return nil, err
	}
	resident := alone(what, "MiB", series{after - before}, shown())
	resident.Note = fmt.Sprintf("%s MiB before and %s MiB after, once, when the operator had nothing left to do", digits(before), digits(after))
	return []row{resident}, b.clear("wait", waiting)
}

func (b *jobBench) settledMemory() (float64, error) {
	if err := quiet(b.operatorPid); err != nil {
		return 0, err
	}
	return residentMiB(b.operatorPid)
}
