package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// inTemporaryWorkshop gives a workshop whose only image holds one file of the repository.
func inTemporaryWorkshop(t *testing.T, content string, written time.Time) *workshop {
	t.Helper()
	root := t.TempDir()
	file := filepath.Join(root, "program")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, written, written); err != nil {
		t.Fatal(err)
	}
	return &workshop{root: root, cache: filepath.Join(root, "cache"), definitions: Definitions{Images: map[string]Image{
		"one": {
			Repository: "example.org/one",
			Files:      []File{{From: "file:program", To: "/opt/program", Mode: "0755"}},
			Entrypoint: []string{"/opt/program"},
		},
	}}}
}

func build(t *testing.T, w *workshop, tag string) builtImage {
	t.Helper()
	built, err := w.build("one", tag)
	if err != nil {
		t.Fatal(err)
	}
	return built
}

func TestEqualContentGivesAnEqualArchiveWhereverAndWheneverItIsBuilt(t *testing.T) {
	var archives [][]byte
	for _, written := range []time.Time{time.Unix(1, 0), time.Now()} {
		var out bytes.Buffer
		if err := writeArchive(&out, build(t, inTemporaryWorkshop(t, "same", written), "dev")); err != nil {
			t.Fatal(err)
		}
		archives = append(archives, out.Bytes())
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the archives differ")
	}
}

func TestOtherContentGivesAnotherDigestAndContentTag(t *testing.T) {
	a := build(t, inTemporaryWorkshop(t, "a", time.Now()), contentTag)
	b := build(t, inTemporaryWorkshop(t, "b", time.Now()), contentTag)
	if a.digest == b.digest || a.tag == b.tag {
		t.Errorf("%s %s and %s %s should differ", a.digest, a.tag, b.digest, b.tag)
	}
	if !strings.HasPrefix(a.digest.Hex, strings.TrimPrefix(a.tag, "c-")) {
		t.Errorf("tag %s is not made from digest %s", a.tag, a.digest)
	}
}

func TestAnArchiveNamesTheImageAndHoldsAllItsBlobs(t *testing.T) {
	built := build(t, inTemporaryWorkshop(t, "x", time.Now()), "dev")
	var out bytes.Buffer
	if err := writeArchive(&out, built); err != nil {
		t.Fatal(err)
	}
	files := untar(t, &out)
	var index v1.IndexManifest
	if err := json.Unmarshal(files["index.json"].data, &index); err != nil {
		t.Fatal(err)
	}
	if got := index.Manifests[0].Annotations["io.containerd.image.name"]; got != "example.org/one:dev" {
		t.Errorf("the image is called %q", got)
	}
	manifest, err := built.image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, descriptor := range append(slices.Clone(manifest.Layers), manifest.Config, index.Manifests[0]) {
		if size := int64(len(files["blobs/sha256/"+descriptor.Digest.Hex].data)); size != descriptor.Size {
			t.Errorf("blob %s has %d bytes, want %d", descriptor.Digest, size, descriptor.Size)
		}
	}
}

func TestALayerHoldsTheProgramTheUserAndAWritableTmp(t *testing.T) {
	built := build(t, inTemporaryWorkshop(t, "x", time.Now()), "dev")
	layers, err := built.image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	files := untar(t, content)
	if got := files["opt/program"]; got.mode != 0o755 || string(got.data) != "x" {
		t.Errorf("the program is %o %q", got.mode, got.data)
	}
	if got := files["tmp/"]; got.mode != 0o1777 {
		t.Errorf("/tmp has mode %o", got.mode)
	}
	if !strings.Contains(string(files["etc/passwd"].data), ":65532:65532:") {
		t.Errorf("/etc/passwd is %q", files["etc/passwd"].data)
	}
	config, err := built.image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" || config.Config.Entrypoint[0] != "/opt/program" {
		t.Errorf("it starts as %+v", config.Config)
	}
}

func TestAPushedImageHasTheDigestOfTheArchive(t *testing.T) {
	server := httptest.NewServer(registry.New())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	built := build(t, inTemporaryWorkshop(t, "x", time.Now()), "dev")
	if err := push(built, options{registry: host + "/team", insecure: true}); err != nil {
		t.Fatal(err)
	}
	reference, err := name.ParseReference(host + "/team/one:dev")
	if err != nil {
		t.Fatal(err)
	}
	there, err := remote.Get(reference)
	if err != nil {
		t.Fatal(err)
	}
	if there.Digest != built.digest {
		t.Errorf("%s was pushed, %s is there", built.digest, there.Digest)
	}
}

func TestOnlyTheNewestArchivesStayInTheCache(t *testing.T) {
	folder := t.TempDir()
	for i, key := range []string{"0", "1", "2", "3", "4", "5"} {
		file := filepath.Join(folder, "one-"+strings.Repeat(key, 20)+"-dev.tar")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		when := time.Unix(int64(i), 0)
		if err := os.Chtimes(file, when, when); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(folder, "one-more-"+strings.Repeat("0", 20)+"-dev.tar")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	prune(folder, "one")
	found, err := filepath.Glob(filepath.Join(folder, "one-[0-9]*"))
	if err != nil || len(found) != archivesKept || strings.Contains(found[0], "0000") {
		t.Errorf("left are %v (%v)", found, err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error("an archive of another image went too")
	}
}

func TestABaseLosesDeviceFilesAndDocumentationAndGainsTheUser(t *testing.T) {
	var in, out bytes.Buffer
	archive := tar.NewWriter(&in)
	for _, header := range []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./dev/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./dev/null", Typeflag: tar.TypeChar, Mode: 0o666},
		{Name: "./etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: "./usr/bin/su", Typeflag: tar.TypeReg, Mode: 0o4755, ModTime: time.Now()},
		{Name: "./usr/share/doc/x", Typeflag: tar.TypeReg, Mode: 0o644},
	} {
		if err := archive.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if err := filterRoot(&in, &out); err != nil {
		t.Fatal(err)
	}
	files := untar(t, &out)
	if len(files) != 3 || files["usr/bin/su"].mode != 0o755 || string(files["etc/passwd"].data) != passwdLine {
		t.Errorf("kept are %v", files)
	}
}

func TestTheTableIsValidAndTheDockerfileHasEveryImage(t *testing.T) {
	root, err := repositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	definitions, err := readDefinitions(root)
	if err != nil {
		t.Fatal(err)
	}
	dockerfile, err := os.ReadFile(filepath.Join(root, "images", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	for image, definition := range definitions.Images {
		_, stage, found := strings.Cut(string(dockerfile), " AS "+image+"\n")
		if !found {
			t.Errorf("the Dockerfile has no stage %s", image)
			continue
		}
		stage, _, _ = strings.Cut(stage, "\nFROM ")
		entrypoint := `ENTRYPOINT ["` + strings.Join(definition.Entrypoint, `", "`) + `"]`
		if !strings.Contains(stage, entrypoint) {
			t.Errorf("stage %s lacks %s", image, entrypoint)
		}
	}
}

func TestThePythonImageHoldsTheWholeRuntime(t *testing.T) {
	root, err := repositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	definitions, err := readDefinitions(root)
	if err != nil {
		t.Fatal(err)
	}
	modules, err := filepath.Glob(filepath.Join(root, "runtime", "python", "src", "*.py"))
	if err != nil || len(modules) == 0 {
		t.Fatalf("no modules were found (%v)", err)
	}
	for _, module := range modules {
		name := filepath.Base(module)
		wanted := File{From: "file:runtime/python/src/" + name, To: "/opt/patchbay/python/src/" + name, Mode: "0644"}
		if !slices.Contains(definitions.Images["patchbay-python"].Files, wanted) {
			t.Errorf("images.yaml lacks %+v", wanted)
		}
	}
}

func TestATableWithAnUnknownSourceIsRefused(t *testing.T) {
	definitions := Definitions{Images: map[string]Image{"one": {
		Repository: "example.org/one", Entrypoint: []string{"/x"},
		Files: []File{{From: "go:nowhere", To: "/x", Mode: "0755"}},
	}}}
	if err := definitions.check(); err == nil || !strings.Contains(err.Error(), "go:nowhere") {
		t.Errorf("got %v", err)
	}
}

type unpacked struct {
	mode int64
	data []byte
}

func untar(t *testing.T, in io.Reader) map[string]unpacked {
	t.Helper()
	files := map[string]unpacked{}
	archive := tar.NewReader(in)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = unpacked{mode: header.Mode, data: data}
	}
}
