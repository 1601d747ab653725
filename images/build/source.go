package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// workshop knows where things lie: the repository, the caches, the Rust programs.
type workshop struct {
	root        string
	cache       string
	cargo       string
	definitions Definitions
}

// newWorkshop reads the table and settles the folders. profile is a cargo profile.
func newWorkshop(profile string) (*workshop, error) {
	root, err := repositoryRoot()
	if err != nil {
		return nil, err
	}
	definitions, err := readDefinitions(root)
	if err != nil {
		return nil, err
	}
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("finding the cache folder: %w", err)
		}
		cache = filepath.Join(home, ".cache")
	}
	target := os.Getenv("CARGO_TARGET_DIR")
	if target == "" {
		target = filepath.Join(cache, "patchbay", "target")
	}
	folder := profile
	if profile == "dev" {
		folder = "debug"
	}
	return &workshop{
		root:        root,
		cache:       filepath.Join(cache, "patchbay"),
		cargo:       filepath.Join(target, rustTarget(), folder),
		definitions: definitions,
	}, nil
}

// source returns the path of a file on this machine, and builds it when it is a Go program.
func (w *workshop) source(from string) (string, error) {
	kind, what, _ := strings.Cut(from, ":")
	switch kind {
	case "go":
		return w.program(what)
	case "cargo":
		found := filepath.Join(w.cargo, what)
		if _, err := os.Stat(found); errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%s is not built; run `cargo build -p %s` with the same profile", found, what)
		} else if err != nil {
			return "", err
		}
		return found, nil
	default:
		return filepath.Join(w.root, what), nil
	}
}

// program builds a static Go program and returns its path. go build itself notices that
// nothing changed.
func (w *workshop) program(name string) (string, error) {
	definition := w.definitions.Programs[name]
	out := filepath.Join(w.cache, "plugins-bin", name)
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return "", err
	}
	if _, err := os.Stat(out); err != nil {
		progress("building %s from %s", name, definition.Module)
	}
	// Paths, version control and the build id would make equal programs differ.
	// The flags of the cluster's tools, so that the standard library is compiled once for both.
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false",
		"-ldflags", "-s -w", "-o", out, definition.Package)
	build.Dir = filepath.Join(w.root, definition.Module)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("building %s in %s: %w", definition.Package, definition.Module, err)
	}
	return out, nil
}

// fileDigest returns the SHA-256 of a file in hexadecimal, and its length in bytes.
func fileDigest(file string) (string, int64, error) {
	opened, err := os.Open(file)
	if err != nil {
		return "", 0, err
	}
	defer opened.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, opened)
	if err != nil {
		return "", 0, fmt.Errorf("reading %s: %w", file, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), size, nil
}

// writeWhole writes a file so that nobody ever sees a part of it.
func writeWhole(file string, write func(io.Writer) error) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	part, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	defer part.Close()
	if err := write(part); err != nil {
		return err
	}
	if err := part.Chmod(0o644); err != nil {
		return err
	}
	if err := part.Close(); err != nil {
		return err
	}
	return os.Rename(part.Name(), file)
}

// progress tells a person what takes time.
func progress(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "images: "+format+"\n", arguments...)
}
