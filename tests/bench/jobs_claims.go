package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// claimed is how many Jobs have the same start in one round.
const claimed = 1500

// replaces is what raw_replaces prints about its rate, as far as we need it.
type replaces struct {
	Count    int     `json:"replaces"`
	InFlight int     `json:"in_flight"`
	Sending  float64 `json:"sending_seconds"`
	Bytes    int     `json:"body_bytes"`
}

// measureClaims lets the start of many Jobs come at once while crowds wait, and then replaces
// the status of the very same Jobs with the operator's client and nothing else around it.
func (b *jobBench) measureClaims() ([]row, error) {
	var ours, delivered, raw series
	var peer replaces
	for round := range b.rounds {
		progress("jobs, claims", round, b.rounds)
		list, err := b.claimAll()
		if err != nil {
			return nil, err
		}
		written, handed, err := claimRates(list)
		if err != nil {
			return nil, err
		}
		ours, delivered = append(ours, written), append(delivered, handed)

		output, err := b.rawReplaces("rate")
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(output, &peer); err != nil || peer.Count != claimed {
			return nil, fmt.Errorf("reading what raw_replaces printed: %q: %w", output, err)
		}
		// Like claims, which are stamped before they are sent: from the first to the last.
		raw = append(raw, float64(peer.Count-1)/peer.Sending)
		if err := b.clear("claim", claimed); err != nil {
			return nil, err
		}
	}
	claims := compared("claims while plugins wait, one durable write each", "1/s",
		ours, "raw replaces", raw, ratioAtLeast(0.85))
	claims.Note = fmt.Sprintf("%d Jobs with one startTime, %d workers, %d rounds; the peer replaces the statuses of the same Jobs, "+
		"%d bytes, %d in flight, by the operator's own client in a process that does nothing else",
		claimed, workers, b.rounds, peer.Bytes, peer.InFlight)
	handed := compared("Jobs in their plugins' hands, from the first claim to the last receipt", "1/s",
		delivered, "raw replaces", raw, shown())
	return []row{claims, handed}, nil
}

// claimAll creates the Jobs early enough that all of them are accepted when their start comes, and
// returns them once they are done.
func (b *jobBench) claimAll() ([]object, error) {
	for lead := 15 * time.Second; lead < 2*time.Minute; lead *= 2 {
		begin := time.Now().Add(lead)
		if err := b.submit(crowds[:], "claim", claimed, func(int) time.Time { return begin }); err != nil {
			return nil, err
		}
		if err := b.accepted(); err != nil {
			return nil, err
		}
		// What acceptance left to do is done by then.
		if time.Until(begin) > 2*time.Second {
			time.Sleep(time.Until(begin))
			// Their order is that of the names where they were created in the same second.
			return b.done(nameOf("claim", claimed-1), claimed)
		}
		if _, err := b.done(nameOf("claim", claimed-1), claimed); err != nil {
			return nil, err
		}
		if err := b.clear("claim", claimed); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%d Jobs are not accepted within a minute", claimed)
}

// accepted returns when every Job has been looked at, or earlier if some have gone on from there.
func (b *jobBench) accepted() error {
	return b.none(jobs, "fieldSelector", "status.phase=")
}

// claimRates are claims per second between the first and the last, and Jobs per second from the
// first claim until the last Job had reached a plugin.
func claimRates(list []object) (written, handed float64, err error) {
	var claims, receipts series
	for _, job := range list {
		came, err := receipt(job)
		if err != nil {
			return 0, 0, err
		}
		claims = append(claims, seconds(job.Status.Claim.ClaimedAt))
		receipts = append(receipts, came)
	}
	first := slices.Min(claims)
	return float64(len(list)-1) / (slices.Max(claims) - first), float64(len(list)) / (slices.Max(receipts) - first), nil
}

// receipt is when the plugin got a Job, as it says, in seconds since 1970.
func receipt(job object) (float64, error) {
	came, err := strconv.ParseFloat(job.Status.Output.Preview, 64)
	if err != nil {
		return 0, fmt.Errorf("reading the output of the Job %s: %w", job.Metadata.Name, err)
	}
	return came, nil
}

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }
