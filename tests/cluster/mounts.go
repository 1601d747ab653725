package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"syscall"
)

// mountsBelow returns the mount points at or below a folder in the order in
// which they can be unmounted: longest path first, and of several on the same
// path the last mounted first.
func mountsBelow(mountinfo, dir string) []string {
	var points []string
	scanner := bufio.NewScanner(strings.NewReader(mountinfo))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 5 {
			continue
		}
		point := unescapeMount(fields[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			points = append(points, point)
		}
	}
	// Later lines are later mounts.
	for i, j := 0, len(points)-1; i < j; i, j = i+1, j-1 {
		points[i], points[j] = points[j], points[i]
	}
	sort.SliceStable(points, func(i, j int) bool { return len(points[i]) > len(points[j]) })
	return points
}

// unescapeMount undoes the kernel's octal escapes of blanks and backslashes.
func unescapeMount(text string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(text)
}

func currentMounts(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	return mountsBelow(string(text), dir), nil
}

// unmountBelow unmounts everything at or below a folder. Unmounting one may
// uncover or free another, so it looks again until nothing is left.
func unmountBelow(dir string) error {
	const rounds = 5
	for round := range rounds {
		points, err := currentMounts(dir)
		if err != nil {
			return err
		}
		if len(points) == 0 {
			return nil
		}
		flags := 0
		if round >= 2 {
			flags = syscall.MNT_DETACH // somebody looks into it; it goes when they leave
		}
		for _, point := range points {
			err := syscall.Unmount(point, flags)
			if err != nil && !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
				return fmt.Errorf("unmount %s: %w", point, err)
			}
		}
	}
	points, err := currentMounts(dir)
	if err != nil {
		return err
	}
	if len(points) != 0 {
		return fmt.Errorf("unmount %s and %d more: still mounted", points[0], len(points)-1)
	}
	return nil
}

// shareKubeletRoot makes the kubelet's folder a mount of its own whose inner
// mounts show in the kubelet's mount namespace and in the machine's alike.
func shareKubeletRoot(l Layout) error {
	if err := os.MkdirAll(l.kubelet(), 0o755); err != nil {
		return fmt.Errorf("make the kubelet's folder: %w", err)
	}
	if err := syscall.Mount(l.kubelet(), l.kubelet(), "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the kubelet's folder: %w", err)
	}
	if err := syscall.Mount("", l.kubelet(), "", syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share the kubelet's folder: %w", err)
	}
	return nil
}
