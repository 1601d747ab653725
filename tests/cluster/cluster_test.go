package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMountsAreListedInTheOrderInWhichTheyCanBeUnmounted(t *testing.T) {
	info := `22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:4 net:[1] /state/netns/node rw - nsfs nsfs rw
31 22 254:0 /state/kubelet /state/kubelet rw shared:1 - ext4 /dev/vda rw
32 31 0:40 / /state/kubelet/pods/a/volumes/m rw - tmpfs tmpfs rw
33 22 0:41 / /state-of-others rw - tmpfs tmpfs rw
34 31 0:42 / /state/kubelet/pods/with\040blank rw - tmpfs tmpfs rw
35 31 0:43 / /state/kubelet rw - tmpfs second rw
broken line
`
	want := []string{
		"/state/kubelet/pods/a/volumes/m", "/state/kubelet/pods/with blank",
		"/state/netns/node", "/state/kubelet", "/state/kubelet",
	}
	if got := mountsBelow(info, "/state"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCgroupTreesAreFoundWholeOnly(t *testing.T) {
	info := `40 22 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
41 22 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
42 22 0:30 /part /somewhere/else rw - cgroup cgroup rw,cpu
43 22 0:32 / /sys/fs/cgroup rw - tmpfs tmpfs rw
`
	want := []hierarchy{{point: "/sys/fs/cgroup/cpu"}, {point: "/sys/fs/cgroup/unified", unified: true}}
	if got := hierarchies(info); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestStatOfAProgramWithAConfusingName(t *testing.T) {
	line := "7 (a) R (b) S 1 7 7 0 -1 4194560 1 0 0 0 1 2 3 4 20 0 1 0 98765 1000 10"
	got, err := parseStat(line)
	if err != nil || got.state != 'S' || got.startTicks != 98765 {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "7 (a", "7 (a) S 1 2", "7 (a) S 1 7 7 0 -1 4194560 1 0 0 0 1 2 3 4 20 0 1 0 soon 1 1"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestAProcessThatIsNotQuiteDeadRuns(t *testing.T) {
	for line, running := range map[string]bool{
		"7 (a) Z 1 7 7 0 -1 4194560 1 0 0 0 1 2 3 4 20 0 1 0 98765 1000 10": false,
		"7 (a) Z 1 7 7 0 -1 4194560 1 0 0 0 1 2 3 4 20 0 5 0 98765 1000 10": true,
	} {
		if got, err := parseStat(line); err != nil || got.running() != running {
			t.Errorf("%q: got %+v, %v", line, got, err)
		}
	}
}

func TestOnlyTheRecordedProcessIsEnded(t *testing.T) {
	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { child.Wait(); close(ended) }() //nolint:errcheck // killed on purpose
	defer child.Process.Kill()                 //nolint:errcheck // ended already when the test passes
	right, err := recordOf(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	earlier, otherBoot := right, right
	earlier.StartTicks--
	otherBoot.BootID = "another"
	for _, wrong := range []processRecord{earlier, otherBoot} {
		if wrong.alive() {
			t.Errorf("%+v counts as alive", wrong)
		}
		if err := kill([]processRecord{wrong}, time.Second); err != nil {
			t.Errorf("a record of a process that is gone: %v", err)
		}
	}
	if !right.alive() {
		t.Fatal("a record of another process ended this one")
	}
	if err := kill([]processRecord{right}, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	<-ended
	if right.alive() {
		t.Error("an ended process counts as alive")
	}
}

func TestTheHashFollowsWhatWouldBeStarted(t *testing.T) {
	hash := func(dir string, p programs) string {
		l, err := newLayout(dir)
		if err != nil {
			t.Fatal(err)
		}
		h, err := configHash(l, p, components(l, p, "/usr/bin/containerd"))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	first := hash("/var/lib/a", programs{"etcd": "/cache/etcd-1"})
	if again := hash("/var/lib/a/", programs{"etcd": "/cache/etcd-1"}); again != first {
		t.Error("the same configuration has two hashes")
	}
	if hash("/var/lib/b", programs{"etcd": "/cache/etcd-1"}) == first {
		t.Error("another folder has the same hash")
	}
	if hash("/var/lib/a", programs{"etcd": "/cache/etcd-2"}) == first {
		t.Error("another program has the same hash")
	}
	if hash("/var/lib/a", programs{"etcd": "/cache/etcd-1", "coredns": "/cache/coredns-v2-3/coredns"}) == first {
		t.Error("a DNS server of another build has the same hash")
	}
}

func TestEveryComponentIsStoppedAndStarted(t *testing.T) {
	all := components(Layout{Dir: "/var/lib/a"}, programs{}, "containerd")
	if got, want := slices.Sorted(slices.Values(stopOrder)), sortedKeys(all); !slices.Equal(got, want) {
		t.Errorf("stopped: %v, known: %v", got, want)
	}
}

func TestFoldersThatMustNeverBeRemovedAreRefused(t *testing.T) {
	for _, dir := range []string{"", "/", "/var", "/var/..", "relative/folder", "/var/with blank", "/var/" + strings.Repeat("long", 20)} {
		if _, err := newLayout(dir); err == nil {
			t.Errorf("%q is accepted", dir)
		}
	}
	if _, err := newLayout("/var/lib/fine"); err != nil {
		t.Error(err)
	}
}

func TestTheKubeletIsShownTheKernelSettingsItWants(t *testing.T) {
	l := Layout{Dir: "/state"}
	script := kubeletWrapper(l)
	files, err := configFiles(l, programs{})
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range kernelTunables {
		path := l.path("tunables", flatName(name))
		if !strings.Contains(script, "mount --bind "+path+" /proc/sys/"+name+"\n") {
			t.Errorf("%s is not covered", name)
		}
		if files[path] != value+"\n" {
			t.Errorf("%s holds %q", path, files[path])
		}
	}
	private := strings.Index(script, "--make-rprivate /proc")
	if private < 0 || private > strings.Index(script, "mount --bind") {
		t.Error("the covers would show on the machine: /proc is not made private first")
	}
}

func TestRenderedJSONParses(t *testing.T) {
	l := Layout{Dir: "/state"}
	files, err := configFiles(l, programs{})
	if err != nil {
		t.Fatal(err)
	}
	parsed := 0
	for path, text := range files {
		if strings.HasSuffix(path, ".json") || strings.HasSuffix(path, ".conflist") {
			var v any
			if err := json.Unmarshal([]byte(text), &v); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			parsed++
		}
	}
	if parsed != 4 {
		t.Errorf("%d JSON files, want those of the kubelet, the CNI, the audit and the DNS", parsed)
	}
}

func TestOnlyOurCNIResultsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"patchbay-cluster-c1-eth0": `{"networkName":"patchbay-cluster","containerId":"c1"}`,
		"cni-loopback-c1-lo":       `{"networkName":"cni-loopback","containerId":"c1"}`,
		"cni-loopback-c2-lo":       `{"networkName":"cni-loopback","containerId":"c2"}`,
		"others-c2-eth0":           `{"networkName":"others","containerId":"c2"}`,
		"patchbay-cluster-noise":   `not JSON`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeCNIResults(dir); err != nil {
		t.Fatal(err)
	}
	want := []string{"cni-loopback-c2-lo", "others-c2-eth0", "patchbay-cluster-noise"}
	if got := namesIn(t, dir); !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
	if err := removeCNIResults(filepath.Join(dir, "missing")); err != nil {
		t.Error(err)
	}
}

func TestOnlyLinksIntoOurFolderAreRemoved(t *testing.T) {
	dir := t.TempDir()
	for name, to := range map[string]string{
		"ours.log": "/state/pod-logs/a/0.log", "neighbour.log": "/state-2/a/0.log", "other.log": "/var/log/pods/b/0.log",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeLinksInto(dir, "/state"); err != nil {
		t.Fatal(err)
	}
	if got, want := namesIn(t, dir), []string{"neighbour.log", "other.log"}; !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
}

func namesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestAnImageArchiveHoldsWhatItsIndexSays(t *testing.T) {
	var first, second bytes.Buffer
	for _, to := range []io.Writer{&first, &second} {
		if err := writeStaticImage(to, "patchbay.dev/x:1", []byte("program"), "x"); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same program gives different archives")
	}
	files := map[string][]byte{}
	for archive := tar.NewReader(&first); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
	type blob struct {
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations"`
	}
	load := func(b blob) []byte {
		content := files["blobs/"+strings.Replace(b.Digest, ":", "/", 1)]
		if digest(content) != b.Digest || len(content) != b.Size {
			t.Errorf("blob %s is missing or wrong", b.Digest)
		}
		return content
	}
	var index struct{ Manifests []blob }
	var manifest struct {
		Config blob
		Layers []blob
	}
	if err := json.Unmarshal(files["index.json"], &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("index: %v, %+v", err, index)
	}
	if index.Manifests[0].Annotations["io.containerd.image.name"] != "patchbay.dev/x:1" {
		t.Error("the image has no name")
	}
	if err := json.Unmarshal(load(index.Manifests[0]), &manifest); err != nil || len(manifest.Layers) != 1 {
		t.Fatalf("manifest: %v, %+v", err, manifest)
	}
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(load(manifest.Config), &config); err != nil {
		t.Fatal(err)
	}
	if layer := load(manifest.Layers[0]); !slices.Equal(config.RootFS.DiffIDs, []string{digest(layer)}) {
		t.Error("the configuration names another layer")
	}
}

func TestImportedNamesAreRead(t *testing.T) {
	out := "unpacking patchbay.dev/pause:1 (sha256:00)...done\nunpacking a/b:2 (sha256:11)...done\nsomething else\n"
	if got, want := importedNames(out), []string{"patchbay.dev/pause:1", "a/b:2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBuildOutputBecomesProgress(t *testing.T) {
	p := &buildProgress{}
	p.read(strings.NewReader("go: downloading k8s.io/api v0.34.4\ninternal/abi\nk8s.io/api/core/v1\n# k8s.io/x\n./main.go:3:1: syntax error\n"))
	if got, want := p.line(), "2 packages compiled, at k8s.io/api/core/v1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := p.tail(), "# k8s.io/x\n./main.go:3:1: syntax error"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTheToolKeyFollowsTheSources(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func(x tool) string {
		k, err := toolKey(x, dir)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	write("go.mod", "module x\n")
	x := tool{name: "x", version: "v1", pkg: "."}
	bare := key(x)
	if !strings.HasPrefix(bare, "x-v1-") || key(x) != bare {
		t.Errorf("key %q", bare)
	}
	write("go.sum", "sum\n")
	withSum := key(x)
	x.ldflags = "-X a=b"
	withFlags := key(x)
	if withSum == bare || withFlags == withSum {
		t.Error("a change of go.sum or of the linker's flags keeps the key")
	}
}

func TestALockExcludesUntilItIsGivenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lockFile(context.Background(), path, "the test")
	if err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := lockFile(impatient, path, "the test"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second holder was let in: %v", err)
	}
	// As `down` does: remove it while holding it. The next one gets a new file.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	unlock()
	unlock, err = lockFile(context.Background(), path, "the test")
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if _, err := os.Stat(path); err != nil {
		t.Error("the lock is held on a file that nobody else can find")
	}
}

func TestAwaitEndsAtOnceWhenNothingCanComeAnyMore(t *testing.T) {
	tries := 0
	err := await(context.Background(), "it", time.Hour, time.Millisecond, func() error {
		tries++
		if tries < 3 {
			return errors.New("not yet")
		}
		return deadError{name: "etcd"}
	})
	if err == nil || tries != 3 || !strings.Contains(err.Error(), "etcd ended") {
		t.Errorf("after %d tries: %v", tries, err)
	}
}
