package main

import (
	"context"
	"errors"
	"fmt"
)

// status prints what runs. It changes nothing and waits for nothing.
func status(ctx context.Context, l Layout) error {
	record, known := readClusterRecord(l)
	if !known {
		return errNotRunning
	}
	fmt.Printf("state:      %s\n", l.Dir)
	fmt.Printf("kubeconfig: %s\n", l.adminKubeconfig())
	broken := 0
	for i := len(stopOrder) - 1; i >= 0; i-- {
		name := stopOrder[i]
		r, ok := readRecord(l, name)
		switch {
		case !ok:
			fmt.Printf("  %-24s never started\n", name)
			broken++
		case !r.alive():
			fmt.Printf("  %-24s ended (was process %d; log %s)\n", name, r.PID, l.log(name))
			broken++
		case r.paused():
			fmt.Printf("  %-24s paused (process %d)\n", name, r.PID)
			broken++
		default:
			fmt.Printf("  %-24s process %d\n", name, r.PID)
		}
	}
	if record.Phase != phaseUp || record.BootID != bootID() {
		return errors.New("the cluster's start was cut off; `cluster up` makes a new one")
	}
	if broken != 0 {
		return fmt.Errorf("%d parts do not run; `cluster up` makes them run again", broken)
	}
	now, err := wanted(l)
	if err != nil {
		return err
	}
	if now.hash != record.Hash {
		return errors.New("the cluster was started with another configuration; `cluster up` recreates it")
	}
	api, err := newAPIClient(l)
	if err != nil {
		return err
	}
	now.api = api
	if err := now.whole(ctx); err != nil {
		return err
	}
	fmt.Println("the node is Ready")
	return nil
}
