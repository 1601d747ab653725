package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"
)

// tool is one program built from Go modules. Its folder under tools/ has an own
// go.mod, so that the dependency versions of the tools stay apart.
type tool struct {
	name    string
	version string
	pkg     string   // what is built, as `go build` takes it
	ldflags string   // besides -s -w
	links   []string // further names of the program, made as links beside it
}

const kubernetesVersion = "v1.34.4"

var tools = []tool{
	{
		name: "kubernetes", version: kubernetesVersion, pkg: ".",
		ldflags: "-X k8s.io/component-base/version.gitVersion=" + kubernetesVersion +
			" -X k8s.io/component-base/version.gitMajor=1" +
			" -X k8s.io/component-base/version.gitMinor=34" +
			" -X k8s.io/component-base/version.gitTreeState=clean",
		links: []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"},
	},
	{name: "etcd", version: "v3.6.6", pkg: "go.etcd.io/etcd/server/v3"},
	{name: "kube-router", version: "v2.2.1", pkg: "."},
	{name: "pause", version: "v1", pkg: "."},
	{name: "coredns", version: "v1.12.4", pkg: "."},
	{
		name: "helm", version: "v3.19.0", pkg: "helm.sh/helm/v3/cmd/helm",
		// Without the last two, charts are rendered as if for Kubernetes 1.20.
		ldflags: "-X helm.sh/helm/v3/internal/version.version=v3.19.0" +
			" -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1" +
			" -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=34",
	},
}

// nodeTools are the tools that a running cluster needs.
var nodeTools = []string{"kubernetes", "etcd", "kube-router", "pause", "coredns"}

// heartbeat is the longest silence during a build.
const heartbeat = 10 * time.Second

// programs maps program names to paths of built programs.
type programs map[string]string

// toolOf finds the tool that provides a program.
func toolOf(program string) (tool, bool) {
	for _, t := range tools {
		if t.name == program {
			return t, true
		}
		for _, link := range t.links {
			if link == program {
				return t, true
			}
		}
	}
	return tool{}, false
}

// sourceDir is the folder of this program's own source, where tools/ lies.
func sourceDir() (string, error) {
	candidates := []string{"."}
	if _, file, _, ok := runtime.Caller(0); ok {
		candidates = append([]string{filepath.Dir(file)}, candidates...)
	}
	for _, dir := range candidates {
		if _, err := os.Stat(filepath.Join(dir, "tools", "kubernetes", "go.mod")); err == nil {
			return filepath.Abs(dir)
		}
	}
	return "", fmt.Errorf("find the sources of the cluster's tools: no folder tools/ beside this program's source; run it from tests/cluster")
}

func cacheDir() (string, error) {
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the cache folder: %w", err)
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "patchbay", "cluster-bin"), nil
}

// toolKey identifies a build by everything of ours that goes into it.
func toolKey(t tool, dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return "", fmt.Errorf("list the sources of %s: %w", t.name, err)
	}
	sort.Strings(files)
	files = append(files, filepath.Join(dir, "go.mod"), filepath.Join(dir, "go.sum"))
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %s %s %s/%s\n", t.pkg, t.ldflags, strings.Join(t.links, ","), runtime.GOOS, runtime.GOARCH)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if os.IsNotExist(err) && filepath.Base(file) == "go.sum" {
			continue // a tool without dependencies has none
		}
		if err != nil {
			return "", fmt.Errorf("read the sources of %s: %w", t.name, err)
		}
		fmt.Fprintf(sum, "%s %d\n", filepath.Base(file), len(text))
		sum.Write(text)
	}
	return t.name + "-" + t.version + "-" + hex.EncodeToString(sum.Sum(nil))[:12], nil
}

// cachedTool is a tool with the places of its source and of its built programs.
type cachedTool struct {
	tool
	source, cache, target string
}

// locateTools computes where the named tools' programs are or will be.
func locateTools(names []string) ([]cachedTool, programs, error) {
	source, err := sourceDir()
	if err != nil {
		return nil, nil, err
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, nil, err
	}
	var located []cachedTool
	paths := programs{}
	for _, name := range names {
		t, ok := toolOf(name)
		if !ok {
			return nil, nil, fmt.Errorf("build %q: there is no such tool", name)
		}
		dir := filepath.Join(source, "tools", t.name)
		key, err := toolKey(t, dir)
		if err != nil {
			return nil, nil, err
		}
		target := filepath.Join(cache, key)
		located = append(located, cachedTool{tool: t, source: dir, cache: cache, target: target})
		for _, program := range append([]string{t.name}, t.links...) {
			paths[program] = filepath.Join(target, program)
		}
	}
	return located, paths, nil
}

// ensureTools builds the named tools unless they are cached, and returns the
// paths of all their programs.
func ensureTools(ctx context.Context, names []string) (programs, error) {
	located, paths, err := locateTools(names)
	if err != nil {
		return nil, err
	}
	for _, t := range located {
		if err := ensureTool(ctx, t.tool, t.source, t.cache, t.target); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

func ensureTool(ctx context.Context, t tool, dir, cache, target string) error {
	if built(t, target) {
		return nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fmt.Errorf("make the cache folder: %w", err)
	}
	unlock, err := lockFile(ctx, filepath.Join(cache, ".lock-"+t.name), "the build of "+t.name)
	if err != nil {
		return err
	}
	defer unlock()
	if built(t, target) {
		return nil // somebody else built it while we waited
	}
	work, err := os.MkdirTemp(cache, ".building-"+t.name+"-")
	if err != nil {
		return fmt.Errorf("make a build folder: %w", err)
	}
	defer os.RemoveAll(work)
	if err := goBuild(ctx, t, dir, filepath.Join(work, t.name)); err != nil {
		return err
	}
	for _, link := range t.links {
		if err := os.Symlink(t.name, filepath.Join(work, link)); err != nil {
			return fmt.Errorf("link %s: %w", link, err)
		}
	}
	if err := os.Chmod(work, 0o755); err != nil {
		return fmt.Errorf("open the build folder of %s to readers: %w", t.name, err)
	}
	if err := os.RemoveAll(target); err != nil {
		return fmt.Errorf("remove an incomplete build of %s: %w", t.name, err)
	}
	if err := os.Rename(work, target); err != nil {
		return fmt.Errorf("put the built %s into the cache: %w", t.name, err)
	}
	return nil
}

func built(t tool, target string) bool {
	for _, name := range append([]string{t.name}, t.links...) {
		if _, err := os.Stat(filepath.Join(target, name)); err != nil {
			return false
		}
	}
	return true
}

func goBuild(ctx context.Context, t tool, dir, output string) error {
	if _, err := exec.LookPath("go"); err != nil {
		return fmt.Errorf("build %s: the go command is not in PATH", t.name)
	}
	start := time.Now()
	say("building %s %s (once; cached afterwards)", t.name, t.version)
	// The linker drops debug information; not to make it saves an eighth of the compiler's time.
	cmd := exec.CommandContext(ctx, "go", "build", "-v", "-mod=readonly", "-buildvcs=false", "-trimpath", "-gcflags=all=-dwarf=false",
		"-ldflags", strings.TrimSpace("-s -w "+t.ldflags), "-o", output, t.pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	reader, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer

	progress := &buildProgress{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		progress.read(reader)
	}()
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	finished := make(chan error, 1)
	go func() { finished <- cmd.Run() }()
	for {
		select {
		case <-ticker.C:
			say("  %s: %s, %d s", t.name, progress.line(), int(time.Since(start).Seconds()))
			continue
		case err := <-finished:
			writer.Close()
			<-done
			if ctx.Err() != nil {
				return fmt.Errorf("build %s: interrupted", t.name)
			}
			if err != nil {
				return fmt.Errorf("build %s: %w\n%s", t.name, err, progress.tail())
			}
		}
		break
	}
	say("  %s is built, %d s", t.name, int(time.Since(start).Seconds()))
	return nil
}

// buildProgress understands what `go build -v` prints: one package path a line
// as each is compiled, lines about downloads, and errors.
type buildProgress struct {
	mu       sync.Mutex
	compiled int
	fetched  int
	last     string
	lines    []string
}

func (p *buildProgress) read(from io.Reader) {
	scanner := bufio.NewScanner(from)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		p.add(scanner.Text())
	}
	io.Copy(io.Discard, from) //nolint:errcheck // an overlong line must not block the compiler
}

func (p *buildProgress) add(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if module, ok := strings.CutPrefix(line, "go: downloading "); ok {
		p.fetched++
		p.last = "downloading " + module
		return
	}
	if line != "" && !strings.ContainsAny(line, " \t:#") {
		p.compiled++
		p.last = "at " + line
		return
	}
	p.lines = append(p.lines, line)
	if len(p.lines) > 30 {
		p.lines = p.lines[1:]
	}
}

func (p *buildProgress) line() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.last == "":
		return "looking at the dependencies"
	case p.compiled == 0:
		return fmt.Sprintf("%d modules fetched, %s", p.fetched, p.last)
	}
	return fmt.Sprintf("%d packages compiled, %s", p.compiled, p.last)
}

func (p *buildProgress) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// printProgram answers `bin`: built programs first, then those of packages.
func printProgram(ctx context.Context, name string) error {
	if t, ok := toolOf(name); ok {
		found, err := ensureTools(ctx, []string{t.name})
		if err != nil {
			return err
		}
		fmt.Println(found[name])
		return nil
	}
	path, err := systemProgram(name)
	if err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

// prepare makes everything that a later `up` or Helm call would have to wait for.
func prepare(ctx context.Context) error {
	if err := ensurePackages(ctx); err != nil {
		return err
	}
	var names []string
	for _, t := range tools {
		names = append(names, t.name)
	}
	_, err := ensureTools(ctx, names)
	return err
}
