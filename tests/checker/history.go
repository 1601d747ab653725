package main

import (
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"time"
)

// object is as much of a Job as a judge needs.
type object struct {
	Metadata struct {
		Name              string    `json:"name"`
		Namespace         string    `json:"namespace"`
		UID               string    `json:"uid"`
		ResourceVersion   string    `json:"resourceVersion"`
		CreationTimestamp time.Time `json:"creationTimestamp"`
	} `json:"metadata"`
	Spec struct {
		PluginRef struct {
			Name string `json:"name"`
		} `json:"pluginRef"`
		Target struct {
			Client string `json:"client"`
			Port   string `json:"port"`
		} `json:"target"`
		StartTime      *time.Time `json:"startTime"`
		ExpireTime     *time.Time `json:"expireTime"`
		Suspend        bool       `json:"suspend"`
		DeliveryPolicy string     `json:"deliveryPolicy"`
	} `json:"spec"`
	Status struct {
		Phase  string `json:"phase"`
		Reason string `json:"reason"`
		Claim  *claim `json:"claim"`
	} `json:"status"`
}

type claim struct {
	ClaimID         string    `json:"claimId"`
	Sequence        int64     `json:"sequence"`
	ObservedVersion string    `json:"observedResourceVersion"`
	HolderPod       string    `json:"holderPod"`
	HolderPodUID    string    `json:"holderPodUID"`
	ClaimedAt       time.Time `json:"claimedAt"`
	ClientLocation  string    `json:"clientLocation"`
}

// version is one state of a Job, from its resource version on.
type version struct {
	at      uint64
	phase   string
	reason  string
	suspend bool
	expire  *time.Time
	claim   *claim
}

// job is the life of one Job, by uid.
type job struct {
	name, uid, plugin, location, port string
	start                             time.Time
	atLeastOnce                       bool
	versions                          []version
	deleted                           uint64
	// Claims that were tried and refused.
	tried []attempt
}

// attempt is a claim that the API server refused, and when.
type attempt struct {
	claim
	answered time.Time
}

type history struct {
	namespace string
	jobs      map[string]*job
	writes    int
	// The first version that the chronicle holds. It begins without Jobs: what the audit log tells of
	// before belongs to another run in a namespace of the same name.
	first  uint64
	audits []audited
	gaps   []gap
}

// audited is a write that the API server has logged.
type audited struct {
	uid     string
	version uint64
}

// gap is what no watch could deliver: an API server that was started again knows no older versions.
type gap struct{ from, to uint64 }

func (h *history) inGap(version uint64) bool {
	for _, g := range h.gaps {
		if g.from < version && version <= g.to {
			return true
		}
	}
	return false
}

func newHistory(namespace string) *history {
	return &history{namespace: namespace, jobs: map[string]*job{}}
}

// hear takes one line of the chronicle.
func (h *history) hear(line []byte) error {
	var event struct {
		Type   string `json:"type"`
		Object object `json:"object"`
		From   string `json:"from"`
		To     string `json:"to"`
	}
	if err := json.Unmarshal(line, &event); err != nil {
		return err
	}
	if event.Type == "GAP" {
		from, err := strconv.ParseUint(event.From, 10, 64)
		if err != nil {
			return err
		}
		to, err := strconv.ParseUint(event.To, 10, 64)
		h.gaps = append(h.gaps, gap{from, to})
		return err
	}
	return h.add(event.Type == "DELETED", &event.Object)
}

// add puts in one version of a Job.
func (h *history) add(deleted bool, seen *object) error {
	if seen.Metadata.Namespace != h.namespace || seen.Metadata.UID == "" {
		return nil
	}
	at, err := strconv.ParseUint(seen.Metadata.ResourceVersion, 10, 64)
	if err != nil {
		return fmt.Errorf("job %s has the resource version %q", seen.Metadata.Name, seen.Metadata.ResourceVersion)
	}
	if h.first == 0 || at < h.first {
		h.first = at
	}
	known := h.jobs[seen.Metadata.UID]
	if known == nil {
		start := seen.Metadata.CreationTimestamp
		if seen.Spec.StartTime != nil {
			start = *seen.Spec.StartTime
		}
		known = &job{
			name:        seen.Metadata.Name,
			uid:         seen.Metadata.UID,
			plugin:      seen.Spec.PluginRef.Name,
			location:    seen.Spec.Target.Client,
			port:        seen.Spec.Target.Port,
			start:       start,
			atLeastOnce: seen.Spec.DeliveryPolicy == "AtLeastOnce",
		}
		h.jobs[seen.Metadata.UID] = known
	}
	if deleted {
		known.deleted = at
		return nil
	}
	for _, v := range known.versions {
		if v.at == at {
			// A watch that was opened again repeats what it lists.
			return nil
		}
	}
	known.versions = append(known.versions, version{
		at: at, phase: seen.Status.Phase, reason: seen.Status.Reason,
		suspend: seen.Spec.Suspend, expire: seen.Spec.ExpireTime, claim: seen.Status.Claim,
	})
	if n := len(known.versions); n > 1 && known.versions[n-2].at > at {
		sort.Slice(known.versions, func(i, j int) bool { return known.versions[i].at < known.versions[j].at })
	}
	return nil
}

// hearAudit takes one line of the audit log.
func (h *history) hearAudit(line []byte) error {
	var event struct {
		Verb           string    `json:"verb"`
		StageTimestamp time.Time `json:"stageTimestamp"`
		ObjectRef      struct {
			Resource, Subresource, Namespace, Name, UID, APIGroup string
		} `json:"objectRef"`
		ResponseStatus struct {
			Code int `json:"code"`
		} `json:"responseStatus"`
		RequestObject *object `json:"requestObject"`
		// A Job, or why not.
		ResponseObject json.RawMessage `json:"responseObject"`
	}
	if err := json.Unmarshal(line, &event); err != nil {
		return err
	}
	ref := event.ObjectRef
	if ref.Resource != "jobs" || ref.APIGroup != "patchbay.dev" || ref.Namespace != h.namespace {
		return nil
	}
	if ref.Subresource != "status" || event.RequestObject == nil {
		return nil
	}
	switch code := event.ResponseStatus.Code; {
	case code == 200 && event.ResponseObject != nil:
		var written object
		if err := json.Unmarshal(event.ResponseObject, &written); err != nil {
			return err
		}
		at, err := strconv.ParseUint(written.Metadata.ResourceVersion, 10, 64)
		if err != nil {
			return err
		}
		if at < h.first {
			return nil
		}
		h.writes++
		h.audits = append(h.audits, audited{written.Metadata.UID, at})
		if h.inGap(at) {
			return h.add(false, &written)
		}
	case code != 200 && event.RequestObject.Status.Claim != nil:
		uid := event.RequestObject.Metadata.UID
		if uid == "" {
			uid = ref.UID
		}
		if known := h.jobs[uid]; known != nil {
			known.tried = append(known.tried, attempt{*event.RequestObject.Status.Claim, event.StageTimestamp})
		}
	}
	return nil
}

// at is the state of the job at a resource version; nil before its creation and after its end.
func (j *job) at(resourceVersion uint64) *version {
	if j.deleted != 0 && j.deleted <= resourceVersion {
		return nil
	}
	var found *version
	for i := range j.versions {
		if j.versions[i].at > resourceVersion {
			break
		}
		found = &j.versions[i]
	}
	return found
}

// last is the newest state.
func (j *job) last() *version { return &j.versions[len(j.versions)-1] }

// claims are the versions that begin a claim, in order.
func (j *job) claims() []*version {
	var found []*version
	before := ""
	for i := range j.versions {
		v := &j.versions[i]
		id := ""
		if v.claim != nil && (v.phase == "Claimed" || v.phase == "Running" || terminal(v.phase)) {
			id = v.claim.ClaimID
		}
		if id != "" && id != before {
			found = append(found, v)
		}
		before = id
	}
	return found
}

func terminal(phase string) bool {
	return phase == "Succeeded" || phase == "Failed" || phase == "Invalid"
}
