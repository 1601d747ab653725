package main

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

type document = map[string]any

// kubeletTick is how often the kubelet looks at its containers. A start is seen at such a tick,
// and so is the end of the pod before, with which a round begins: without a pause that differs
// from round to round, everybody would begin right after a tick, and a few milliseconds could
// look like a second. The pauses spread the beginnings evenly over the time between two ticks.
const kubeletTick = time.Second

// model is the Plugin whose pod the bare pods are copied from; it lives through all rounds.
const model = "model"

// clusters are those that cleanUp has to look after.
var clusters struct {
	sync.Mutex
	opened []*cluster
}

// open connects and makes a namespace, which is removed by cleanUp, also when the program is
// interrupted.
func open(namespace string) (*cluster, error) {
	c, err := connect(namespace)
	if err != nil {
		return nil, err
	}
	clusters.Lock()
	clusters.opened = append(clusters.opened, c)
	clusters.Unlock()
	return c, c.makeNamespace()
}

func cleanUp() {
	clusters.Lock()
	defer clusters.Unlock()
	for _, c := range clusters.opened {
		_ = c.do(http.MethodDelete, "/api/v1/namespaces/"+c.namespace, nil, nil)
		c.close()
	}
	clusters.opened = nil
}

// measureCluster compares how long a Plugin and a bare pod of the same shape take to be ready,
// and looks at the operator's memory.
func measureCluster(s settings) ([]row, error) {
	c, err := open("bench-ready")
	if err != nil {
		return nil, err
	}
	c.follow(pods, plugins)
	if _, err := c.startPlugin(s, model); err != nil {
		return nil, err
	}
	resident, note := c.operatorMemory(s)
	bare, err := c.copyModel()
	if err != nil {
		return nil, err
	}
	var ours, peer timelines
	rounds := s.fewer(0.6)
	for round := range rounds {
		progress("cluster", round, rounds)
		name := fmt.Sprintf("round-%d", round)
		pause := kubeletTick * time.Duration(round) / time.Duration(rounds)
		turns := []func() error{
			func() error {
				time.Sleep(pause)
				seen, err := c.startPlugin(s, name)
				ours = append(ours, seen)
				return errors.Join(err, c.remove(plugins, name))
			},
			func() error {
				time.Sleep(pause)
				seen, err := c.startBare(bare, name)
				peer = append(peer, seen)
				return errors.Join(err, c.remove(pods, name))
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
	if err := c.remove(plugins, model); err != nil {
		return nil, err
	}
	ready := comparedByMedian("created until Ready, as a watching client sees it", "ms",
		ours.until("Plugin ready", "pod ready"), "bare pod", peer.until("pod ready"), addsAtMost(500))
	ready.Note = fmt.Sprintf("medians in ms since the creation\n  Plugin:   %s\n  bare pod: %s", ours, peer)
	operator := alone("operator's resident memory, a few Plugins", "MiB", resident, atMost(16))
	operator.Note = note
	return []row{ready, operator}, nil
}

// makeNamespace replaces what an interrupted run left.
func (c *cluster) makeNamespace() error {
	if err := c.removeNamespace(); err != nil {
		return err
	}
	return c.do(http.MethodPost, "/api/v1/namespaces", document{"metadata": document{"name": c.namespace}}, nil)
}

// removeNamespace returns when it is gone, so that whatever is measured next has the cluster for
// itself.
func (c *cluster) removeNamespace() error {
	where := "/api/v1/namespaces/" + c.namespace
	err := c.do(http.MethodDelete, where, nil, nil)
	for deadline := time.Now().Add(waits); err == nil && time.Now().Before(deadline); time.Sleep(glance) {
		err = c.do(http.MethodGet, where, nil, nil)
	}
	switch {
	case err == nil:
		return fmt.Errorf("removing the namespace %s: it does not go", c.namespace)
	case errors.Is(err, errAbsent):
		return nil
	}
	return err
}

// steps of a start in their order. Of a bare pod the last does not exist.
var steps = []string{"pod there", "scheduled", "sidecar running", "plugin running", "pod ready", "Plugin ready"}

// timeline says when each step was first seen, since the creation was asked for.
type timeline map[string]time.Duration

func (t timeline) see(began time.Time, e event) {
	note := func(step string, done bool) {
		if _, known := t[step]; done && !known {
			t[step] = e.at.Sub(began)
		}
	}
	if e.kind == plugins {
		note("Plugin ready", e.object.is("Ready"))
		return
	}
	running := func(all []container) bool {
		return len(all) > 0 && all[0].State.Running != nil
	}
	note("pod there", true)
	note("scheduled", e.object.is("PodScheduled"))
	note("sidecar running", running(e.object.Status.Sidecars))
	note("plugin running", running(e.object.Status.Plugins))
	note("pod ready", e.object.is("Ready"))
}

// startPlugin creates a Plugin and returns when it is ready.
func (c *cluster) startPlugin(s settings, name string) (timeline, error) {
	manifest := document{
		"apiVersion": "patchbay.dev/v1alpha1", "kind": "Plugin", "metadata": document{"name": name},
		"spec": document{
			"image": s.images + "/example-kv-go:v1", "command": []string{"/kv"}, "workingDir": "/tmp",
			"protocol": document{"goPlugin": document{
				"cookie": document{"key": "BASIC_PLUGIN", "value": "hello"}, "versions": []int{1},
			}},
			// Rounds wait for pods to go; nobody calls these plugins while they stop.
			"shutdown": document{"drainSeconds": 0},
		},
	}
	seen, began := timeline{}, time.Now()
	if err := c.do(http.MethodPost, plugins.in(c.namespace), manifest, nil); err != nil {
		return nil, err
	}
	return seen, c.until("the Plugin "+name+" is ready", func(e event) bool {
		if e.kind == plugins && e.object.Metadata.Name == name || e.object.Metadata.Labels["patchbay.dev/plugin"] == name {
			seen.see(began, e)
		}
		return seen["Plugin ready"] > 0 && seen["pod ready"] > 0
	})
}

// remove deletes an object and returns when no pod of it is left.
func (c *cluster) remove(what kind, name string) error {
	if err := c.do(http.MethodDelete, what.in(c.namespace)+"/"+name, nil, nil); err != nil {
		return err
	}
	// The order of the two watches is not given.
	gone := map[kind]bool{plugins: what == pods}
	return c.until(name+" is gone", func(e event) bool {
		own := e.object.Metadata.Name
		if e.kind == pods && what == plugins {
			own = e.object.Metadata.Labels["patchbay.dev/plugin"]
		}
		if own == name && e.what == "DELETED" {
			gone[e.kind] = true
		}
		return gone[plugins] && gone[pods]
	})
}

// operatorMemory looks at the operator's process where it runs on this machine; otherwise it
// returns why there is no number.
func (c *cluster) operatorMemory(s settings) (series, string) {
	_, pid, err := c.operator(s)
	if err != nil {
		return nil, err.Error()
	}
	size, err := residentMiB(pid)
	if err != nil {
		return nil, err.Error()
	}
	return series{size}, ""
}

// operator finds a pod of the operator that runs on this machine, and its process.
func (c *cluster) operator(s settings) (name string, pid int, err error) {
	var list objects
	err = c.do(http.MethodGet, pods.in(s.operator)+"?labelSelector=app.kubernetes.io/component=operator", nil, &list)
	if err != nil {
		return "", 0, err
	}
	for _, pod := range list.Items {
		if pid := processOf(pod.Metadata.UID, "patchbay-operator"); pid != 0 {
			return pod.Metadata.Name, pid, nil
		}
	}
	return "", 0, errors.New("not measured: none of the operator's processes runs on this machine")
}

// timelines are the rounds of one side.
type timelines []timeline

// until is the time at which all of the steps had been seen, in ms.
func (t timelines) until(names ...string) series {
	var all series
	for _, one := range t {
		latest := time.Duration(0)
		for _, name := range names {
			latest = max(latest, one[name])
		}
		all = append(all, float64(latest.Microseconds())/1000)
	}
	return all
}

func (t timelines) String() string {
	var told []string
	for _, step := range steps {
		if at := t.until(step).median(); at > 0 {
			told = append(told, fmt.Sprintf("%s %.0f", step, at))
		}
	}
	return strings.Join(told, " · ")
}
