package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
)

// baseRecipe changes whenever the code below makes something else of the same definition.
const baseRecipe = 1

// left out of a base: what no running plugin reads.
var leftOut = []string{
	"dev/", "usr/share/doc/", "usr/share/man/", "usr/share/info/", "usr/share/locale/",
	"usr/share/lintian/", "usr/share/bash-completion/", "usr/share/bug/",
	"var/cache/", "var/log/", "var/lib/apt/lists/", "var/lib/dpkg/info/", "tmp/",
	"etc/machine-id", "etc/resolv.conf", "etc/hostname", "etc/hosts",
}

// base returns the layer of a root file system, and makes it when it is not in the cache.
func (w *workshop) base(name string) (string, error) {
	definition := w.definitions.Bases[name]
	requirements, err := os.ReadFile(filepath.Join(w.root, definition.Requirements))
	if err != nil {
		return "", fmt.Errorf("base %s: %w", name, err)
	}
	key, err := hashOf([]any{baseRecipe, definition, string(requirements), runtime.GOARCH})
	if err != nil {
		return "", err
	}
	file := filepath.Join(w.cache, "images", "bases", name+"-"+key[:20]+".tar")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	if err := needDebian(); err != nil {
		return "", fmt.Errorf("base %s: %w", name, err)
	}
	wheels, err := os.MkdirTemp("", "patchbay-wheels-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(wheels)
	if err := w.installWheels(definition, wheels); err != nil {
		return "", fmt.Errorf("base %s: installing %s: %w", name, definition.Requirements, err)
	}
	progress("base %s: Debian %s with %s (one or two minutes)", name, definition.Suite, strings.Join(definition.Packages, ", "))
	err = writeWhole(file, func(out io.Writer) error { return debootstrap(definition, wheels, out) })
	if err != nil {
		return "", fmt.Errorf("base %s: %w", name, err)
	}
	prune(filepath.Dir(file), name)
	progress("base %s: kept as %s", name, file)
	return file, nil
}

// needDebian sees to the programs that make a base.
func needDebian() error {
	missing := []string{}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		missing = append(missing, "mmdebstrap")
	}
	if exec.Command("python3", "-m", "pip", "--version").Run() != nil {
		missing = append(missing, "python3-pip")
	}
	if len(missing) == 0 {
		return nil
	}
	wanted := strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("this machine lacks %s and is no Debian; build with images/Dockerfile instead", wanted)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("this machine lacks packages; run `sudo apt-get install -y %s`", wanted)
	}
	progress("installing the Debian packages %s", wanted)
	for _, arguments := range [][]string{{"update", "-q"}, append([]string{"install", "-y", "-q", "--no-install-recommends"}, missing...)} {
		if err := loud(exec.Command("apt-get", arguments...), "DEBIAN_FRONTEND=noninteractive"); err != nil {
			return fmt.Errorf("running apt-get %s: %w", arguments[0], err)
		}
	}
	return nil
}

// installWheels unpacks the pinned wheels for the base's Python, whichever runs here.
func (w *workshop) installWheels(definition Base, folder string) error {
	digits := strings.ReplaceAll(definition.Python, ".", "")
	progress("wheels for Python %s from %s", definition.Python, definition.Requirements)
	arguments := []string{"-m", "pip", "install", "--quiet", "--no-compile", "--no-deps",
		"--disable-pip-version-check", "--root-user-action=ignore",
		"--only-binary=:all:", "--implementation=cp", "--python-version=" + definition.Python,
		"--abi=cp" + digits, "--abi=abi3", "--abi=none"}
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	// Oldest first is how wheels name the C library that they need at least; Debian 12 has 2.36.
	for _, library := range []string{"manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_34"} {
		arguments = append(arguments, "--platform="+library+"_"+machine)
	}
	arguments = append(arguments, "--target", folder, "--requirement", filepath.Join(w.root, definition.Requirements))
	if err := loud(exec.Command("python3", arguments...)); err != nil {
		return err
	}
	// Scripts of the wheels name the Python that ran pip.
	return os.RemoveAll(filepath.Join(folder, "bin"))
}

// debootstrap makes the root file system and writes what is kept of it as a layer.
func debootstrap(definition Base, wheels string, out io.Writer) error {
	packages := fmt.Sprintf("/usr/local/lib/python%s/dist-packages", definition.Python)
	command := exec.Command("mmdebstrap", "--quiet", "--variant=essential", "--format=tar",
		"--include="+strings.Join(definition.Packages, ","),
		"--aptopt=APT::Install-Recommends \"false\"",
		"--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
		"--customize-hook=copy-in '"+wheels+"' /usr/local/lib",
		"--customize-hook=rm -rf \"$1"+packages+"\" && mv \"$1/usr/local/lib/"+path.Base(wheels)+"\" \"$1"+packages+"\" && chown -R 0:0 \"$1"+packages+"\" && chmod -R u=rwX,go=rX \"$1"+packages+"\"",
		// Byte code that is not compared with the time of its source: times are all the same
		// in an image, and a read-only root would compile at every start.
		"--customize-hook=chroot \"$1\" python3 -m compileall -q -f --invalidation-mode unchecked-hash /usr/lib/python"+definition.Python+" "+packages,
		definition.Suite, "-")
	command.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=0")
	stdout, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	command.Stderr = io.MultiWriter(os.Stderr, &said)
	if err := command.Start(); err != nil {
		return fmt.Errorf("starting mmdebstrap: %w", err)
	}
	filterErr := filterRoot(stdout, out)
	_, drainErr := io.Copy(io.Discard, stdout)
	if err := command.Wait(); err != nil {
		return fmt.Errorf("running mmdebstrap: %w", err)
	}
	return errors.Join(filterErr, drainErr)
}

// filterRoot copies a root file system without what nobody needs, with the user added and
// with all times alike. The order is kept: a hard link comes after its target.
func filterRoot(in io.Reader, out io.Writer) error {
	source, layer := tar.NewReader(in), tar.NewWriter(out)
	for {
		header, err := source.Next()
		if err == io.EOF {
			return layer.Close()
		}
		if err != nil {
			return fmt.Errorf("reading the root file system: %w", err)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(header.Name, "./"), "/")
		if name == "" || isLeftOut(name) {
			continue
		}
		kept := &tar.Header{
			Typeflag: header.Typeflag, Name: name, Linkname: header.Linkname, Size: header.Size,
			// A program that gains rights has no place in such an image.
			Mode: header.Mode &^ 0o6000, Uid: header.Uid, Gid: header.Gid,
			ModTime: epoch, Format: tar.FormatPAX,
		}
		if kept.Typeflag == tar.TypeLink {
			kept.Linkname = strings.TrimPrefix(kept.Linkname, "./")
		}
		var content io.Reader = source
		if extra := map[string]string{"etc/passwd": passwdLine, "etc/group": groupLine}[name]; extra != "" {
			kept.Size += int64(len(extra))
			content = io.MultiReader(source, strings.NewReader(extra))
		}
		if err := layer.WriteHeader(kept); err != nil {
			return fmt.Errorf("keeping %s: %w", name, err)
		}
		if _, err := io.Copy(layer, content); err != nil {
			return fmt.Errorf("keeping %s: %w", name, err)
		}
	}
}

func isLeftOut(name string) bool {
	for _, prefix := range leftOut {
		// The folder itself stays, only what is in it goes.
		if strings.HasPrefix(name, prefix) && name != prefix {
			return true
		}
	}
	return strings.Contains(name, "/__pycache__/") && !strings.HasSuffix(name, ".pyc") && !strings.HasSuffix(name, "/")
}

// loud runs a command with its output shown to the person who waits.
func loud(command *exec.Cmd, environment ...string) error {
	command.Env = append(os.Environ(), environment...)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	return command.Run()
}
