package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// command runs a system program to its end and reports what it said on failure.
func command(args ...string) error {
	_, err := commandOutput(args...)
	return err
}

func commandOutput(args ...string) (string, error) {
	program, err := systemProgram(args[0])
	if err != nil {
		return "", err
	}
	cmd := exec.Command(program, args[1:]...)
	cmd.Env = []string{"PATH=" + systemPath, "LANG=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// onNode runs a system program inside the node's network namespace.
func onNode(l Layout, args ...string) error {
	return command(append([]string{"nsenter", "--net=" + l.namespace(), "--"}, args...)...)
}

func onNodeOutput(l Layout, args ...string) (string, error) {
	return commandOutput(append([]string{"nsenter", "--net=" + l.namespace(), "--"}, args...)...)
}

// createNetwork makes the node's network namespace, kept by a mount on a file
// of ours, and the link to the host.
func createNetwork(l Layout) error {
	if _, err := os.Stat("/sys/class/net/" + hostLink); err == nil {
		return fmt.Errorf("create the link %s: it exists already and is not in this cluster's records; remove it with: ip link del %s", hostLink, hostLink)
	}
	if err := os.MkdirAll(filepath.Dir(l.namespace()), 0o755); err != nil {
		return fmt.Errorf("make the folder of the network namespace: %w", err)
	}
	if err := os.WriteFile(l.namespace(), nil, 0o444); err != nil {
		return fmt.Errorf("make the file that keeps the network namespace: %w", err)
	}
	if err := command("unshare", "--net="+l.namespace(), "true"); err != nil {
		return fmt.Errorf("create the node's network namespace: %w", err)
	}
	steps := [][]string{
		{"ip", "link", "set", "lo", "up"},
		// Created on the inside; its peer comes out to where this program runs.
		{"ip", "link", "add", nodeLink, "type", "veth", "peer", "name", hostLink, "netns", strconv.Itoa(os.Getpid())},
		{"ip", "addr", "add", nodeAddress + linkPrefix, "dev", nodeLink},
		{"ip", "link", "set", nodeLink, "up"},
		// There is no default route: what is not in the cluster is unreachable
		// at once. Programs of the node itself need some route to service
		// addresses, else connecting fails before kube-proxy's rules are asked.
		{"ip", "rule", "add", "iif", "lo", "to", serviceCIDR, "lookup", "96", "priority", "96"},
		{"ip", "route", "add", "default", "dev", "lo", "src", nodeAddress, "table", "96"},
	}
	for _, step := range steps {
		if err := onNode(l, step...); err != nil {
			return fmt.Errorf("set up the node's network: %w", err)
		}
	}
	for _, step := range [][]string{
		{"ip", "addr", "add", hostAddress + linkPrefix, "dev", hostLink},
		{"ip", "link", "set", hostLink, "up"},
	} {
		if err := command(step...); err != nil {
			return fmt.Errorf("set up the host's end of the link: %w", err)
		}
	}
	if err := masqueradePods(l); err != nil {
		return err
	}
	// Both settings are per network namespace; these are the node's.
	for _, setting := range []string{"net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"} {
		if err := onNode(l, "sh", "-c", "echo 1 > /proc/sys/"+setting); err != nil {
			return fmt.Errorf("set %s in the node's namespace: %w", setting, err)
		}
	}
	return nil
}

// masqueradePods gives what leaves the pod network the node's address.
func masqueradePods(l Layout) error {
	err := onNode(l, "iptables", "-t", "nat", "-A", "POSTROUTING", "-s", clusterCIDR, "!", "-d", clusterCIDR, "-j", "MASQUERADE")
	if err != nil {
		return fmt.Errorf("set up the node's network: %w", err)
	}
	return nil
}

// clearFirewall forgets all rules, sets and tracked connections of the node.
func clearFirewall(l Layout) error {
	for _, table := range []string{"filter", "nat", "mangle"} {
		for _, step := range []string{"-F", "-X"} {
			if err := onNode(l, "iptables", "-t", table, step); err != nil {
				return fmt.Errorf("clear the node's firewall: %w", err)
			}
		}
	}
	for _, step := range [][]string{{"ipset", "destroy"}, {"conntrack", "-F"}} {
		if err := onNode(l, step...); err != nil {
			return fmt.Errorf("clear the node's firewall: %w", err)
		}
	}
	return nil
}

// namespaceExists tells whether the file holds a network namespace.
func namespaceExists(l Layout) bool {
	_, ok := namespaceID(l.namespace())
	return ok
}

// nsfsMagic is the file system type of namespace handles.
const nsfsMagic = 0x6e736673

func namespaceID(path string) ([2]uint64, bool) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil || fs.Type != nsfsMagic {
		return [2]uint64{}, false
	}
	var stat syscall.Stat_t
	if err := syscall.Stat(path, &stat); err != nil {
		return [2]uint64{}, false
	}
	return [2]uint64{uint64(stat.Dev), stat.Ino}, true
}

// inNamespace asks every thread: while a process ends, its first thread may have left the namespace
// and others not yet.
func inNamespace(pid int, wanted [2]uint64) bool {
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/net", pid))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(links, func(link string) bool {
		id, ok := namespaceID(link)
		return ok && id == wanted
	})
}

// namespaceProcesses finds every process inside the node's network namespace:
// ours by definition, also those that outlived their record.
func namespaceProcesses(l Layout) []processRecord {
	node, ok := namespaceID(l.namespace())
	if !ok {
		return nil
	}
	return processesWhere(func(pid int) bool { return inNamespace(pid, node) })
}

// removeLink deletes the host's end of our link, which takes the other end
// along. A link of that name with another address is somebody else's.
func removeLink() error {
	if _, err := os.Stat("/sys/class/net/" + hostLink); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	out, err := commandOutput("ip", "-o", "link", "show", "dev", hostLink, "type", "veth")
	if err != nil || strings.TrimSpace(out) == "" {
		return nil // gone meanwhile, or no link of ours
	}
	if err := command("ip", "link", "del", hostLink); err != nil {
		// The kernel removes it by itself when the namespace ends.
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if _, gone := os.Stat("/sys/class/net/" + hostLink); errors.Is(gone, os.ErrNotExist) {
				return nil
			}
		}
		return fmt.Errorf("remove the host's end of the link: %w", err)
	}
	return nil
}

// nodeExec replaces this process by a command inside the node's namespace.
func nodeExec(l Layout, args []string) error {
	if !namespaceExists(l) {
		return errNotRunning
	}
	nsenter, err := systemProgram("nsenter")
	if err != nil {
		return err
	}
	argv := append([]string{"nsenter", "--net=" + l.namespace(), "--"}, args...)
	if err := syscall.Exec(nsenter, argv, os.Environ()); err != nil {
		return fmt.Errorf("run a command on the node: %w", err)
	}
	return nil
}
