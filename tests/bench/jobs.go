package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
)

var (
	jobs      = kind{"/apis/patchbay.dev/v1alpha1", "jobs"}
	batchJobs = kind{"/apis/batch/v1", "jobs"}
)

const (
	// lone is the Plugin with one worker, which answers at once.
	lone = "lone"
	// crowdPods of each crowd.
	crowdPods    = 2
	crowdThreads = 50
	// crowdSeconds without a job, and the crowd answers those that it keeps.
	crowdSeconds = 3
)

// crowds are Plugins with many workers, which keep what they get for a while. There are two,
// because the operator leaves room for others when one Plugin is busy.
var crowds = [...]string{"crowd-a", "crowd-b"}

// workers are those of all crowds.
const workers = len(crowds) * crowdPods * crowdThreads

// jobBench is a namespace with Plugins that do Jobs.
type jobBench struct {
	*cluster
	s settings
	// rounds are fewer than those of other parts: each takes a minute or two.
	rounds int
	// kubeconfig is what our own client of the API server reads.
	kubeconfig string
	// Empty when no operator runs on this machine; `elsewhere` then says so.
	operatorPod string
	operatorPid int
	elsewhere   string
}

// measureJobs compares handing out jobs with what the API server gives at all, and with how the
// cluster's own batch jobs do the same work.
func measureJobs(s settings) ([]row, error) {
	c, err := open("bench-jobs")
	if err != nil {
		return nil, err
	}
	b := &jobBench{cluster: c, s: s, rounds: s.fewer(0.2)}
	if err := b.writeKubeconfig(); err != nil {
		return nil, err
	}
	if b.operatorPod, b.operatorPid, err = b.operator(s); err != nil {
		b.elsewhere = err.Error()
	}
	if err := b.mountCode("hoarder.py"); err != nil {
		return nil, err
	}
	if err := b.startHoarder(lone, 1, 1, 0); err != nil {
		return nil, err
	}
	// Memory first: what the operator has freed after busier parts would hide what it needs.
	memory, err := b.measureWaiting()
	if err != nil {
		return nil, fmt.Errorf("memory of waiting Jobs: %w", err)
	}
	dispatch, err := b.measureDispatch()
	if err != nil {
		return nil, fmt.Errorf("dispatch: %w", err)
	}
	batch, err := b.measureBatch()
	if err != nil {
		return nil, fmt.Errorf("batch jobs: %w", err)
	}
	if err := b.do(http.MethodDelete, plugins.in(b.namespace)+"/"+lone, nil, nil); err != nil {
		return nil, err
	}
	if err := b.none(pods, "", ""); err != nil {
		return nil, err
	}
	idle, err := b.measureIdle()
	if err != nil {
		return nil, fmt.Errorf("idle workers: %w", err)
	}
	claims, err := b.measureClaims()
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	if err := b.removeNamespace(); err != nil {
		return nil, err
	}
	judged, err := measureChecked(s)
	if err != nil {
		return nil, fmt.Errorf("the checker: %w", err)
	}
	var rows []row
	for _, some := range [][]row{claims, dispatch, idle, memory, batch, judged} {
		rows = append(rows, some...)
	}
	return rows, nil
}

// writeKubeconfig makes one file of whatever KUBECONFIG and CONTEXT mean.
func (b *jobBench) writeKubeconfig() error {
	text, err := kubectlCommand("config", "view", "--raw", "--minify", "--flatten").Output()
	if err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	b.kubeconfig = filepath.Join(os.TempDir(), "kubeconfig")
	return os.WriteFile(b.kubeconfig, text, 0o600)
}

// rawReplaces runs the operator's client alone.
func (b *jobBench) rawReplaces(arguments ...string) ([]byte, error) {
	program := filepath.Join(b.s.programs, "examples", "raw_replaces")
	all := append([]string{"--kubeconfig", b.kubeconfig, "--namespace", b.namespace}, arguments...)
	output, err := exec.Command(program, all...).Output()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		err = fmt.Errorf("%w: %s", err, ended.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("replacing statuses with the operator's client: %w", err)
	}
	return output, nil
}

// mountCode makes the ConfigMap with the code of a plugin.
func (b *jobBench) mountCode(file string) error {
	text, err := os.ReadFile(filepath.Join(b.s.python, file))
	if err != nil {
		return fmt.Errorf("reading the code of the plugin: %w", err)
	}
	return b.do(http.MethodPost, "/api/v1/namespaces/"+b.namespace+"/configmaps", document{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": document{"name": "code"},
		"data": document{file: string(text)},
	}, nil)
}

func (b *jobBench) startHoarder(name string, replicas, threads, seconds int) error {
	return b.startController(name, "Hoarder", replicas, map[string]string{
		"HOARD_THREADS": fmt.Sprint(threads), "HOARD_SECONDS": fmt.Sprint(seconds),
	})
}

// startController creates a Plugin and returns when all its pods are ready.
func (b *jobBench) startController(name, class string, replicas int, variables map[string]string) error {
	b.follow(pods, plugins)
	environment := []document{{"name": "LOGLEVEL", "value": "WARNING"}}
	for name, value := range variables {
		environment = append(environment, document{"name": name, "value": value})
	}
	manifest := document{
		"apiVersion": "patchbay.dev/v1alpha1", "kind": "Plugin", "metadata": document{"name": name},
		"spec": document{
			"image": b.s.images + "/patchbay-python:v1", "command": []string{"python3", "-m", "src.run"},
			"replicas": replicas,
			"protocol": document{"pcpController": document{"port": 10000, "className": class}},
			"env":      environment,
			"pod": document{"volumes": []document{
				{"name": "code", "configMap": document{"name": "code"}},
			}},
			"volumeMounts": []document{{"name": "code", "mountPath": "/plugins", "readOnly": true}},
			"shutdown":     document{"drainSeconds": 0},
		},
	}
	if err := b.do(http.MethodPost, plugins.in(b.namespace), manifest, nil); err != nil {
		return err
	}
	plugin, running := false, map[string]bool{}
	return b.until(fmt.Sprintf("the Plugin %s and its %d pods are ready", name, replicas), func(e event) bool {
		switch {
		case e.kind == plugins && e.object.Metadata.Name == name:
			plugin = e.object.is("Ready")
		case e.kind == pods && e.object.Metadata.Labels["patchbay.dev/plugin"] == name:
			running[e.object.Metadata.Name] = e.what != "DELETED" && e.object.is("Ready")
		}
		count := 0
		for _, is := range running {
			if is {
				count++
			}
		}
		return plugin && count == replicas
	})
}
