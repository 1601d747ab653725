package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// patience is the longest wait for anything that should happen.
const patience = 30 * time.Second

// pod is a launcher and a sidecar as in a pod: the launcher is PID 1 of a pid namespace and
// the sidecar is outside, and an operator is attached.
type pod struct {
	folder   string
	proxy    string // where client programs call
	unshare  *exec.Cmd
	launcher int // the launcher's pid as we see it
	sidecar  *exec.Cmd
	session  *session
}

// newPod starts everything up to where the plugin waits for its release.
func newPod(programs, plugin string) (*pod, error) {
	p := &pod{}
	if err := p.begin(programs, plugin); err != nil {
		if p.folder != "" {
			err = fmt.Errorf("%w\nsidecar: %s\nlauncher: %s", err, tail(p.folder, "sidecar"), tail(p.folder, "launcher"))
		}
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *pod) begin(programs, plugin string) (err error) {
	if p.folder, err = os.MkdirTemp("", "pod-"); err != nil {
		return err
	}
	for _, name := range []string{"bin", "run", "private", "config", "identity"} {
		if err := os.Mkdir(p.path(name), 0o755); err != nil {
			return err
		}
	}
	authority, err := newAuthority()
	if err != nil {
		return fmt.Errorf("making the identity: %w", err)
	}
	if err := authority.writeIdentity(p.path("identity")); err != nil {
		return fmt.Errorf("writing the identity: %w", err)
	}
	if err := os.WriteFile(p.path("config/config"), configuration(), 0o644); err != nil {
		return err
	}

	p.sidecar = exec.Command(filepath.Join(programs, "patchbay-sidecar"),
		"run", "--root", p.folder, "--session-address", "127.0.0.1:0")
	if err := start(p.folder, "sidecar", p.sidecar); err != nil {
		return err
	}
	address, err := awaitFile(p.path("private/session-address"))
	if err != nil {
		return err
	}
	if p.proxy, err = freeAddress(); err != nil {
		return err
	}
	// The sidecar put the launcher there before it opened its session port.
	p.unshare = exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
		p.path("bin/patchbay-launcher"), "--run", p.path("run"), "--proxy-address", p.proxy, "--", plugin)
	if err := start(p.folder, "launcher", p.unshare); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// The stream outlives the wait, so its context has no limit.
	if p.session, err = authority.attach(context.Background(), address); err != nil {
		return err
	}
	if err := p.session.await(limited, held); err != nil {
		return err
	}
	p.launcher, err = onlyChild(p.unshare.Process.Pid)
	return err
}

// admit releases the plugin and returns when it is ready.
func (p *pod) admit() error {
	if err := p.session.release(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.session.await(limited, ready); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(p.folder, "sidecar"))
	}
	return nil
}

func (p *pod) path(name string) string { return filepath.Join(p.folder, name) }

// plugin is the socket that the plugin itself listens on.
func (p *pod) plugin() (string, error) {
	found, err := filepath.Glob(p.path("run/*/plugin*"))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("looking for the plugin's socket: found %q", found)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

func (p *pod) close() {
	if p.session != nil {
		p.session.connection.Close()
	}
	end(p.sidecar)
	// With PID 1 goes the whole namespace.
	end(p.unshare)
	if p.folder != "" {
		_ = os.RemoveAll(p.folder)
	}
}

// configuration is the document of the annotation patchbay.dev/config for the fixture.
func configuration() []byte {
	type object map[string]any
	text, _ := json.Marshal(object{
		"contract": 1, "revision": 1, "installation": "bench",
		"plugin": object{"namespace": "bench", "name": "echo", "uid": "uid"},
		"protocol": object{"goPlugin": object{
			"cookieKey": "BASIC_PLUGIN", "cookieValue": "hello", "versions": []int{3, 5},
			"tls": object{"mode": "None"}, "minPort": 10000, "maxPort": 25000,
			"handshakeTimeoutSeconds": 30, "skipLines": 0,
		}},
		"health":   object{"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3, "onFailure": "Restart"},
		"restart":  object{"initialSeconds": 1, "maxSeconds": 60},
		"shutdown": object{"drainSeconds": 0, "rpcSeconds": 2, "exitSeconds": 2, "termSeconds": 2},
	})
	return text
}

// freeAddress is one that nobody listens on now.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// awaitFile returns the content of a file that another process will put there whole.
func awaitFile(path string) (string, error) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if text, err := os.ReadFile(path); err == nil {
			return strings.TrimSpace(string(text)), nil
		} else if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("waiting for %s: it did not come", path)
}

func onlyChild(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
