package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// kernelTunables are the settings that a kubelet insists on. It is shown files
// with these values in a private mount namespace, so that it finds nothing to
// change on the machine.
var kernelTunables = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// fixedKubeletDir is compiled into the kubelet as the place of device plugins,
// whatever its root folder is.
const fixedKubeletDir = "/var/lib/kubelet"

func containerdConfig(l Layout) string {
	return fmt.Sprintf(`version = 2
root = %[1]q
state = %[2]q
# The last writes to /opt, the others belong to file systems not used here.
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt",
]

[grpc]
  address = %[3]q

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %[4]q
  # Loading a profile would change the machine's kernel for everybody.
  disable_apparmor = true
  # Root of a confined machine may lack the right to lower these scores, and
  # then no sandbox starts.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = %[5]q

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %[6]q
    conf_dir = %[7]q
`, l.path("containerd", "root"), l.containerdState(), l.containerdSocket(), pauseImage,
		l.runcState(), cniPlugins, l.path("cni", "net.d"))
}

// cniConfig leaves masquerading to one rule of the node (see network.go): a
// rule per pod would cost every pod start several calls of iptables.
func cniConfig(l Layout) (string, error) {
	return renderJSON(map[string]any{
		"cniVersion": "0.4.0",
		"name":       cniNetwork,
		"plugins": []any{
			map[string]any{
				"type":        "bridge",
				"bridge":      "pods0",
				"isGateway":   true,
				"ipMasq":      false,
				"hairpinMode": true,
				"ipam": map[string]any{
					"type":    "host-local",
					"dataDir": l.path("cni", "addresses"),
					"ranges":  []any{[]any{map[string]any{"subnet": nodePodCIDR}}},
					"routes":  []any{map[string]any{"dst": "0.0.0.0/0"}},
				},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]any{"portMappings": true}},
		},
	})
}

func kubeletConfig(l Layout) (string, error) {
	return renderJSON(map[string]any{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"containerRuntimeEndpoint": "unix://" + l.containerdSocket(),
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": l.pki("ca.crt")},
		},
		"authorization":     map[string]any{"mode": "Webhook"},
		"tlsCertFile":       l.pki("kubelet-server.crt"),
		"tlsPrivateKeyFile": l.pki("kubelet-server.key"),
		"cgroupDriver":      "cgroupfs",
		"cgroupRoot":        "/" + cgroupName,
		"failCgroupV1":      false,
		"failSwapOn":        false,
		"clusterDNS":        []string{dnsService},
		"clusterDomain":     clusterDomain,
		"maxPods":           200,
		"podLogsDir":        l.podLogs(),
		"volumePluginDir":   l.path("volume-plugins"),
		// One slow import must not hold up every other pod.
		"serializeImagePulls": false,
		// A test machine's disk is often nearly full. Evicted pods and
		// collected images could not be had back: there is no registry.
		"imageGCHighThresholdPercent": 100,
		"evictionHard": map[string]any{
			"memory.available":   "100Mi",
			"nodefs.available":   "0%",
			"nodefs.inodesFree":  "0%",
			"imagefs.available":  "0%",
			"imagefs.inodesFree": "0%",
		},
	})
}

// kubeconfigText renders the kubeconfig of one client with its key inside.
func kubeconfigText(c client, ca, cert, key []byte) string {
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: patchbay
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %[3]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
contexts:
- name: patchbay
  context:
    cluster: patchbay
    user: %[3]s
current-context: patchbay
`, apiURL, encode(ca), c.name, encode(cert), encode(key))
}

// kubeletWrapper gives the kubelet a mount namespace in which the kernel
// tunables show the values it wants and its fixed folder is ours. Only the
// kubelet's root folder stays shared with the machine, because containerd
// mounts pods' volumes from there.
func kubeletWrapper(l Layout) string {
	var script strings.Builder
	script.WriteString("set -e\n")
	script.WriteString("mount --make-rprivate /proc\n")
	fmt.Fprintf(&script, "mount --make-private \"$(findmnt -n -o TARGET -T %s)\"\n", fixedKubeletDir)
	for _, name := range sortedKeys(kernelTunables) {
		fmt.Fprintf(&script, "mount --bind %s /proc/sys/%s\n", l.path("tunables", flatName(name)), name)
	}
	fmt.Fprintf(&script, "mount --bind %s /proc/sys/kernel/random/boot_id\n", l.bootID())
	fmt.Fprintf(&script, "mount --bind %s %s\n", l.path("kubelet-fixed"), fixedKubeletDir)
	script.WriteString("exec \"$@\"\n")
	return script.String()
}

// configFiles returns every file that does not hold secrets, by path. They are
// part of the hash that tells whether a running cluster is the one wanted. The
// objects of the DNS server are written for that reason and for readers.
func configFiles(l Layout, p programs) (map[string]string, error) {
	cni, err := cniConfig(l)
	if err != nil {
		return nil, err
	}
	kubelet, err := kubeletConfig(l)
	if err != nil {
		return nil, err
	}
	audit, err := auditPolicy()
	if err != nil {
		return nil, err
	}
	dns, err := renderJSON(dnsObjects(dnsImage(p)))
	if err != nil {
		return nil, err
	}
	files := map[string]string{
		l.config("audit-policy.json"):                  audit,
		l.config("dns.json"):                           dns,
		l.config("containerd.toml"):                    containerdConfig(l),
		l.config("kubelet.json"):                       kubelet,
		l.config("kubelet.sh"):                         kubeletWrapper(l),
		l.path("cni", "net.d", "10-patchbay.conflist"): cni,
	}
	for name, value := range kernelTunables {
		files[l.path("tunables", flatName(name))] = value + "\n"
	}
	return files, nil
}

func writeConfigFiles(l Layout, p programs) error {
	files, err := configFiles(l, p)
	if err != nil {
		return err
	}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make the folder of %s: %w", path, err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write a configuration file: %w", err)
		}
	}
	return nil
}

// writeBootID gives the node a new identity of its boot. The kubelet is shown it
// in place of the machine's, and reports a restart of the node when it changed.
func writeBootID(l Layout) (string, error) {
	raw := make([]byte, 16)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("draw the identity of the node's boot: %w", err)
	}
	raw[6], raw[8] = raw[6]&0x0f|0x40, raw[8]&0x3f|0x80 // a random UUID, as the kernel's is
	id := fmt.Sprintf("%x-%x-%x-%x-%x", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
	if err := os.WriteFile(l.bootID(), []byte(id+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("write the identity of the node's boot: %w", err)
	}
	return id, nil
}

func writeKubeconfigs(l Layout) error {
	ca, err := os.ReadFile(l.pki("ca.crt"))
	if err != nil {
		return fmt.Errorf("write kubeconfigs: %w", err)
	}
	for _, c := range clients {
		cert, err := os.ReadFile(l.pki(c.name + ".crt"))
		if err != nil {
			return fmt.Errorf("write the kubeconfig of %s: %w", c.name, err)
		}
		key, err := os.ReadFile(l.pki(c.name + ".key"))
		if err != nil {
			return fmt.Errorf("write the kubeconfig of %s: %w", c.name, err)
		}
		path := l.kubeconfig(c.name)
		if c.name == "admin" {
			path = l.adminKubeconfig()
		}
		if err := os.WriteFile(path, []byte(kubeconfigText(c, ca, cert, key)), 0o600); err != nil {
			return fmt.Errorf("write the kubeconfig of %s: %w", c.name, err)
		}
	}
	return nil
}

func renderJSON(value any) (string, error) {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return "", fmt.Errorf("render a configuration file: %w", err)
	}
	return string(text) + "\n", nil
}

func flatName(path string) string { return strings.ReplaceAll(path, "/", ".") }
