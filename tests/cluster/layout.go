package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Addresses and names of the one node. They are private to the node's network
// namespace, except for the host's end of the link.
const (
	nodeName     = "patchbay-node"
	hostLink     = "patchbay0" // the host's end of the link; 15 bytes at most
	nodeLink     = "eth0"
	hostAddress  = "10.250.0.1"
	nodeAddress  = "10.250.0.2"
	linkPrefix   = "/30"
	clusterCIDR  = "10.244.0.0/16"
	nodePodCIDR  = "10.244.0.0/22" // what the controller manager gives the first node
	nodeMaskSize = "22"
	serviceCIDR  = "10.96.0.0/16"
	firstService = "10.96.0.1"
	dnsService   = "10.96.0.10"
	apiPort      = "6443"
	apiURL       = "https://" + nodeAddress + ":" + apiPort

	// cgroupName is the folder that all pods live under, in every hierarchy.
	cgroupName = "patchbay-cluster"
	// cniNetwork names the pod network; leftovers of the CNI library carry it.
	cniNetwork = "patchbay-cluster"
	pauseImage = "patchbay.dev/pause:1"

	lockPath   = "/run/patchbay-cluster.lock"
	cniPlugins = "/usr/lib/cni"
)

// Layout tells where the running cluster keeps its files.
type Layout struct {
	// Dir is absolute and clean; everything in it is removed by `down`.
	Dir string
}

func layoutFromEnvironment() (Layout, error) {
	dir := os.Getenv("PATCHBAY_CLUSTER_DIR")
	if dir == "" {
		dir = "/var/lib/patchbay-cluster"
	}
	return newLayout(dir)
}

// newLayout refuses folders that `down` must never remove and paths too long
// for the sockets below them.
func newLayout(dir string) (Layout, error) {
	if !filepath.IsAbs(dir) {
		return Layout{}, fmt.Errorf("take %q as the cluster's folder: the path is not absolute", dir)
	}
	dir = filepath.Clean(dir)
	if strings.Count(dir, "/") < 2 {
		return Layout{}, fmt.Errorf("take %q as the cluster's folder: it is too close to the root to be removed later", dir)
	}
	if len(dir) > 60 {
		return Layout{}, fmt.Errorf("take %q as the cluster's folder: sockets below it would exceed the kernel's limit; use at most 60 bytes", dir)
	}
	if strings.ContainsAny(dir, " \t\n\"'\\") {
		return Layout{}, fmt.Errorf("take %q as the cluster's folder: blanks, quotes and backslashes are not supported", dir)
	}
	return Layout{Dir: dir}, nil
}

func (l Layout) path(parts ...string) string {
	return filepath.Join(append([]string{l.Dir}, parts...)...)
}

func (l Layout) record() string           { return l.path("cluster.json") }
func (l Layout) namespace() string        { return l.path("netns", "node") }
func (l Layout) pids() string             { return l.path("pids") }
func (l Layout) log(name string) string   { return l.path("logs", name+".log") }
func (l Layout) pki(name string) string   { return l.path("pki", name) }
func (l Layout) config(n string) string   { return l.path("config", n) }
func (l Layout) kubelet() string          { return l.path("kubelet") }
func (l Layout) containerdSocket() string { return l.path("containerd", "containerd.sock") }
func (l Layout) containerdState() string  { return l.path("containerd", "state") }
func (l Layout) runcState() string        { return l.path("containerd", "runc") }
func (l Layout) podLogs() string          { return l.path("pod-logs") }
func (l Layout) auditLog() string         { return l.path("audit.log") }
func (l Layout) bootID() string           { return l.path("tunables", "boot_id") }

// adminKubeconfig lies at the top, where people look for it.
func (l Layout) adminKubeconfig() string { return l.path("admin.kubeconfig") }

// kubeconfig is the path of the kubeconfig of one of the cluster's own clients.
func (l Layout) kubeconfig(client string) string { return l.config(client + ".kubeconfig") }
