package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// systemPath is the search path for the programs of Debian packages. It is
// fixed, because users' paths often lack the sbin folders.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// debianPackages maps each package to a file or program that shows it is there.
// mmdebstrap is needed by images that carry a Python interpreter.
var debianPackages = []struct{ name, witness string }{
	{"containerd", "containerd"},
	{"runc", "runc"},
	{"containernetworking-plugins", cniPlugins + "/bridge"},
	{"iptables", "iptables-restore"},
	{"ipset", "ipset"},
	{"conntrack", "conntrack"},
	{"iproute2", "ip"},
	{"util-linux", "nsenter"},
	{"mount", "mount"},
	{"mmdebstrap", "mmdebstrap"},
}

// systemProgram finds a program of a Debian package.
func systemProgram(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		_, err := os.Stat(name)
		return name, err
	}
	for _, dir := range strings.Split(systemPath, ":") {
		path := dir + "/" + name
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
			return path, nil
		}
	}
	return "", fmt.Errorf("find the program %s in %s: %w", name, systemPath, os.ErrNotExist)
}

func missingPackages() []string {
	var missing []string
	for _, p := range debianPackages {
		if _, err := systemProgram(p.witness); err != nil {
			missing = append(missing, p.name)
		}
	}
	return missing
}

// ensurePackages installs missing Debian packages when it may, and otherwise
// names the command that does.
func ensurePackages(ctx context.Context) error {
	missing := missingPackages()
	if len(missing) == 0 {
		return nil
	}
	list := strings.Join(missing, " ")
	byHand := "apt-get update && apt-get install --no-install-recommends " + list
	if os.Geteuid() != 0 {
		return fmt.Errorf("use the Debian packages %s: they are missing; install them as root with: %s", list, byHand)
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("install %s: there is no apt-get on this machine; install their counterparts by hand", list)
	}
	say("installing Debian packages: %s", list)
	for _, args := range [][]string{
		{"update", "-qq"},
		append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "DPkg::Lock::Timeout=300"}, args...)...)
		// RUNLEVEL keeps package scripts from starting the machine-wide
		// containerd service, which this cluster does not use.
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("install Debian packages (by hand: %s): apt-get %s: %w\n%s", byHand, args[0], err, lastLines(string(out), 15))
		}
	}
	if still := missingPackages(); len(still) != 0 {
		return fmt.Errorf("install Debian packages: %s still missing after apt-get succeeded", strings.Join(still, " "))
	}
	return nil
}

// lastLines returns the end of a text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
