package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// Folders outside ours that parts of the cluster write to without asking.
	cniResults    = "/var/lib/cni/results"
	shimSockets   = "/run/containerd/s"
	containerLogs = "/var/log/containers"
)

func down(ctx context.Context, l Layout) error {
	if err := needRoot(); err != nil {
		return err
	}
	unlock, err := lockFile(ctx, lockPath, "the cluster")
	if err != nil {
		return err
	}
	defer unlock()
	word := "nothing was running"
	if leftovers(l) {
		if err := tearDown(ctx, l); err != nil {
			return err
		}
		word = "down; only the cache of built programs is left"
	}
	if err := os.Remove(lockPath); err != nil {
		return fmt.Errorf("remove the lock: %w", err)
	}
	fmt.Println(word)
	return nil
}

// leftovers tells whether anything of a cluster is there.
func leftovers(l Layout) bool {
	if _, err := os.Stat(l.Dir); err == nil {
		return true
	}
	folders, err := cgroupFolders()
	if err != nil {
		return true
	}
	for _, f := range folders {
		if _, err := os.Stat(f.point); err == nil {
			return true
		}
	}
	return false
}

// tearDown removes a cluster in whatever condition it is. It relies on no
// running part: who belongs to the cluster is told by our records, our cgroup
// folders and our network namespace.
func tearDown(ctx context.Context, l Layout) error {
	record, _ := readClusterRecord(l)
	if err := endProcesses(l); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("take the cluster down: %w", err)
	}
	if err := removeShimSockets(l); err != nil {
		return err
	}
	// The link goes while its namespace still exists, which is immediate.
	if namespaceExists(l) {
		if err := removeLink(); err != nil {
			return err
		}
	}
	if err := unmountBelow(l.Dir); err != nil {
		return err
	}
	if err := removeCgroups(); err != nil {
		return err
	}
	if err := removeForeignTraces(l, record); err != nil {
		return err
	}
	return removeState(l)
}

// endProcesses ends every process of the cluster and returns when none is left.
func endProcesses(l Layout) error {
	components, err := stopComponents(l)
	if err != nil {
		return err
	}
	containers, err := killCgroups(15 * time.Second)
	if err != nil {
		return err
	}
	// The containers' shims, and whatever a test started on the node.
	others, err := endAll(func() []processRecord { return namespaceProcesses(l) }, 15*time.Second)
	if err != nil {
		return fmt.Errorf("end what is left in the node's network namespace: %w", err)
	}
	awaitReaped(slices.Concat(components, containers, others), 5*time.Second)
	return nil
}

func stopComponents(l Layout) ([]processRecord, error) {
	var ended []processRecord
	for _, name := range stopOrder {
		record, ok := readRecord(l, name)
		if !ok {
			continue
		}
		if err := kill([]processRecord{record}, 15*time.Second); err != nil {
			return nil, fmt.Errorf("end %s: %w", name, err)
		}
		ended = append(ended, record)
	}
	return ended, nil
}

// removeShimSockets removes the sockets of containers' shims. Their place is
// compiled into containerd; each task's folder remembers its socket.
func removeShimSockets(l Layout) error {
	addresses, err := filepath.Glob(filepath.Join(l.containerdState(), "io.containerd.runtime.v2.task", "*", "*", "address"))
	if err != nil {
		return fmt.Errorf("list the containers' sockets: %w", err)
	}
	for _, file := range addresses {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the task ended in an orderly way meanwhile
		}
		socket := strings.TrimPrefix(strings.TrimSpace(string(text)), "unix://")
		if filepath.Dir(socket) != shimSockets {
			continue
		}
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove a container's socket: %w", err)
		}
	}
	return removeEmpty(shimSockets, filepath.Dir(shimSockets))
}

// removeForeignTraces removes what parts of the cluster left outside its folder.
func removeForeignTraces(l Layout, record clusterRecord) error {
	if err := removeCNIResults(cniResults); err != nil {
		return err
	}
	if err := removeEmpty(cniResults, filepath.Dir(cniResults)); err != nil {
		return err
	}
	if err := removeLinksInto(containerLogs, l.Dir); err != nil {
		return err
	}
	if err := removeEmpty(containerLogs); err != nil {
		return err
	}
	if record.MadeFixedKubeletDir {
		return removeEmpty(fixedKubeletDir)
	}
	return nil
}

// removeCNIResults removes the CNI library's notes about our pods: those under
// our network's name, and those about the loopback of the same containers.
func removeCNIResults(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the CNI results: %w", err)
	}
	type note struct {
		NetworkName string `json:"networkName"`
		ContainerID string `json:"containerId"`
	}
	notes := map[string]note{}
	ours := map[string]bool{}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var n note
		if json.Unmarshal(text, &n) != nil || n.ContainerID == "" {
			continue
		}
		notes[path] = n
		if n.NetworkName == cniNetwork {
			ours[n.ContainerID] = true
		}
	}
	for path, n := range notes {
		if !ours[n.ContainerID] {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove a CNI result: %w", err)
		}
	}
	return nil
}

// removeLinksInto removes symbolic links that point into a folder.
func removeLinksInto(dir, target string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		to, err := os.Readlink(path)
		if err != nil || !strings.HasPrefix(to, target+"/") {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove a log link: %w", err)
		}
	}
	return nil
}

// removeEmpty removes folders in the given order as long as they are empty.
func removeEmpty(dirs ...string) error {
	for _, dir := range dirs {
		err := syscall.Rmdir(dir)
		switch {
		case err == nil, errors.Is(err, syscall.ENOENT):
		case errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, syscall.EEXIST), errors.Is(err, syscall.EBUSY):
			return nil // somebody else uses it
		default:
			return fmt.Errorf("remove the empty folder %s: %w", dir, err)
		}
	}
	return nil
}

// removeState removes the cluster's folder, after making sure that nothing is
// mounted in it: removing through a mount would destroy what it shows.
func removeState(l Layout) error {
	points, err := currentMounts(l.Dir)
	if err != nil {
		return err
	}
	if len(points) != 0 {
		return fmt.Errorf("remove %s: %s is still mounted", l.Dir, points[0])
	}
	if err := os.RemoveAll(l.Dir); err != nil {
		return fmt.Errorf("remove the cluster's folder: %w", err)
	}
	return nil
}
