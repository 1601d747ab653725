package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// cluster is the API server through `kubectl proxy`, which understands every kubeconfig, and a
// namespace of our own there.
type cluster struct {
	url       string
	namespace string
	client    *http.Client
	kubectl   *exec.Cmd
	events    chan event
	stop      context.CancelFunc
}

// object is what we look at of pods, Plugins and Jobs.
type object struct {
	Metadata struct {
		Name       string            `json:"name"`
		UID        string            `json:"uid"`
		Generation int64             `json:"generation"`
		Labels     map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		StartTime time.Time `json:"startTime"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
		Claim struct {
			ClaimedAt time.Time `json:"claimedAt"`
		} `json:"claim"`
		Attempt int `json:"attempt"`
		Output  struct {
			Preview string `json:"preview"`
		} `json:"output"`
		ObservedGeneration int64 `json:"observedGeneration"`
		Conditions         []struct {
			Type    string `json:"type"`
			Status  string `json:"status"`
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"conditions"`
		Sidecars []container `json:"initContainerStatuses"`
		Plugins  []container `json:"containerStatuses"`
	} `json:"status"`
}

type container struct {
	Started *bool `json:"started"`
	State   struct {
		Running *struct{} `json:"running"`
	} `json:"state"`
}

// event is what a watch told, and when it arrived here.
type event struct {
	at     time.Time
	kind   kind
	what   string // ADDED, MODIFIED, DELETED
	object object
	broken error // the watch ended
}

// kind is a collection in a namespace.
type kind struct{ base, name string }

var (
	pods    = kind{"/api/v1", "pods"}
	plugins = kind{"/apis/patchbay.dev/v1alpha1", "plugins"}
)

func (k kind) in(namespace string) string {
	return k.base + "/namespaces/" + namespace + "/" + k.name
}

// kubectlCommand speaks to the cluster of KUBECONFIG and CONTEXT.
func kubectlCommand(arguments ...string) *exec.Cmd {
	if name := os.Getenv("CONTEXT"); name != "" {
		arguments = append(arguments, "--context", name)
	}
	return exec.Command("kubectl", arguments...)
}

func connect(namespace string) (*cluster, error) {
	folder, err := os.MkdirTemp("", "kubectl-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	kubectl := kubectlCommand("proxy", "--port=0")
	line, err := firstLine(folder, "kubectl", kubectl)
	if err != nil {
		return nil, err
	}
	address := regexp.MustCompile(`[0-9.]+:[0-9]+$`).FindString(line)
	if address == "" {
		end(kubectl)
		return nil, fmt.Errorf("reading what kubectl printed: there is no address in %q", line)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: abreast}
	return &cluster{
		url: "http://" + address, namespace: namespace, client: &http.Client{Transport: transport},
		kubectl: kubectl, events: make(chan event, 1024), stop: func() {},
	}, nil
}

func (c *cluster) close() {
	c.stop()
	end(c.kubectl)
}

var errAbsent = errors.New("it is not there")

// do sends one request and reads the answer, if an `answer` is given.
func (c *cluster) do(method, path string, body, answer any) error {
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(text)
	}
	request, err := http.NewRequest(method, c.url+path, sent)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.client.Do(request)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
	case response.StatusCode == http.StatusNotFound:
		err = errAbsent
	case response.StatusCode >= 300:
		err = fmt.Errorf("%s: %s", response.Status, text)
	case answer != nil:
		err = json.Unmarshal(text, answer)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// text reads something that is no object, such as a page of metrics.
func (c *cluster) text(path string) (string, error) {
	response, err := c.client.Get(c.url + path)
	if err != nil {
		return "", fmt.Errorf("GET %s: %w", path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	if err != nil {
		return "", fmt.Errorf("GET %s: %w", path, err)
	}
	return string(text), nil
}

// watch sends every change of the kind in the namespace to `events`.
func (c *cluster) watch(ctx context.Context, what kind, events chan<- event) {
	tell := func(e event) {
		select {
		case events <- e:
		case <-ctx.Done():
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		c.url+what.in(c.namespace)+"?watch=1&timeoutSeconds=3600", nil)
	if err != nil {
		tell(event{broken: err})
		return
	}
	response, err := c.client.Do(request)
	if err != nil {
		tell(event{broken: err})
		return
	}
	defer response.Body.Close()
	stream := json.NewDecoder(response.Body)
	for {
		var told struct {
			Type   string `json:"type"`
			Object object `json:"object"`
		}
		if err := stream.Decode(&told); err != nil {
			tell(event{broken: fmt.Errorf("watching %s: %w", what.name, err)})
			return
		}
		tell(event{at: time.Now(), kind: what, what: told.Type, object: told.Object})
	}
}

// follow begins the watches of some kinds and ends those that there were.
func (c *cluster) follow(kinds ...kind) {
	c.stop()
	// What an older watch still has to tell is told to nobody.
	c.events = make(chan event, 1024)
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	for _, what := range kinds {
		go c.watch(ctx, what, c.events)
	}
}

// until hands events to `look` until it says that it has seen enough.
func (c *cluster) until(what string, look func(event) bool) error {
	var last object
	timer := time.NewTimer(2 * time.Minute)
	defer timer.Stop()
	for {
		select {
		case now := <-c.events:
			if now.broken != nil {
				return fmt.Errorf("waiting until %s: %w", what, now.broken)
			}
			if last = now.object; look(now) {
				return nil
			}
		case <-timer.C:
			return fmt.Errorf("waiting until %s: it did not happen; what changed last was %+v", what, last)
		}
	}
}

// is tells whether a condition is true, and speaks of the present spec.
func (o object) is(condition string) bool {
	if o.Status.ObservedGeneration != 0 && o.Status.ObservedGeneration != o.Metadata.Generation {
		return false
	}
	for _, one := range o.Status.Conditions {
		if one.Type == condition {
			return one.Status == "True"
		}
	}
	return false
}

// processOf finds a program of a pod among the processes of this machine; 0 when the pod runs
// elsewhere.
func processOf(uid, program string) int {
	folders, _ := filepath.Glob("/proc/[0-9]*")
	for _, folder := range folders {
		cgroup, _ := os.ReadFile(filepath.Join(folder, "cgroup"))
		first, _ := os.ReadFile(filepath.Join(folder, "cmdline"))
		name, _, _ := bytes.Cut(first, []byte{0})
		if strings.Contains(strings.ReplaceAll(string(cgroup), "_", "-"), uid) && filepath.Base(string(name)) == program {
			var pid int
			_, _ = fmt.Sscanf(filepath.Base(folder), "%d", &pid)
			return pid
		}
	}
	return 0
}
