package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// builtImage is an image that lies ready in the cache.
type builtImage struct {
	name       string
	repository string
	tag        string
	digest     v1.Hash
	image      v1.Image
}

// reference is the name by which pods ask for it.
func (b builtImage) reference() string { return b.repository + ":" + b.tag }

// contentTag stands for a tag that is made from the image's digest.
const contentTag = "content"

// build assembles an image. tag replaces the tag of images that have none of their own.
func (w *workshop) build(name, tag string) (builtImage, error) {
	definition := w.definitions.Images[name]
	var layers []v1.Layer
	if definition.Base != "" {
		file, err := w.base(definition.Base)
		if err != nil {
			return builtImage{}, err
		}
		layer, err := openLayer(file)
		if err != nil {
			return builtImage{}, err
		}
		layers = append(layers, layer)
	}
	own, err := w.ownLayer(name, definition)
	if err != nil {
		return builtImage{}, err
	}
	image, err := assemble(definition, append(layers, own))
	if err != nil {
		return builtImage{}, fmt.Errorf("assembling image %s: %w", name, err)
	}
	digest, err := image.Digest()
	if err != nil {
		return builtImage{}, err
	}
	if definition.Tag != "" {
		tag = definition.Tag
	}
	if tag == contentTag {
		tag = "c-" + digest.Hex[:12]
	}
	return builtImage{name: name, repository: definition.Repository, tag: tag, digest: digest, image: image}, nil
}

// ownLayer writes the layer with the image's own files, unless one with the same content is
// in the cache.
func (w *workshop) ownLayer(name string, definition Image) (v1.Layer, error) {
	entries := skeleton(definition.Base != "")
	key := sha256.New()
	for _, file := range definition.Files {
		source, err := w.source(file.From)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		digest, _, err := fileDigest(source)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		mode, err := file.mode()
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{to: file.To, mode: mode, source: source})
		fmt.Fprintf(key, "%s %o %s\n", file.To, mode, digest)
	}
	for _, item := range entries {
		fmt.Fprintf(key, "%s %o %q\n", item.to, item.mode, item.data)
	}
	file := filepath.Join(w.cache, "images", "layers", name+"-"+hex.EncodeToString(key.Sum(nil))[:20]+".tar")
	if _, err := os.Stat(file); err != nil {
		err := writeWhole(file, func(out io.Writer) error { return writeLayer(out, entries) })
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		prune(filepath.Join(w.cache, "images", "layers"), name)
	}
	return openLayer(file)
}

// assemble puts layers and start-up data together. Nothing in it depends on time or place.
func assemble(definition Image, layers []v1.Layer) (v1.Image, error) {
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	addenda := make([]mutate.Addendum, 0, len(layers))
	for _, layer := range layers {
		addenda = append(addenda, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: epoch}}})
	}
	image, err := mutate.Append(image, addenda...)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Created = v1.Time{Time: epoch}
	config.Config = v1.Config{
		User:       fmt.Sprintf("%d:%d", user, user),
		Env:        append([]string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp"}, definition.Env...),
		Entrypoint: definition.Entrypoint,
		WorkingDir: "/",
	}
	return mutate.ConfigFile(image, config)
}

// rustTarget is the target triple that the workspace builds for on this machine.
func rustTarget() string {
	if runtime.GOARCH == "arm64" {
		return "aarch64-unknown-linux-gnu"
	}
	return "x86_64-unknown-linux-gnu"
}

// hashOf is the hexadecimal SHA-256 of a value's JSON form.
func hashOf(value any) (string, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}
