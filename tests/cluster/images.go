package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// writeStaticImage writes an OCI archive with one layer that holds one static
// program, which is also the image's command. The same program always gives
// the same bytes.
func writeStaticImage(to io.Writer, name string, program []byte, file string) error {
	var layer bytes.Buffer
	if err := writeTar(&layer, []tarFile{{name: file, mode: 0o755, content: program}}); err != nil {
		return fmt.Errorf("write the layer of image %s: %w", name, err)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64",
		"os":           "linux",
		"config":       map[string]any{"User": "65535:65535", "Entrypoint": []string{"/" + file}},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{digest(layer.Bytes())}},
	})
	if err != nil {
		return fmt.Errorf("render the configuration of image %s: %w", name, err)
	}
	const oci = "application/vnd.oci.image."
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     oci + "manifest.v1+json",
		"config":        descriptor(oci+"config.v1+json", config, nil),
		"layers":        []any{descriptor(oci+"layer.v1.tar", layer.Bytes(), nil)},
	})
	if err != nil {
		return fmt.Errorf("render the manifest of image %s: %w", name, err)
	}
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"manifests": []any{descriptor(oci+"manifest.v1+json", manifest,
			map[string]string{"io.containerd.image.name": name})},
	})
	if err != nil {
		return fmt.Errorf("render the index of image %s: %w", name, err)
	}
	err = writeTar(to, []tarFile{
		{name: "oci-layout", mode: 0o644, content: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{name: "index.json", mode: 0o644, content: index},
		{name: blobPath(manifest), mode: 0o644, content: manifest},
		{name: blobPath(config), mode: 0o644, content: config},
		{name: blobPath(layer.Bytes()), mode: 0o644, content: layer.Bytes()},
	})
	if err != nil {
		return fmt.Errorf("write the archive of image %s: %w", name, err)
	}
	return nil
}

type tarFile struct {
	name    string
	mode    int64
	content []byte
}

func writeTar(to io.Writer, files []tarFile) error {
	w := tar.NewWriter(to)
	for _, f := range files {
		header := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		if _, err := w.Write(f.content); err != nil {
			return err
		}
	}
	return w.Close()
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func blobPath(content []byte) string {
	return "blobs/" + strings.Replace(digest(content), ":", "/", 1)
}

func descriptor(mediaType string, content []byte, annotations map[string]string) map[string]any {
	d := map[string]any{"mediaType": mediaType, "digest": digest(content), "size": len(content)}
	if annotations != nil {
		d["annotations"] = annotations
	}
	return d
}

// ctr runs containerd's own client in the namespace that the kubelet uses.
func ctr(l Layout, args ...string) (string, error) {
	return commandOutput(append([]string{"ctr", "--address", l.containerdSocket(), "--namespace", "k8s.io"}, args...)...)
}

// importProgram makes an image that holds one of our programs, unless the node
// has it already.
func importProgram(ctx context.Context, l Layout, image, program string) error {
	if seenByNode(l, image) == nil {
		return nil
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("read the program of image %s: %w", image, err)
	}
	name := filepath.Base(program)
	file, err := os.Create(l.path(name + ".tar"))
	if err != nil {
		return fmt.Errorf("write the image %s: %w", image, err)
	}
	defer os.Remove(file.Name()) //nolint:errcheck // goes with the folder at the latest
	defer file.Close()
	if err := writeStaticImage(file, image, content, name); err != nil {
		return err
	}
	_, err = importImage(ctx, l, file.Name())
	return err
}

// seenByNode tells whether the kubelet can use an image. Its view of the store
// follows by events; it has seen an image once the label is there.
func seenByNode(l Layout, image string) error {
	seen, err := ctr(l, "images", "ls", "-q", "name=="+image+",labels.\"io.cri-containerd.image\"==managed")
	if err != nil {
		return err
	}
	if strings.TrimSpace(seen) == "" {
		return errors.New("not seen yet")
	}
	return nil
}

// importImage imports one archive, waits until the kubelet can see what came,
// and returns the imported names.
func importImage(ctx context.Context, l Layout, path string) ([]string, error) {
	out, err := ctr(l, "images", "import", path)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", path, err)
	}
	names := importedNames(out)
	if len(names) == 0 {
		return nil, fmt.Errorf("import %s: the archive names no image; an OCI archive needs the annotation io.containerd.image.name, a Docker archive a repository tag", path)
	}
	for _, name := range names {
		err := await(ctx, "image "+name+" to be seen by the node", 30*time.Second, 20*time.Millisecond, func() error {
			return seenByNode(l, name)
		})
		if err != nil {
			return nil, err
		}
	}
	return names, nil
}

// importedNames reads the image names from lines such as
// "unpacking patchbay.dev/pause:1 (sha256:…)...done".
func importedNames(output string) []string {
	var names []string
	for _, line := range strings.Split(output, "\n") {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "unpacking ")
		if name, _, found := strings.Cut(rest, " "); ok && found {
			names = append(names, name)
		}
	}
	return names
}

func loadImages(ctx context.Context, l Layout, paths []string) error {
	if !componentAlive(l, "containerd") {
		return errNotRunning
	}
	for _, path := range paths {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return fmt.Errorf("import %s: %w", path, err)
		}
		names, err := importImage(ctx, l, absolute)
		if err != nil {
			return err
		}
		say("loaded %s", strings.Join(names, ", "))
	}
	return nil
}

// runCtr replaces this process by containerd's client.
func runCtr(l Layout, args []string) error {
	if !componentAlive(l, "containerd") {
		return errNotRunning
	}
	program, err := systemProgram("ctr")
	if err != nil {
		return err
	}
	argv := append([]string{"ctr", "--address", l.containerdSocket(), "--namespace", "k8s.io"}, args...)
	if err := syscall.Exec(program, argv, os.Environ()); err != nil {
		return fmt.Errorf("run ctr: %w", err)
	}
	return nil
}
