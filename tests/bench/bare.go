package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// barePod is a copy of a plugin's pod: the same images, volumes, probes and limits, but its
// programs are ready as soon as they run, and nobody looks after it.
type barePod struct {
	pod, secret document
	// mounted is the volume source that names the secret.
	mounted document
}

// copyModel makes a bare pod from the model's pod.
func (c *cluster) copyModel() (barePod, error) {
	var list struct {
		Items []document `json:"items"`
	}
	if err := c.do(http.MethodGet, pods.in(c.namespace)+"?labelSelector=patchbay.dev/plugin="+model, nil, &list); err != nil {
		return barePod{}, err
	}
	if len(list.Items) != 1 {
		return barePod{}, fmt.Errorf("copying the model's pod: there are %d", len(list.Items))
	}
	metadata, hasMetadata := list.Items[0]["metadata"].(document)
	spec, hasSpec := list.Items[0]["spec"].(document)
	sidecar, hasSidecar := first(spec["initContainers"])
	plugin, hasPlugin := first(spec["containers"])
	mounted := secretOf(spec["volumes"])
	if !hasMetadata || !hasSpec || !hasSidecar || !hasPlugin || mounted == nil {
		return barePod{}, errors.New("copying the model's pod: it has not the shape of a plugin's pod")
	}
	idle(sidecar, plugin)
	delete(spec, "nodeName")

	var secret document
	where := fmt.Sprintf("/api/v1/namespaces/%s/secrets/%s", c.namespace, mounted["secretName"])
	if err := c.do(http.MethodGet, where, nil, &secret); err != nil {
		return barePod{}, err
	}
	return barePod{
		pod: document{
			"apiVersion": "v1", "kind": "Pod", "spec": spec,
			"metadata": document{"annotations": metadata["annotations"]},
		},
		secret: document{
			"apiVersion": "v1", "kind": "Secret", "metadata": document{},
			"type": secret["type"], "data": secret["data"],
		},
		mounted: mounted,
	}, nil
}

// idle replaces what the containers run.
func idle(sidecar, plugin document) {
	// A launcher without sidecar waits for ever. Both share the pod's ports, so they get others.
	waiting := []string{"--proxy-address", "127.0.0.1:0", "--", "nothing"}
	sidecar["command"] = append([]string{"/patchbay-launcher", "--run", "/patchbay/private"}, waiting...)
	plugin["command"] = append([]string{"/patchbay/bin/patchbay-launcher"}, waiting...)
	// Puts the launcher in place the first time, and has nothing to do later.
	atOnce := document{"command": []string{"/patchbay-sidecar", "install"}}
	if lifecycle, found := sidecar["lifecycle"].(document); found {
		for hook := range lifecycle {
			lifecycle[hook] = document{"exec": atOnce}
		}
	}
	for name, value := range sidecar {
		if probe, found := value.(document); found && strings.HasSuffix(name, "Probe") {
			probe["exec"] = atOnce
		}
	}
}

func first(list any) (document, bool) {
	all, _ := list.([]any)
	if len(all) == 0 {
		return nil, false
	}
	only, found := all[0].(document)
	return only, found
}

// secretOf finds the one volume that is a Secret.
func secretOf(volumes any) document {
	all, _ := volumes.([]any)
	for _, volume := range all {
		one, _ := volume.(document)
		if source, found := one["secret"].(document); found {
			return source
		}
	}
	return nil
}

// startBare creates a pod and returns when it is ready. Its Secret is its own, because the
// kubelet has one quicker that another pod of the node already uses.
func (c *cluster) startBare(bare barePod, name string) (timeline, error) {
	bare.secret["metadata"] = document{"name": name}
	if err := c.do(http.MethodPost, "/api/v1/namespaces/"+c.namespace+"/secrets", bare.secret, nil); err != nil {
		return nil, err
	}
	bare.mounted["secretName"] = name
	metadata := document{"name": name}
	if model, found := bare.pod["metadata"].(document); found {
		metadata["annotations"] = model["annotations"]
	}
	bare.pod["metadata"] = metadata

	seen, began := timeline{}, time.Now()
	if err := c.do(http.MethodPost, pods.in(c.namespace), bare.pod, nil); err != nil {
		return nil, err
	}
	return seen, c.until("the bare pod "+name+" is ready", func(e event) bool {
		if e.kind == pods && e.object.Metadata.Name == name {
			seen.see(began, e)
		}
		return seen["pod ready"] > 0
	})
}
