package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// hierarchy is a mounted cgroup tree.
type hierarchy struct {
	point   string
	unified bool
}

// hierarchies reads the mounted cgroup trees.
func hierarchies(mountinfo string) []hierarchy {
	var found []hierarchy
	scanner := bufio.NewScanner(strings.NewReader(mountinfo))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		before, after, ok := strings.Cut(scanner.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) == 0 {
			continue
		}
		// Only whole trees: a bind mount of a part has another root.
		if (kind[0] == "cgroup" || kind[0] == "cgroup2") && fields[3] == "/" {
			found = append(found, hierarchy{point: unescapeMount(fields[4]), unified: kind[0] == "cgroup2"})
		}
	}
	return found
}

// cgroupFolders are our folders in every tree, existing or not.
func cgroupFolders() ([]hierarchy, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the cgroup mounts: %w", err)
	}
	trees := hierarchies(string(text))
	for i := range trees {
		trees[i].point = filepath.Join(trees[i].point, cgroupName)
	}
	return trees, nil
}

// createCgroups makes the folder that the kubelet puts all pods under. Beside
// version 1 trees a version 2 tree carries no controllers and is not used.
func createCgroups() error {
	folders, err := cgroupFolders()
	if err != nil {
		return err
	}
	if len(folders) == 0 {
		return errors.New("make the cluster's cgroup: no cgroup tree is mounted")
	}
	versionOne := false
	for _, f := range folders {
		versionOne = versionOne || !f.unified
	}
	for _, f := range folders {
		if f.unified && versionOne {
			continue
		}
		if err := os.MkdirAll(f.point, 0o755); err != nil {
			return fmt.Errorf("make the cluster's cgroup: %w", err)
		}
		if f.unified {
			continue
		}
		// A version 1 cpuset starts empty, and nothing can join an empty one.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			parent, err := os.ReadFile(filepath.Join(filepath.Dir(f.point), file))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(f.point, file), parent, 0o644)
			}
			if err != nil {
				return fmt.Errorf("fill %s of the cluster's cgroup: %w", file, err)
			}
		}
	}
	return nil
}

// killCgroups ends every process in our cgroup folders, the containers, and returns them.
func killCgroups(limit time.Duration) ([]processRecord, error) {
	folders, err := cgroupFolders()
	if err != nil {
		return nil, err
	}
	ended, err := endAll(func() []processRecord {
		var records []processRecord
		for _, f := range folders {
			for _, pid := range pidsBelow(f.point) {
				if r, err := recordOf(pid); err == nil && r.alive() {
					records = append(records, r)
				}
			}
		}
		return records
	}, limit)
	if err != nil {
		return ended, fmt.Errorf("end the containers: %w", err)
	}
	return ended, nil
}

func pidsBelow(dir string) []int {
	var pids []int
	filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error { //nolint:errcheck // folders vanish while we look
		if err != nil || entry.Name() != "cgroup.procs" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// removeCgroups removes our folders, the deepest first. A cgroup whose last
// process has just ended may refuse for a moment.
func removeCgroups() error {
	folders, err := cgroupFolders()
	if err != nil {
		return err
	}
	for _, f := range folders {
		deadline := time.Now().Add(5 * time.Second)
		for {
			err := removeTree(f.point)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("remove the cluster's cgroup: %w", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("rmdir %s: %w", dir, err)
	}
	return nil
}
