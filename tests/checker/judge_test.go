package main

import (
	"fmt"
	"strings"
	"testing"
)

// A story is what the three records say; each test tells a broken one and names the finding.
type story struct {
	t *testing.T
	h *history
	d []Entry
}

func newStory(t *testing.T) *story { return &story{t: t, h: newHistory("run")} }

func (s *story) job(uid string, at int, phase, more string) {
	s.t.Helper()
	s.write(uid, at, phase, "", more)
}

func (s *story) write(uid string, at int, phase, reason, more string) {
	s.t.Helper()
	start := "2026-01-01T00:00:0" + uid[len(uid)-1:] + ".000000Z"
	line := fmt.Sprintf(`{"type":"MODIFIED","object":{"metadata":{"name":"job-%s","namespace":"run","uid":"%s","resourceVersion":"%d","creationTimestamp":"2026-01-01T00:00:00Z"},
		"spec":{"pluginRef":{"name":"p"},"startTime":"%s","expireTime":"2026-01-01T01:00:00.000000Z","target":{"client":"10.0.0.1"}},
		"status":{"phase":"%s","reason":"%s"%s}}}`, uid, uid, at, start, phase, reason, more)
	if err := s.h.hear([]byte(strings.ReplaceAll(line, "\n", " "))); err != nil {
		s.t.Fatal(err)
	}
}

func held(sequence, observed int) string {
	return fmt.Sprintf(`,"claim":{"claimId":"c%d","sequence":%d,"observedResourceVersion":"%d","holderPod":"p-0-1","claimedAt":"2026-01-01T00:00:30Z","clientLocation":"10.0.0.1"}`, sequence, sequence, observed)
}

func (s *story) diary(uid string, seconds float64, client string) {
	s.d = append(s.d, Entry{ID: uid, Time: 1767225600 + seconds, Client: client, Pod: "p-0-1"})
}

func (s *story) verdict() *Verdict { return judge(s.h, s.d) }

// good is a job that went its way.
func (s *story) good(uid string, at, sequence int) {
	s.job(uid, at, "Ready", "")
	s.job(uid, at+1, "Claimed", held(sequence, at))
	s.job(uid, at+2, "Succeeded", held(sequence, at))
	s.diary(uid, 31, "10.0.0.1")
}

func TestAGoodRunIsKept(t *testing.T) {
	s := newStory(t)
	s.good("1", 10, 1)
	s.good("2", 20, 2)
	if v := s.verdict(); !v.Kept() {
		t.Fatal(v.text())
	}
}

func TestEveryBrokenGuaranteeIsFound(t *testing.T) {
	cases := map[string]struct {
		tell  func(*story)
		found func(*Verdict) []string
	}{
		"duplicate": {
			func(s *story) { s.good("1", 10, 1); s.diary("1", 32, "10.0.0.1") },
			func(v *Verdict) []string { return v.Duplicates },
		},
		"expired": {
			func(s *story) { s.good("1", 10, 1); s.d[0].Time += 3600 },
			func(v *Verdict) []string { return v.Expired },
		},
		"too early": {
			func(s *story) { s.good("5", 10, 1); s.d[0].Time -= 30 },
			func(v *Verdict) []string { return v.TooEarly },
		},
		"wrong client": {
			func(s *story) { s.good("1", 10, 1); s.d[0].Client = "10.0.0.2" },
			func(v *Verdict) []string { return v.Wrong },
		},
		"inversion": {
			func(s *story) {
				s.job("1", 5, "Ready", "")
				s.good("2", 10, 1)
				s.job("1", 20, "Claimed", held(2, 15))
				s.job("1", 21, "Succeeded", held(2, 15))
				s.diary("1", 40, "10.0.0.1")
			},
			func(v *Verdict) []string { return v.Inversions },
		},
		"not ended": {
			func(s *story) { s.job("1", 10, "Ready", "") },
			func(v *Verdict) []string { return v.Unaccounted },
		},
		"succeeded without delivery": {
			func(s *story) { s.good("1", 10, 1); s.d = nil },
			func(v *Verdict) []string { return v.Unaccounted },
		},
		"delivered without a claim": {
			func(s *story) { s.write("1", 10, "Failed", "Expired", ""); s.diary("1", 5, "10.0.0.1") },
			func(v *Verdict) []string { return v.Unaccounted },
		},
		"foreign diary": {
			func(s *story) { s.good("1", 10, 1); s.diary("9", 5, "10.0.0.1") },
			func(v *Verdict) []string { return v.Unaccounted },
		},
		"out of an end": {
			func(s *story) { s.good("1", 10, 1); s.job("1", 14, "Failed", held(1, 10)) },
			func(v *Verdict) []string { return v.Backwards },
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			c.tell(s)
			v := s.verdict()
			if v.Kept() || len(c.found(v)) == 0 {
				t.Fatalf("not found:\n%s", v.text())
			}
		})
	}
}

func TestAJobInFlightIsNotPassedOver(t *testing.T) {
	s := newStory(t)
	s.job("1", 5, "Ready", "")
	s.job("2", 6, "Ready", "")
	// Both were chosen before either write had come back, and the first was written twice.
	again := strings.Replace(held(1, 5), "00:00:30Z", "00:00:31Z", 1)
	s.job("2", 7, "Claimed", held(2, 6))
	s.job("1", 8, "Claimed", again)
	s.job("1", 9, "Succeeded", again)
	s.job("2", 10, "Succeeded", held(2, 6))
	s.diary("1", 31, "10.0.0.1")
	s.diary("2", 31, "10.0.0.1")
	if v := s.verdict(); !v.Kept() {
		t.Fatal(v.text())
	}
}

func TestTheFirstChoiceOfALaterTermIsNotInFlight(t *testing.T) {
	s := newStory(t)
	s.job("1", 5, "Ready", "")
	s.good("2", 10, 2)
	s.job("1", 20, "Claimed", held(1, 15))
	s.job("1", 21, "Succeeded", held(1, 15))
	s.diary("1", 40, "10.0.0.1")
	if v := s.verdict(); len(v.Inversions) != 1 {
		t.Fatal(v.text())
	}
}

// refusedBefore is a story in which a claim was refused at a time, before another job was claimed.
func refusedBefore(t *testing.T, answered string) *story {
	s := newStory(t)
	s.job("1", 5, "Ready", "")
	s.good("2", 10, 2)
	line := `{"verb":"update","stageTimestamp":"` + answered + `","objectRef":{"resource":"jobs","subresource":"status","namespace":"run","name":"job-1","apiGroup":"patchbay.dev"},"responseStatus":{"code":409},"responseObject":{"kind":"Status","status":"Failure","code":409},
		"requestObject":{"metadata":{"name":"job-1","uid":"1"},"status":{"claim":{"claimId":"c1","sequence":1,"observedResourceVersion":"6","claimedAt":"2026-01-01T00:00:29Z"}}}}`
	if err := s.h.hearAudit([]byte(strings.ReplaceAll(line, "\n", " "))); err != nil {
		t.Fatal(err)
	}
	s.job("1", 20, "Claimed", held(3, 15))
	s.job("1", 21, "Succeeded", held(3, 15))
	s.diary("1", 40, "10.0.0.1")
	return s
}

func TestARefusedAttemptCountsAsInFlight(t *testing.T) {
	if v := refusedBefore(t, "2026-01-01T00:00:29.5Z").verdict(); !v.Kept() {
		t.Fatal(v.text())
	}
}

func TestAnAttemptThatWasRefusedLongAgoExcusesNothing(t *testing.T) {
	v := refusedBefore(t, "2026-01-01T00:00:20Z").verdict()
	if len(v.Inversions) != 1 {
		t.Fatal(v.text())
	}
}

func TestWhatWasWrittenBeforeTheChronicleBeganIsAnothersRun(t *testing.T) {
	s := newStory(t)
	s.good("1", 10, 1)
	line := `{"verb":"update","objectRef":{"resource":"jobs","subresource":"status","namespace":"run","name":"job-1","apiGroup":"patchbay.dev"},"responseStatus":{"code":200},"requestObject":{},"responseObject":{"metadata":{"uid":"0","resourceVersion":"3"}}}`
	if err := s.h.hearAudit([]byte(line)); err != nil {
		t.Fatal(err)
	}
	if v := s.verdict(); !v.Kept() {
		t.Fatal(v.text())
	}
}

func TestAWriteThatNobodySawIsFound(t *testing.T) {
	s := newStory(t)
	s.good("1", 10, 1)
	line := `{"verb":"update","objectRef":{"resource":"jobs","subresource":"status","namespace":"run","name":"job-1","apiGroup":"patchbay.dev"},"responseStatus":{"code":200},"requestObject":{},"responseObject":{"metadata":{"uid":"1","resourceVersion":"99"}}}`
	if err := s.h.hearAudit([]byte(line)); err != nil {
		t.Fatal(err)
	}
	if v := s.verdict(); len(v.Unaccounted) != 1 {
		t.Fatal(v.text())
	}
}

func TestAGapIsFilledFromTheAuditLog(t *testing.T) {
	s := newStory(t)
	s.job("1", 10, "Ready", "")
	if err := s.h.hear([]byte(`{"type":"GAP","from":"10","to":"20"}`)); err != nil {
		t.Fatal(err)
	}
	s.job("1", 12, "Succeeded", held(1, 10))
	s.diary("1", 31, "10.0.0.1")
	line := `{"verb":"update","objectRef":{"resource":"jobs","subresource":"status","namespace":"run","name":"job-1","apiGroup":"patchbay.dev"},"responseStatus":{"code":200},"requestObject":{},
		"responseObject":{"metadata":{"name":"job-1","namespace":"run","uid":"1","resourceVersion":"11"},"spec":{"pluginRef":{"name":"p"}},"status":{"phase":"Claimed"` + held(1, 10) + `}}}`
	if err := s.h.hearAudit([]byte(strings.ReplaceAll(line, "\n", " "))); err != nil {
		t.Fatal(err)
	}
	if v := s.verdict(); !v.Kept() || len(s.h.jobs["1"].versions) != 3 {
		t.Fatal(v.text())
	}
}
