package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// checked is how many Jobs the checker judges.
	checked      = 2000
	diary        = "diary"
	diaryPods    = 4
	diaryThreads = 8
)

// locations of clients that diaries ask for in turn; a Job is for one of them or for any.
var locations = [...]string{"10.0.0.1", "10.0.0.2"}

// verdict is what the checker prints, as far as we need it.
type verdict struct {
	Jobs        int      `json:"jobs"`
	Deliveries  int      `json:"deliveries"`
	Claims      int      `json:"claims"`
	Writes      int      `json:"auditedWrites"`
	Duplicates  []string `json:"duplicates"`
	Expired     []string `json:"expired"`
	TooEarly    []string `json:"tooEarly"`
	Wrong       []string `json:"wrongClient"`
	Inversions  []string `json:"inversions"`
	Unaccounted []string `json:"unaccounted"`
	Backwards   []string `json:"phasesBackwards"`
}

// measureChecked lets the checker judge a busy half minute. It is in a namespace of its own, so
// that what the checker reads begins with the first Job. Nothing is killed here: that run belongs
// to the tests.
func measureChecked(s settings) ([]row, error) {
	progress("jobs, checked", 0, 1)
	c, err := open("bench-checked")
	if err != nil {
		return nil, err
	}
	b := &jobBench{cluster: c, s: s}
	folder, err := os.MkdirTemp("", "checked-")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(b.mountCode("diary.py"), b.startDiary()); err != nil {
		return nil, err
	}
	record, err := b.chronicle(filepath.Join(folder, "chronicle"))
	if err != nil {
		return nil, err
	}
	defer record.body.Close()
	began := time.Now()
	err = each(checked, func(i int) error {
		return b.do(http.MethodPost, jobs.in(b.namespace), varied(i, began), nil)
	})
	if err != nil {
		return nil, err
	}
	select {
	case err := <-record.ended:
		if err != nil {
			return nil, fmt.Errorf("recording what becomes of Jobs: %w", err)
		}
	case <-time.After(waits):
		return nil, fmt.Errorf("waiting until %d Jobs have ended: %d have", checked, record.count())
	}
	took := time.Since(began)
	diaries := filepath.Join(folder, "diaries")
	if err := b.collectDiaries(diaries); err != nil {
		return nil, err
	}
	output, err := exec.Command(s.checker, "-json", "-chronicle", filepath.Join(folder, "chronicle"),
		"-audit", s.audit, "-diaries", diaries, "-namespace", b.namespace).Output()
	var found verdict
	// A guarantee that was not kept is an exit code, too, and no reason to stop.
	if broken := json.Unmarshal(output, &found); broken != nil {
		return nil, fmt.Errorf("judging what became of Jobs: %w", errors.Join(err, broken))
	}
	if found.Jobs != checked {
		return nil, fmt.Errorf("judging what became of %d Jobs: the record has %d", checked, found.Jobs)
	}
	kept := alone(fmt.Sprintf("guarantees that the checker finds broken in %d Jobs", checked), "count",
		series{float64(found.breaches())}, atMost(0))
	kept.Note = found.text(took)
	return []row{kept}, b.removeNamespace()
}

func (v verdict) breaches() int {
	return len(v.Duplicates) + len(v.Expired) + len(v.TooEarly) + len(v.Wrong) +
		len(v.Inversions) + len(v.Unaccounted) + len(v.Backwards)
}

func (v verdict) text(took time.Duration) string {
	return fmt.Sprintf("%d Jobs, %d claims, %d deliveries, %d audited writes in %.0f s, without kills: "+
		"%d duplicates, %d expired, %d too early, %d for the wrong client, %d inversions, %d unaccounted, %d phases backwards",
		v.Jobs, v.Claims, v.Deliveries, v.Writes, took.Seconds(),
		len(v.Duplicates), len(v.Expired), len(v.TooEarly), len(v.Wrong), len(v.Inversions), len(v.Unaccounted), len(v.Backwards))
}

// varied is the i-th Job: for some client or any, at once or soon or long due, and a few that may
// expire before their turn.
func varied(i int, now time.Time) document {
	spec := document{"pluginRef": document{"name": diary}, "command": document{"name": "work"}}
	at := func(seconds int) string {
		return now.Add(time.Duration(seconds) * time.Second).UTC().Format("2006-01-02T15:04:05.000000Z")
	}
	if client := i % 3; client < len(locations) {
		spec["target"] = document{"client": locations[client]}
	}
	switch i % 4 {
	case 0:
		spec["startTime"] = at(-i % 60)
	case 1:
		spec["startTime"] = at(i % 20)
	}
	switch i % 20 {
	case 6:
		spec["expireTime"] = at(2 + i%7)
	case 7:
		spec["priority"] = i % 5
	}
	return document{
		"apiVersion": "patchbay.dev/v1alpha1", "kind": "Job", "metadata": document{"name": nameOf("job", i)}, "spec": spec,
	}
}

func (b *jobBench) startDiary() error {
	return b.startController(diary, "Diary", diaryPods, map[string]string{
		"DIARY": "-", "DIARY_THREADS": fmt.Sprint(diaryThreads), "DIARY_LOCATIONS": strings.Join(locations[:], ","),
	})
}

// chronicle writes every version of every Job to a file from now on.
func (b *jobBench) chronicle(path string) (*recording, error) {
	var list struct {
		Metadata struct {
			Version string `json:"resourceVersion"`
		} `json:"metadata"`
	}
	if err := b.do(http.MethodGet, jobs.in(b.namespace)+"?limit=1", nil, &list); err != nil {
		return nil, err
	}
	query := url.Values{"watch": {"1"}, "timeoutSeconds": {"3600"}, "resourceVersion": {list.Metadata.Version}}
	response, err := b.client.Get(b.url + jobs.in(b.namespace) + "?" + query.Encode())
	if err != nil {
		return nil, err
	}
	file, err := os.Create(path)
	if err != nil {
		response.Body.Close()
		return nil, err
	}
	r := &recording{body: response.Body, file: file, done: map[string]bool{}, ended: make(chan error, 1)}
	go func() { r.ended <- r.follow() }()
	return r, nil
}

// recording is a chronicle in the making.
type recording struct {
	body  io.ReadCloser
	file  *os.File
	lock  sync.Mutex
	done  map[string]bool
	ended chan error // when every Job has ended, or why that was not seen
}

func (r *recording) follow() error {
	defer r.file.Close()
	lines := bufio.NewScanner(r.body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var told struct {
			Type   string `json:"type"`
			Object object `json:"object"`
		}
		if err := json.Unmarshal(lines.Bytes(), &told); err != nil {
			return err
		}
		if told.Type == "ERROR" {
			return fmt.Errorf("the watch ended: %s", lines.Text())
		}
		if _, err := fmt.Fprintf(r.file, "%s\n", lines.Bytes()); err != nil {
			return err
		}
		if ends[told.Object.Status.Phase] {
			r.lock.Lock()
			r.done[told.Object.Metadata.Name] = true
			r.lock.Unlock()
		}
		if r.count() == checked {
			return nil
		}
	}
	return errors.Join(lines.Err(), io.ErrUnexpectedEOF)
}

func (r *recording) count() int {
	r.lock.Lock()
	defer r.lock.Unlock()
	return len(r.done)
}

// collectDiaries writes what each plugin wrote down into a file of its own.
func (b *jobBench) collectDiaries(folder string) error {
	if err := os.Mkdir(folder, 0o755); err != nil {
		return err
	}
	var list objects
	if err := b.do(http.MethodGet, pods.in(b.namespace)+"?labelSelector=patchbay.dev/plugin="+diary, nil, &list); err != nil {
		return err
	}
	for _, pod := range list.Items {
		log, err := b.text(pods.in(b.namespace) + "/" + pod.Metadata.Name + "/log?container=plugin")
		if err != nil {
			return err
		}
		var entries strings.Builder
		for line := range strings.Lines(log) {
			// Whatever else the plugin's process says is no entry.
			if strings.HasPrefix(line, `{"id": `) {
				entries.WriteString(line)
			}
		}
		if err := os.WriteFile(filepath.Join(folder, pod.Metadata.Name), []byte(entries.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
