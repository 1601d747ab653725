package main

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Entry is a line of a diary: a job reached a plugin.
type Entry struct {
	ID       string  `json:"id"`
	Time     float64 `json:"time"`
	Location string  `json:"location"`
	Client   string  `json:"client"`
	Pod      string  `json:"pod"`
	PID      int     `json:"pid"`
}

// Verdict counts what was seen and names what must not be.
type Verdict struct {
	Jobs        int            `json:"jobs"`
	Deliveries  int            `json:"deliveries"`
	Claims      int            `json:"claims"`
	Writes      int            `json:"auditedWrites"`
	Ended       map[string]int `json:"ended"`
	Duplicates  []string       `json:"duplicates"`
	Expired     []string       `json:"expired"`
	TooEarly    []string       `json:"tooEarly"`
	Wrong       []string       `json:"wrongClient"`
	Inversions  []string       `json:"inversions"`
	Unaccounted []string       `json:"unaccounted"`
	Backwards   []string       `json:"phasesBackwards"`
}

// Kept says whether every guarantee was kept.
func (v *Verdict) Kept() bool {
	return len(v.Duplicates)+len(v.Expired)+len(v.TooEarly)+len(v.Wrong)+
		len(v.Inversions)+len(v.Unaccounted)+len(v.Backwards) == 0
}

func (v *Verdict) text() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d jobs, %d claims, %d deliveries, %d audited status writes\n", v.Jobs, v.Claims, v.Deliveries, v.Writes)
	var ends []string
	for end, count := range v.Ended {
		ends = append(ends, fmt.Sprintf("%s %d", end, count))
	}
	sort.Strings(ends)
	fmt.Fprintf(&out, "ended: %s\n", strings.Join(ends, ", "))
	for _, part := range []struct {
		name  string
		found []string
	}{
		{"duplicates", v.Duplicates}, {"expired", v.Expired}, {"too early", v.TooEarly},
		{"wrong client", v.Wrong}, {"inversions", v.Inversions},
		{"unaccounted", v.Unaccounted}, {"phases backwards", v.Backwards},
	} {
		fmt.Fprintf(&out, "%-17s %d\n", part.name, len(part.found))
		for i, one := range part.found {
			if i == 5 {
				fmt.Fprintf(&out, "    and %d more\n", len(part.found)-5)
				break
			}
			fmt.Fprintf(&out, "    %s\n", one)
		}
	}
	return out.String()
}

func judge(h *history, entries []Entry) *Verdict {
	v := &Verdict{Jobs: len(h.jobs), Deliveries: len(entries), Writes: h.writes, Ended: map[string]int{}}
	delivered := map[string][]Entry{}
	for _, entry := range entries {
		delivered[entry.ID] = append(delivered[entry.ID], entry)
	}
	for _, j := range sorted(h.jobs) {
		v.deliveries(j, delivered[j.uid])
		v.accounts(j, delivered[j.uid])
		v.directions(j)
		delete(delivered, j.uid)
	}
	for id := range delivered {
		v.Unaccounted = append(v.Unaccounted, fmt.Sprintf("a diary holds job %s, which the API server never had", id))
	}
	for _, a := range h.audits {
		if j := h.jobs[a.uid]; j == nil || !j.has(a.version) && !h.inGap(a.version) {
			v.Unaccounted = append(v.Unaccounted, fmt.Sprintf("the audit log holds a write of job %s at %d, the chronicle does not", a.uid, a.version))
		}
	}
	v.order(h)
	return v
}

func (j *job) has(at uint64) bool {
	for _, v := range j.versions {
		if v.at == at {
			return true
		}
	}
	return j.deleted != 0
}

// deliveries judges what reached plugins: once, in time, and by the right client.
func (v *Verdict) deliveries(j *job, got []Entry) {
	if len(got) > 1 && !j.atLeastOnce {
		v.Duplicates = append(v.Duplicates, fmt.Sprintf("%s reached plugins %d times: %v", j.name, len(got), got))
	}
	if claims := len(j.claims()); j.atLeastOnce && len(got) > claims {
		v.Duplicates = append(v.Duplicates, fmt.Sprintf("%s reached plugins %d times with %d claims", j.name, len(got), claims))
	}
	for _, entry := range got {
		when := time.UnixMicro(int64(entry.Time * 1e6))
		// Plugins and leader share this machine's clock; the limit is the latest that it ever was.
		if expire := j.latestExpire(); expire != nil && !when.Before(*expire) {
			v.Expired = append(v.Expired, fmt.Sprintf("%s expired at %s and reached a plugin at %s", j.name, expire.Format(time.RFC3339Nano), when.Format(time.RFC3339Nano)))
		}
		if when.Before(j.start) {
			v.TooEarly = append(v.TooEarly, fmt.Sprintf("%s starts at %s and reached a plugin at %s", j.name, j.start.Format(time.RFC3339Nano), when.Format(time.RFC3339Nano)))
		}
		if j.location != "" && entry.Client != "" && entry.Client != j.location {
			v.Wrong = append(v.Wrong, fmt.Sprintf("%s is for %s and reached %s", j.name, j.location, entry.Client))
		}
	}
}

func (j *job) latestExpire() *time.Time {
	var latest *time.Time
	for i := range j.versions {
		e := j.versions[i].expire
		if e == nil {
			return nil
		}
		if latest == nil || e.After(*latest) {
			latest = e
		}
	}
	return latest
}

// accounts judges whether a job's end fits what reached plugins.
func (v *Verdict) accounts(j *job, got []Entry) {
	claims := j.claims()
	v.Claims += len(claims)
	last := j.last()
	word := last.phase
	if last.reason != "" {
		word += "/" + last.reason
	}
	v.Ended[word]++
	wrong := func(text string) {
		v.Unaccounted = append(v.Unaccounted, fmt.Sprintf("%s (%s): %s", j.name, word, text))
	}
	switch {
	case j.deleted == 0 && !terminal(last.phase):
		wrong("it has not ended")
	case last.phase == "Succeeded" && len(got) == 0:
		wrong("it succeeded and no plugin ever had it")
	case len(got) > 0 && len(claims) == 0:
		wrong("a plugin had it without a claim")
	case last.phase == "Failed" && last.reason == "Expired" && len(got) > 0 && !j.atLeastOnce:
		wrong("it expired unclaimed and a plugin had it")
	}
	holders := map[string]bool{}
	for _, c := range claims {
		holders[c.claim.HolderPod] = true
	}
	for _, entry := range got {
		if entry.Pod != "" && !holders[entry.Pod] {
			wrong(fmt.Sprintf("pod %s had it and never held a claim", entry.Pod))
		}
	}
}

// directions judges that nothing left an end.
func (v *Verdict) directions(j *job) {
	for i := 1; i < len(j.versions); i++ {
		before, after := j.versions[i-1], j.versions[i]
		if terminal(before.phase) && after.phase != before.phase {
			v.Backwards = append(v.Backwards, fmt.Sprintf("%s went from %s to %s at %d", j.name, before.phase, after.phase, after.at))
		}
		if before.phase == "Ready" && after.phase == "Waiting" {
			v.Backwards = append(v.Backwards, fmt.Sprintf("%s went from Ready to Waiting at %d", j.name, after.at))
		}
	}
}

// order looks for inversions: an eligible job with an earlier start, visible at the version that
// the leader had observed, neither held nor in flight, that was passed over.
func (v *Verdict) order(h *history) {
	byPlugin := map[string][]*job{}
	for _, j := range sorted(h.jobs) {
		byPlugin[j.plugin] = append(byPlugin[j.plugin], j)
	}
	for _, jobs := range byPlugin {
		sort.SliceStable(jobs, func(i, k int) bool { return jobs[i].start.Before(jobs[k].start) })
		for _, chosen := range jobs {
			for _, c := range chosen.claims() {
				v.passedOver(jobs, chosen, c)
			}
		}
	}
}

func (v *Verdict) passedOver(jobs []*job, chosen *job, c *version) {
	observed, err := c.claim.observed()
	if err != nil {
		v.Inversions = append(v.Inversions, fmt.Sprintf("%s: its claim observed %q, which is no resource version", chosen.name, c.claim.ObservedVersion))
		return
	}
	for _, other := range jobs {
		if !other.start.Before(chosen.start) {
			return
		}
		if other == chosen || !other.fits(c.claim.ClientLocation) {
			continue
		}
		// Ended long before: the usual case, decided without a search.
		if last := other.last(); terminal(last.phase) && last.at <= observed {
			continue
		}
		then := other.at(observed)
		if then == nil || then.suspend || (then.phase != "Ready" && then.phase != "Waiting") {
			continue
		}
		if then.phase == "Waiting" && then.reason != "StartTimeInFuture" {
			continue
		}
		now := c.claim.ClaimedAt
		if other.start.After(now) || (then.expire != nil && !now.Before(*then.expire)) {
			continue
		}
		if other.inFlight(c.claim) {
			continue
		}
		v.Inversions = append(v.Inversions, fmt.Sprintf("%s (start %s) was claimed at %d, having observed %d, while %s (start %s) was eligible",
			chosen.name, chosen.start.Format(time.RFC3339Nano), c.at, observed, other.name, other.start.Format(time.RFC3339Nano)))
		return
	}
}

// fits says whether a plugin that asked for this client could have had the job.
func (j *job) fits(client string) bool {
	return client == "" || j.location == "" || j.location == client
}

// landing is how long after a refusal a job may still count as in flight: the leader reads it back.
const landing = 2 * time.Second

// inFlight says whether the leader had chosen the job before it made this claim, and did not know
// yet what became of it. The times of claims do not tell: each attempt to write one is stamped anew.
func (j *job) inFlight(c *claim) bool {
	for _, other := range j.claims() {
		if at, err := c.observed(); err == nil && other.at > at && other.claim.chosenBefore(c) {
			return true
		}
	}
	for _, tried := range j.tried {
		if tried.chosenBefore(c) && c.ClaimedAt.Before(tried.answered.Add(landing)) {
			return true
		}
	}
	return false
}

// chosenBefore compares two choices: sequences grow with every choice of one term, and a later
// term, which begins to count anew, has observed more than all before it.
func (c *claim) chosenBefore(other *claim) bool {
	mine, err := c.observed()
	its, err2 := other.observed()
	return err == nil && err2 == nil && c.Sequence < other.Sequence && mine <= its
}

func (c *claim) observed() (uint64, error) { return strconv.ParseUint(c.ObservedVersion, 10, 64) }

func sorted(jobs map[string]*job) []*job {
	all := make([]*job, 0, len(jobs))
	for _, j := range jobs {
		if len(j.versions) > 0 {
			all = append(all, j)
		}
	}
	sort.Slice(all, func(i, k int) bool { return all[i].uid < all[k].uid })
	return all
}
