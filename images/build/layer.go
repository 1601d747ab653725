package main

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// user is the user and group that every image runs as.
const user = 65532

// epoch is the time of everything in an image, so that equal content gives an equal digest.
var epoch = time.Unix(0, 0).UTC()

// entry is one thing in a layer: a folder when folder is set, else the file at source, else data.
type entry struct {
	to     string
	mode   int64
	folder bool
	source string
	data   []byte
}

// skeleton is what a program expects of a root file system even when it is alone in it. With
// a base only the temporary folder is left to us, the users are added to what the base has.
func skeleton(overBase bool) []entry {
	entries := []entry{{to: "/tmp", mode: 0o1777, folder: true}}
	passwd := "root:x:0:0:root:/root:/sbin/nologin\n"
	group := "root:x:0:\n"
	if overBase {
		return entries
	}
	return append(entries,
		entry{to: "/etc/passwd", mode: 0o644, data: []byte(passwd + passwdLine)},
		entry{to: "/etc/group", mode: 0o644, data: []byte(group + groupLine)},
	)
}

var (
	passwdLine = fmt.Sprintf("nonroot:x:%d:%d:nonroot:/tmp:/sbin/nologin\n", user, user)
	groupLine  = fmt.Sprintf("nonroot:x:%d:\n", user)
)

// writeLayer writes the entries in the order of their paths, with the folders above them.
func writeLayer(out io.Writer, entries []entry) error {
	archive := tar.NewWriter(out)
	for _, item := range withFolders(entries) {
		if err := writeEntry(archive, item); err != nil {
			return fmt.Errorf("writing %s into the layer: %w", item.to, err)
		}
	}
	return archive.Close()
}

func withFolders(entries []entry) []entry {
	all := map[string]entry{}
	for _, item := range entries {
		for above := path.Dir(item.to); above != "/"; above = path.Dir(above) {
			if _, known := all[above]; !known {
				all[above] = entry{to: above, mode: 0o755, folder: true}
			}
		}
		all[item.to] = item
	}
	sorted := make([]entry, 0, len(all))
	for _, item := range all {
		sorted = append(sorted, item)
	}
	slices.SortFunc(sorted, func(a, b entry) int { return strings.Compare(a.to, b.to) })
	return sorted
}

func writeEntry(archive *tar.Writer, item entry) error {
	header := &tar.Header{Name: strings.TrimPrefix(item.to, "/"), Mode: item.mode, ModTime: epoch, Format: tar.FormatPAX}
	if item.folder {
		header.Typeflag, header.Name = tar.TypeDir, header.Name+"/"
		return archive.WriteHeader(header)
	}
	header.Typeflag = tar.TypeReg
	if item.source == "" {
		header.Size = int64(len(item.data))
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := archive.Write(item.data)
		return err
	}
	opened, err := os.Open(item.source)
	if err != nil {
		return err
	}
	defer opened.Close()
	info, err := opened.Stat()
	if err != nil {
		return err
	}
	header.Size = info.Size()
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(archive, opened)
	return err
}

// fileLayer is a layer that lies on disk as a plain tar. It is not compressed: a digest then
// depends on nothing but the content, and the import into a node on the same machine is quicker.
type fileLayer struct {
	file   string
	digest v1.Hash
	size   int64
}

func openLayer(file string) (v1.Layer, error) {
	sum, size, err := fileDigest(file)
	if err != nil {
		return nil, err
	}
	return &fileLayer{file: file, digest: v1.Hash{Algorithm: "sha256", Hex: sum}, size: size}, nil
}

func (l *fileLayer) Digest() (v1.Hash, error)             { return l.digest, nil }
func (l *fileLayer) DiffID() (v1.Hash, error)             { return l.digest, nil }
func (l *fileLayer) Compressed() (io.ReadCloser, error)   { return os.Open(l.file) }
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.file) }
func (l *fileLayer) Size() (int64, error)                 { return l.size, nil }
func (l *fileLayer) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }
