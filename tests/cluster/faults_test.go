package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAPausedProcessIsToldFromARunningOne(t *testing.T) {
	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		child.Process.Kill() //nolint:errcheck // it sleeps
		child.Wait()         //nolint:errcheck // killed on purpose
	}()
	record, err := recordOf(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	l := Layout{Dir: t.TempDir()}
	if err := os.Mkdir(l.pids(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(l.recordPath("sleep"), record); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if resumed, err := resume(ctx, l, "sleep", "missing"); err != nil || len(resumed) != 0 || record.paused() {
		t.Errorf("a running process counts as paused: %v, %v", resumed, err)
	}
	if err := record.signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	err = await(ctx, "the stop", 10*time.Second, time.Millisecond, func() error {
		if !record.paused() {
			return errors.New("it still runs")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !record.alive() {
		t.Error("a paused process counts as ended")
	}
	if resumed, err := resume(ctx, l, "sleep"); err != nil || !slices.Equal(resumed, []string{"sleep"}) || record.paused() {
		t.Errorf("it does not go on: %v, %v", resumed, err)
	}
}

func TestEveryBootOfTheNodeHasAnIdentityOfItsOwn(t *testing.T) {
	l := Layout{Dir: t.TempDir()}
	if err := os.Mkdir(filepath.Dir(l.bootID()), 0o700); err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for range 20 {
		id, err := writeBootID(l)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(l.bootID()); err != nil || string(text) != id+"\n" {
			t.Fatalf("the file holds %q, %v", text, err)
		}
		if !form.MatchString(id) || seen[id] {
			t.Errorf("identity %q", id)
		}
		seen[id] = true
	}
}

func TestAnswersOfJobsAreWrittenDownBeforeTheRestIsCutShort(t *testing.T) {
	text, err := auditPolicy()
	if err != nil {
		t.Fatal(err)
	}
	var policy struct {
		Rules []struct {
			Level     string
			Verbs     []string
			Resources []struct {
				Group     string
				Resources []string
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &policy); err != nil {
		t.Fatal(err)
	}
	// As the API server does: the first rule that fits.
	level := func(verb, group, resource string) string {
		for _, r := range policy.Rules {
			fits := len(r.Resources) == 0
			for _, g := range r.Resources {
				fits = fits || g.Group == group && (len(g.Resources) == 0 || slices.Contains(g.Resources, resource))
			}
			if fits && (len(r.Verbs) == 0 || slices.Contains(r.Verbs, verb)) {
				return r.Level
			}
		}
		return "None"
	}
	for question, want := range map[[3]string]string{
		{"update", "patchbay.dev", "jobs/status"}:    "RequestResponse",
		{"patch", "patchbay.dev", "jobs"}:            "RequestResponse",
		{"deletecollection", "patchbay.dev", "jobs"}: "RequestResponse",
		{"update", "patchbay.dev", "plugins/status"}: "Metadata",
		{"watch", "patchbay.dev", "jobs"}:            "None",
		{"update", "batch", "jobs"}:                  "None",
		{"create", "", "pods"}:                       "None",
	} {
		if got := level(question[0], question[1], question[2]); got != want {
			t.Errorf("%v: level %s, want %s", question, got, want)
		}
	}
}

// roundTrip answers requests without a connection.
type roundTrip func(path string, body map[string]any) (int, string)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return nil, err
	}
	code, text := f(r.URL.Path, body)
	return &http.Response{StatusCode: code, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

func TestTheAlarmIsRaisedForTheMemberThatAnswers(t *testing.T) {
	alarm := false
	etcd := etcdClient{&http.Client{Transport: roundTrip(func(path string, body map[string]any) (int, string) {
		switch {
		case path == "/v3/maintenance/status":
			return 200, `{"header":{"member_id":"9372538179322589801"}}`
		case path == "/v3/kv/put" && alarm:
			return 429, `{"code":8,"message":"etcdserver: mvcc: database space exceeded"}`
		case path == "/v3/maintenance/alarm" && body["action"] == "GET" && alarm:
			return 200, `{"alarms":[{"memberID":"9372538179322589801","alarm":"NOSPACE"}]}`
		case path == "/v3/maintenance/alarm" && body["action"] != "GET":
			if body["memberID"] != "9372538179322589801" || body["alarm"] != "NOSPACE" {
				return 400, "wrong member"
			}
			alarm = body["action"] == "ACTIVATE"
		}
		return 200, `{}`
	})}}
	ctx := context.Background()
	for _, want := range []bool{true, false} {
		if err := etcd.setFull(ctx, want); err != nil {
			t.Fatal(err)
		}
		if full, err := etcd.full(ctx); err != nil || full != want {
			t.Errorf("full: %v, %v, want %v", full, err, want)
		}
		var refused etcdError
		if err := etcd.write(ctx); errors.As(err, &refused) != want || (err == nil) == want {
			t.Errorf("a write with the alarm %v: %v", want, err)
		}
	}
}
