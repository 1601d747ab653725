package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A Go package is compiled once for all tools only if every module that it uses has the same
// version in all of them. Otherwise client-go alone costs minutes of the first `up`, once per tool.
func TestToolsShareTheVersionsOfKubernetes(t *testing.T) {
	shared := required(t, "kubernetes")
	for _, tool := range tools {
		for module, version := range required(t, tool.name) {
			if strings.HasPrefix(module, "go.etcd.io/etcd/") {
				continue // the server is newer than the client in the API server
			}
			if want, ok := shared[module]; ok && version != want {
				t.Errorf("tools/%s/go.mod requires %s %s; Kubernetes has %s (require that one, and exclude newer ones)", tool.name, module, version, want)
			}
		}
	}
}

// required reads the versions in the require blocks of a tool's go.mod.
func required(t *testing.T, tool string) map[string]string {
	text, err := os.ReadFile(filepath.Join("tools", tool, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	block := ""
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2 && fields[1] == "(":
			block = fields[0]
		case len(fields) > 0 && fields[0] == ")":
			block = ""
		case len(fields) >= 2 && block == "require":
			versions[fields[0]] = fields[1]
		case len(fields) >= 3 && fields[0] == "require":
			versions[fields[1]] = fields[2]
		}
	}
	if len(versions) == 0 && tool != "pause" {
		t.Fatalf("tools/%s/go.mod requires nothing", tool)
	}
	return versions
}
