package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Definitions is the parsed images.yaml.
type Definitions struct {
	Programs map[string]Program `json:"programs"`
	Bases    map[string]Base    `json:"bases"`
	Images   map[string]Image   `json:"images"`
}

// Program is a static Go program.
type Program struct {
	// Module is the folder with the go.mod, relative to the repository.
	Module string `json:"module"`
	// Package is what go build is asked for.
	Package string `json:"package"`
	// Fixture marks programs of the tests.
	Fixture bool `json:"fixture,omitempty"`
}

// Base is a root file system made of Debian packages and Python wheels.
type Base struct {
	Suite        string   `json:"suite"`
	Packages     []string `json:"packages"`
	Python       string   `json:"python"`
	Requirements string   `json:"requirements"`
}

// Image says what is in an image and how it starts.
type Image struct {
	Repository string   `json:"repository"`
	Tag        string   `json:"tag,omitempty"`
	Base       string   `json:"base,omitempty"`
	Files      []File   `json:"files"`
	Env        []string `json:"env,omitempty"`
	Entrypoint []string `json:"entrypoint"`
}

// File is one file of an image.
type File struct {
	From string `json:"from"`
	To   string `json:"to"`
	Mode string `json:"mode"`
}

// mode returns the permission bits.
func (f File) mode() (int64, error) {
	return strconv.ParseInt(f.Mode, 8, 64)
}

// repositoryRoot walks up from the working directory to the folder that holds images/images.yaml.
func repositoryRoot() (string, error) {
	directory, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(directory, "images", "images.yaml")); err == nil {
			return directory, nil
		}
		parent := filepath.Dir(directory)
		if parent == directory {
			return "", errors.New("finding the repository: no folder upwards holds images/images.yaml")
		}
		directory = parent
	}
}

// readDefinitions parses the table and refuses what cannot be meant.
func readDefinitions(root string) (Definitions, error) {
	var definitions Definitions
	data, err := os.ReadFile(filepath.Join(root, "images", "images.yaml"))
	if err != nil {
		return definitions, fmt.Errorf("reading the image table: %w", err)
	}
	if err := yaml.UnmarshalStrict(data, &definitions); err != nil {
		return definitions, fmt.Errorf("reading the image table: %w", err)
	}
	return definitions, definitions.check()
}

func (d Definitions) check() error {
	for name, image := range d.Images {
		if image.Repository == "" || len(image.Entrypoint) == 0 || len(image.Files) == 0 {
			return fmt.Errorf("image %s needs repository, files and entrypoint", name)
		}
		if _, known := d.Bases[image.Base]; image.Base != "" && !known {
			return fmt.Errorf("image %s stands on base %s, which is not in the table", name, image.Base)
		}
		for _, file := range image.Files {
			if !path.IsAbs(file.To) || path.Clean(file.To) != file.To {
				return fmt.Errorf("image %s: %q is not a clean absolute path", name, file.To)
			}
			if _, err := file.mode(); err != nil {
				return fmt.Errorf("image %s: %s has the mode %q, which is not octal", name, file.To, file.Mode)
			}
			kind, what, _ := strings.Cut(file.From, ":")
			switch _, known := d.Programs[what]; {
			case kind == "go" && known, kind == "cargo" && what != "", kind == "file" && what != "":
			default:
				return fmt.Errorf("image %s: %q is no source (cargo:, file:, or go: with a name of the table)", name, file.From)
			}
		}
	}
	return nil
}

// imageNames returns the names asked for, or all of them when none is.
func (d Definitions) imageNames(asked []string) ([]string, error) {
	return pick(d.Images, asked, "image")
}

// programNames does the same for Go programs; the word "fixtures" stands for those of the tests.
func (d Definitions) programNames(asked []string) ([]string, error) {
	var names []string
	for _, name := range asked {
		if name != "fixtures" {
			names = append(names, name)
			continue
		}
		for program, definition := range d.Programs {
			if definition.Fixture {
				names = append(names, program)
			}
		}
	}
	return pick(d.Programs, names, "program")
}

func pick[T any](table map[string]T, asked []string, what string) ([]string, error) {
	known := make([]string, 0, len(table))
	for name := range table {
		known = append(known, name)
	}
	slices.Sort(known)
	if len(asked) == 0 {
		return known, nil
	}
	for _, name := range asked {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("there is no %s %q; known are %s", what, name, strings.Join(known, ", "))
		}
	}
	slices.Sort(asked)
	return slices.Compact(asked), nil
}
