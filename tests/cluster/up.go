package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

var errNotRunning = errors.New("the cluster is not running; start it with: cluster up")

// clusterRecord says what the state folder holds. It is the first thing
// written and says "up" only after everything was seen to work.
type clusterRecord struct {
	Phase string `json:"phase"`
	Hash  string `json:"hash"`
	// BootID makes a record from before a restart of the machine worthless.
	BootID string `json:"bootID"`
	// MadeFixedKubeletDir is true when the kubelet's compiled-in folder did
	// not exist before, so that `down` removes it again.
	MadeFixedKubeletDir bool `json:"madeFixedKubeletDir"`
}

const (
	phaseStarting = "starting"
	phaseUp       = "up"
)

func readClusterRecord(l Layout) (clusterRecord, bool) {
	text, err := os.ReadFile(l.record())
	if err != nil {
		return clusterRecord{}, false
	}
	var r clusterRecord
	if json.Unmarshal(text, &r) != nil {
		return clusterRecord{}, false
	}
	return r, true
}

// await asks again and again until the answer is nil, the limit is reached or
// the caller gives up.
func await(ctx context.Context, what string, limit, pace time.Duration, probe func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := probe()
		if err == nil {
			return nil
		}
		var dead deadError
		if errors.As(err, &dead) {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for %s: not within %s: %w", what, limit, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-time.After(pace):
		}
	}
}

// deadError ends a wait at once: what is waited for cannot come any more.
type deadError struct {
	name string
	log  string
	path string
}

func (e deadError) Error() string {
	return fmt.Sprintf("%s ended; the end of %s:\n%s", e.name, e.path, e.log)
}

func dead(l Layout, names ...string) error {
	for _, name := range names {
		if !componentAlive(l, name) {
			return deadError{name: name, log: logTail(l, name), path: l.log(name)}
		}
	}
	return nil
}

// starter holds what every step of a start needs.
type starter struct {
	layout     Layout
	programs   programs
	components map[string]component
	hash       string
	api        apiClient
}

func newStarter(ctx context.Context, l Layout) (*starter, error) {
	if _, err := ensureTools(ctx, nodeTools); err != nil {
		return nil, err
	}
	return wanted(l)
}

// wanted computes what a start would start, without building anything.
func wanted(l Layout) (*starter, error) {
	_, p, err := locateTools(nodeTools)
	if err != nil {
		return nil, err
	}
	containerd, err := systemProgram("containerd")
	if err != nil {
		return nil, err
	}
	s := &starter{layout: l, programs: p, components: components(l, p, containerd)}
	s.hash, err = configHash(l, p, s.components)
	return s, err
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("run the cluster: it needs root, for a network namespace, mounts and containers; run it with sudo")
	}
	return nil
}

func up(ctx context.Context, l Layout) error {
	begin := time.Now()
	if err := ensurePackages(ctx); err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	s, err := newStarter(ctx, l)
	if err != nil {
		return err
	}
	unlock, err := lockFile(ctx, lockPath, "the cluster")
	if err != nil {
		return err
	}
	defer unlock()

	word := "started"
	record, known := readClusterRecord(l)
	switch {
	case !known:
		if _, err := os.Stat(l.Dir); err == nil {
			say("%s holds no complete record of a cluster", l.Dir)
		}
	case record.BootID != bootID():
		say("the recorded cluster ended with the machine's last boot")
	case record.Phase != phaseUp:
		say("an earlier start was cut off half-way")
	case record.Hash != s.hash:
		say("the running cluster was started with another configuration")
	default:
		repaired, err := s.repair(ctx)
		if err == nil {
			word = "already running"
			if len(repaired) != 0 {
				word = "repaired (" + strings.Join(repaired, ", ") + ")"
			}
			s.summary(word, begin)
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		say("the running cluster cannot be repaired: %v", err)
	}
	if leftovers(l) {
		say("taking down what is there")
		if err := tearDown(ctx, l); err != nil {
			return err
		}
		word = "recreated"
	}
	if err := s.fresh(ctx); err != nil {
		return err
	}
	s.summary(word, begin)
	return nil
}

func (s *starter) summary(word string, begin time.Time) {
	fmt.Printf("Kubernetes %s is %s: one node with containerd, kube-proxy, DNS and NetworkPolicy (%.1f s).\n",
		kubernetesVersion, word, time.Since(begin).Seconds())
	fmt.Printf("state and logs: %s\n", s.layout.Dir)
	fmt.Printf("kubeconfig:     %s\n", s.layout.adminKubeconfig())
	fmt.Printf("next:           KUBECONFIG=%s %s get nodes\n", s.layout.adminKubeconfig(), s.programs["kubectl"])
}

// fresh starts a cluster from nothing.
func (s *starter) fresh(ctx context.Context) error {
	l := s.layout
	for _, dir := range []string{l.Dir, l.pids(), l.path("logs"), l.path("pki"), l.path("config"),
		l.path("etcd"), l.path("containerd"), l.podLogs(), l.path("kubelet-fixed"), l.path("volume-plugins")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the cluster's folders: %w", err)
		}
	}
	for _, private := range []string{l.path("pki"), l.path("etcd")} {
		if err := os.Chmod(private, 0o700); err != nil { // etcd insists
			return fmt.Errorf("close the folder %s: %w", private, err)
		}
	}
	_, err := os.Stat(fixedKubeletDir)
	record := clusterRecord{Phase: phaseStarting, Hash: s.hash, BootID: bootID(), MadeFixedKubeletDir: errors.Is(err, os.ErrNotExist)}
	if err := writeJSON(l.record(), record); err != nil {
		return err
	}
	if err := os.MkdirAll(fixedKubeletDir, 0o755); err != nil {
		return fmt.Errorf("make the kubelet's fixed folder: %w", err)
	}
	if err := writePKI(l); err != nil {
		return err
	}
	if err := writeConfigFiles(l, s.programs); err != nil {
		return err
	}
	if _, err := writeBootID(l); err != nil {
		return err
	}
	if err := writeKubeconfigs(l); err != nil {
		return err
	}
	if err := createNetwork(l); err != nil {
		return err
	}
	if err := createCgroups(); err != nil {
		return err
	}
	if err := shareKubeletRoot(l); err != nil {
		return err
	}
	if _, err := s.startMissing(ctx); err != nil {
		return err
	}
	record.Phase = phaseUp
	return writeJSON(l.record(), record)
}

// repair starts components that ended and ends what faults were left. It fails when the cluster does not work
// again afterwards.
func (s *starter) repair(ctx context.Context) ([]string, error) {
	if !namespaceExists(s.layout) {
		return nil, errors.New("its network namespace is gone")
	}
	// A test that was cut off may have left a fault behind.
	repaired, err := resume(ctx, s.layout, stopOrder...)
	if err != nil {
		return nil, err
	}
	if !componentAlive(s.layout, "etcd") {
		if err := start(s.layout, s.components["etcd"]); err != nil {
			return repaired, err
		}
		repaired = append(repaired, "etcd")
	}
	err = await(ctx, "etcd", 30*time.Second, 20*time.Millisecond, func() error {
		if err := dead(s.layout, "etcd"); err != nil {
			return err
		}
		full, err := makeRoom(ctx, s.layout)
		if full {
			repaired = append(repaired, "room in etcd")
		}
		return err
	})
	if err != nil {
		return repaired, err
	}
	started, err := s.startMissing(ctx)
	return append(repaired, started...), err
}

// startMissing starts every component that does not run, each as soon as what
// it needs is there, and waits until the whole works. It returns the names of
// those it started.
func (s *starter) startMissing(ctx context.Context) ([]string, error) {
	l := s.layout
	var started []string
	launch := func(names ...string) error {
		for _, name := range names {
			if componentAlive(l, name) {
				continue
			}
			if err := start(l, s.components[name]); err != nil {
				return err
			}
			started = append(started, name)
		}
		return nil
	}
	if err := launch("etcd", "containerd", "kube-apiserver"); err != nil {
		return started, err
	}
	if err := s.awaitContainerd(ctx); err != nil {
		return started, err
	}
	// The API server takes longer to be ready than the node to take the images.
	imported := make(chan error, 1)
	go func() { imported <- s.importImages(ctx) }()
	if err := errors.Join(s.awaitAPI(ctx), <-imported); err != nil {
		return started, err
	}
	if err := launch("kube-controller-manager", "kube-scheduler", "kubelet"); err != nil {
		return started, err
	}
	if err := s.api.grantEnforcer(ctx); err != nil {
		return started, err
	}
	if err := s.applyDNS(ctx); err != nil {
		return started, err
	}
	if err := s.awaitNodeKnown(ctx); err != nil {
		return started, err
	}
	if err := launch("kube-proxy"); err != nil {
		return started, err
	}
	if err := s.awaitServiceRules(ctx); err != nil {
		return started, err
	}
	// The enforcer replaces the filter table as a whole from what it read just
	// before. It comes last, so that it cannot undo kube-proxy's first write.
	if err := launch("kube-router"); err != nil {
		return started, err
	}
	return started, s.awaitWhole(ctx)
}

// importImages gives the node the images that the cluster itself needs: that of
// every pod's sandbox and that of the DNS server.
func (s *starter) importImages(ctx context.Context) error {
	if err := importProgram(ctx, s.layout, pauseImage, s.programs["pause"]); err != nil {
		return err
	}
	return importProgram(ctx, s.layout, dnsImage(s.programs), s.programs[dnsName])
}

// awaitServiceRules waits for kube-proxy's first write. Once in some thirty
// starts on a loaded machine a living kube-proxy wrote nothing for 90 s, so it
// gets a second chance; the end of its log is shown to learn more.
func (s *starter) awaitServiceRules(ctx context.Context) error {
	l := s.layout
	probe := func() error {
		if err := dead(l, "kube-proxy"); err != nil {
			return err
		}
		return s.serviceRules()
	}
	err := await(ctx, "the service rules", 20*time.Second, 50*time.Millisecond, probe)
	if err == nil || ctx.Err() != nil {
		return err
	}
	say("%v; starting kube-proxy again", err)
	if record, ok := readRecord(l, "kube-proxy"); ok {
		if err := kill([]processRecord{record}, 10*time.Second); err != nil {
			return err
		}
	}
	if err := start(l, s.components["kube-proxy"]); err != nil {
		return err
	}
	return await(ctx, "the service rules", time.Minute, 50*time.Millisecond, probe)
}

func (s *starter) serviceRules() error {
	rules, err := onNodeOutput(s.layout, "iptables-save", "-t", "nat")
	if err != nil {
		return err
	}
	if !strings.Contains(rules, "-A KUBE-SERVICES -d "+firstService+"/32") {
		return fmt.Errorf("kube-proxy has not written its rules yet; the end of %s:\n%s", s.layout.log("kube-proxy"), logTail(s.layout, "kube-proxy"))
	}
	return nil
}

func (s *starter) awaitContainerd(ctx context.Context) error {
	return await(ctx, "containerd", time.Minute, 20*time.Millisecond, func() error {
		if err := dead(s.layout, "containerd"); err != nil {
			return err
		}
		connection, err := net.Dial("unix", s.layout.containerdSocket())
		if err != nil {
			return err
		}
		connection.Close()
		_, err = ctr(s.layout, "plugins", "ls", "-q")
		return err
	})
}

func (s *starter) awaitAPI(ctx context.Context) error {
	api, err := newAPIClient(s.layout)
	if err != nil {
		return err
	}
	s.api = api
	return await(ctx, "the API server", 90*time.Second, 50*time.Millisecond, func() error {
		if err := dead(s.layout, "etcd", "kube-apiserver"); err != nil {
			return err
		}
		return api.ready(ctx)
	})
}

// awaitNodeKnown waits until the node has registered and has its pod range.
func (s *starter) awaitNodeKnown(ctx context.Context) error {
	var cidr string
	err := await(ctx, "the node to register", 90*time.Second, 50*time.Millisecond, func() error {
		if err := dead(s.layout, "kubelet", "kube-controller-manager"); err != nil {
			return err
		}
		n, err := s.api.node(ctx)
		if err != nil {
			return err
		}
		if n.Spec.PodCIDR == "" {
			return errors.New("the node has no pod range yet")
		}
		cidr = n.Spec.PodCIDR
		return nil
	})
	if err != nil {
		return err
	}
	if cidr != nodePodCIDR {
		return fmt.Errorf("use the pod range %s: the controller manager gave the node %s", nodePodCIDR, cidr)
	}
	return nil
}

// awaitWhole waits until pods can be made, scheduled, reached and fenced, and
// can look up each other's names.
func (s *starter) awaitWhole(ctx context.Context) error {
	return await(ctx, "the cluster", 90*time.Second, 100*time.Millisecond, func() error { return s.whole(ctx) })
}

// whole says what is still missing, or returns nil.
func (s *starter) whole(ctx context.Context) error {
	l := s.layout
	if err := dead(l, stopOrder...); err != nil {
		return err
	}
	for _, name := range stopOrder {
		if record, ok := readRecord(l, name); ok && record.paused() {
			return fmt.Errorf("%s is paused", name)
		}
	}
	if full, err := newEtcdClient(l).full(ctx); err != nil || full {
		return errors.Join(err, errors.New("etcd takes no writes"))
	}
	if err := s.api.ready(ctx); err != nil {
		return err
	}
	n, err := s.api.node(ctx)
	if err != nil {
		return err
	}
	if err := n.notReady(); err != nil {
		return err
	}
	for _, path := range []string{
		"/api/v1/namespaces/default/serviceaccounts/default",
		"/api/v1/namespaces/default/configmaps/kube-root-ca.crt",
	} {
		if err := s.api.get(ctx, path, nil); err != nil {
			return err
		}
	}
	if err := s.serviceRules(); err != nil {
		return err
	}
	rules, err := onNodeOutput(l, "iptables-save", "-t", "filter")
	if err != nil {
		return err
	}
	if !strings.Contains(rules, ":KUBE-ROUTER-FORWARD") {
		return fmt.Errorf("the NetworkPolicy enforcer has not written its rules yet; the end of %s:\n%s", l.log("kube-router"), logTail(l, "kube-router"))
	}
	return s.resolves()
}

func printKubeconfig(l Layout) error {
	if _, err := os.Stat(l.adminKubeconfig()); err != nil {
		return errNotRunning
	}
	fmt.Println(l.adminKubeconfig())
	return nil
}
