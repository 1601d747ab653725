package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// archivesKept is how many files of one image stay in a cache folder.
const archivesKept = 4

// archive writes an OCI archive that `ctr -n k8s.io images import` gives its full name, and
// returns its path. Without a folder it goes into the cache.
func (w *workshop) archive(built builtImage, folder string) (string, error) {
	name := built.name + ".tar"
	if folder == "" {
		folder = filepath.Join(w.cache, "images")
		name = fmt.Sprintf("%s-%s-%s.tar", built.name, built.digest.Hex[:20], built.tag)
	}
	file := filepath.Join(folder, name)
	if folder == filepath.Join(w.cache, "images") {
		// The name says the content, so what is there is right.
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
		defer prune(folder, built.name)
	}
	err := writeWhole(file, func(out io.Writer) error { return writeArchive(out, built) })
	if err != nil {
		return "", fmt.Errorf("writing the archive of %s: %w", built.reference(), err)
	}
	return file, nil
}

// writeArchive writes the OCI layout of one image as a tar.
func writeArchive(out io.Writer, built builtImage) error {
	descriptor, err := partial.Descriptor(built.image)
	if err != nil {
		return err
	}
	descriptor.Annotations = map[string]string{
		"io.containerd.image.name":          built.reference(),
		"org.opencontainers.image.ref.name": built.tag,
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests:     []v1.Descriptor{*descriptor},
	})
	if err != nil {
		return err
	}
	archive := tar.NewWriter(out)
	for _, folder := range []string{"blobs/", "blobs/sha256/"} {
		header := &tar.Header{Typeflag: tar.TypeDir, Name: folder, Mode: 0o755, ModTime: epoch}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
	}
	if err := writeBlobs(archive, built.image); err != nil {
		return err
	}
	if err := writeFile(archive, "index.json", index); err != nil {
		return err
	}
	if err := writeFile(archive, "oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	return archive.Close()
}

func writeBlobs(archive *tar.Writer, image v1.Image) error {
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return err
		}
		size, err := layer.Size()
		if err != nil {
			return err
		}
		content, err := layer.Compressed()
		if err != nil {
			return err
		}
		err = writeBlob(archive, digest, size, content)
		content.Close()
		if err != nil {
			return err
		}
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return err
	}
	configName, err := image.ConfigName()
	if err != nil {
		return err
	}
	if err := writeBlob(archive, configName, int64(len(config)), bytes.NewReader(config)); err != nil {
		return err
	}
	manifest, err := image.RawManifest()
	if err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	return writeBlob(archive, digest, int64(len(manifest)), bytes.NewReader(manifest))
}

func writeBlob(archive *tar.Writer, digest v1.Hash, size int64, content io.Reader) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: "blobs/sha256/" + digest.Hex, Size: size, Mode: 0o644, ModTime: epoch}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(archive, content)
	return err
}

func writeFile(archive *tar.Writer, name string, data []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644, ModTime: epoch}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(data)
	return err
}

// prune removes the oldest files of one image from a cache folder. What cannot be removed
// stays: it is only a cache.
func prune(folder, name string) {
	ours := regexp.MustCompile("^" + regexp.QuoteMeta(name) + `-[0-9a-f]{20}(-.*)?\.tar$`)
	found, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	type aged struct {
		file string
		time int64
	}
	var files []aged
	for _, item := range found {
		info, err := item.Info()
		if err == nil && ours.MatchString(item.Name()) {
			files = append(files, aged{filepath.Join(folder, item.Name()), info.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(files, func(a, b aged) int {
		if a.time != b.time {
			return int(b.time - a.time)
		}
		return strings.Compare(a.file, b.file)
	})
	for _, old := range files[min(archivesKept, len(files)):] {
		_ = os.Remove(old.file)
	}
}
