package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
	"strings"
)

// component is one long-running program of the cluster.
type component struct {
	name    string
	command []string
}

// stopOrder lists the components from the last started to the first.
var stopOrder = []string{
	"kube-router", "kube-proxy", "kubelet", "containerd",
	"kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd",
}

// layoutRevision is raised when a change that shows in no command line and in
// no configuration file makes running clusters outdated.
const layoutRevision = "1"

// components returns the full command of every component, by name.
func components(l Layout, p programs, containerd string) map[string]component {
	list := []component{
		{"etcd", []string{p["etcd"],
			"--name=node",
			"--data-dir=" + l.path("etcd"),
			"--listen-client-urls=" + etcdURL,
			"--advertise-client-urls=" + etcdURL,
			"--listen-peer-urls=http://127.0.0.1:2380",
			"--initial-advertise-peer-urls=http://127.0.0.1:2380",
			"--initial-cluster=node=http://127.0.0.1:2380",
			"--log-level=warn",
		}},
		{"kube-apiserver", []string{p["kube-apiserver"],
			"--etcd-servers=" + etcdURL,
			"--advertise-address=" + nodeAddress,
			"--secure-port=" + apiPort,
			"--service-cluster-ip-range=" + serviceCIDR,
			"--client-ca-file=" + l.pki("ca.crt"),
			"--tls-cert-file=" + l.pki("kube-apiserver.crt"),
			"--tls-private-key-file=" + l.pki("kube-apiserver.key"),
			"--kubelet-certificate-authority=" + l.pki("ca.crt"),
			"--kubelet-client-certificate=" + l.pki("apiserver-kubelet-client.crt"),
			"--kubelet-client-key=" + l.pki("apiserver-kubelet-client.key"),
			"--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + l.pki("service-accounts.pub"),
			"--service-account-signing-key-file=" + l.pki("service-accounts.key"),
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--allow-privileged=true",
			"--profiling=false",
			// A checker of a long run reads one file: megabytes until the next,
			// and how many older ones stay.
			"--audit-policy-file=" + l.config("audit-policy.json"),
			"--audit-log-path=" + l.auditLog(),
			"--audit-log-maxsize=2048",
			"--audit-log-maxbackup=2",
		}},
		{"kube-controller-manager", []string{p["kube-controller-manager"],
			"--kubeconfig=" + l.kubeconfig("kube-controller-manager"),
			"--bind-address=127.0.0.1",
			"--cluster-cidr=" + clusterCIDR,
			"--node-cidr-mask-size=" + nodeMaskSize,
			"--allocate-node-cidrs=true",
			"--service-cluster-ip-range=" + serviceCIDR,
			"--use-service-account-credentials=true",
			"--service-account-private-key-file=" + l.pki("service-accounts.key"),
			"--root-ca-file=" + l.pki("ca.crt"),
			// Both it and the kubelet make this folder, by default under /usr.
			"--flex-volume-plugin-dir=" + l.path("volume-plugins"),
			"--cluster-signing-cert-file=" + l.pki("ca.crt"),
			"--cluster-signing-key-file=" + l.pki("ca.key"),
			// Its first calls would wait for each other for five seconds of
			// every start. The rate in the long run stays what it is elsewhere.
			"--kube-api-burst=300",
			"--leader-elect=false",
			"--profiling=false",
		}},
		{"kube-scheduler", []string{p["kube-scheduler"],
			"--kubeconfig=" + l.kubeconfig("kube-scheduler"),
			"--bind-address=127.0.0.1",
			"--leader-elect=false",
			"--profiling=false",
		}},
		{"containerd", []string{containerd, "--config=" + l.config("containerd.toml")}},
		{"kubelet", []string{
			"unshare", "--mount", "--propagation=unchanged", "--",
			"sh", l.config("kubelet.sh"),
			p["kubelet"],
			"--config=" + l.config("kubelet.json"),
			"--kubeconfig=" + l.kubeconfig("kubelet"),
			"--root-dir=" + l.kubelet(),
			"--cert-dir=" + l.path("kubelet", "pki"),
			"--hostname-override=" + nodeName,
			"--node-ip=" + nodeAddress,
		}},
		{"kube-proxy", []string{p["kube-proxy"],
			"--kubeconfig=" + l.kubeconfig("kube-proxy"),
			"--hostname-override=" + nodeName,
			"--proxy-mode=iptables",
			"--cluster-cidr=" + clusterCIDR,
			// Connection tracking settings belong to the machine.
			"--conntrack-max-per-core=0",
			"--conntrack-tcp-timeout-established=0",
			"--conntrack-tcp-timeout-close-wait=0",
		}},
		{"kube-router", []string{p["kube-router"],
			"--kubeconfig=" + l.kubeconfig("kube-router"),
			"--hostname-override=" + nodeName,
			"--run-firewall=true",
			"--run-router=false",
			"--run-service-proxy=false",
			"--enable-cni=false",
			"--service-cluster-ip-range=" + serviceCIDR,
			"--health-port=0",
		}},
	}
	byName := map[string]component{}
	for _, c := range list {
		byName[c.name] = c
	}
	return byName
}

// configHash identifies what would be started. Two runs with the same hash are
// the same cluster.
func configHash(l Layout, p programs, all map[string]component) (string, error) {
	files, err := configFiles(l, p)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "revision %s\n", layoutRevision)
	for _, name := range sortedKeys(all) {
		fmt.Fprintf(sum, "component %s %q\n", name, strings.Join(all[name].command, "\x00"))
	}
	for _, path := range sortedKeys(files) {
		fmt.Fprintf(sum, "file %s %q\n", path, files[path])
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
