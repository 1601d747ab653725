package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const apiServer = "kube-apiserver"

// withCluster runs a change of a running cluster under the lock.
func withCluster(ctx context.Context, l Layout, change func(*starter) error) error {
	if err := needRoot(); err != nil {
		return err
	}
	unlock, err := lockFile(ctx, lockPath, "the cluster")
	if err != nil {
		return err
	}
	defer unlock()
	record, known := readClusterRecord(l)
	if !known || record.Phase != phaseUp || record.BootID != bootID() {
		return errNotRunning
	}
	s, err := newStarter(ctx, l)
	if err != nil {
		return err
	}
	if record.Hash != s.hash {
		return errors.New("change the running cluster: it was started with another configuration; run `cluster up` first")
	}
	return change(s)
}

// stopAPIServer kills the API server the way a crash would.
func stopAPIServer(ctx context.Context, l Layout) error {
	return withCluster(ctx, l, func(*starter) error {
		record, ok := readRecord(l, apiServer)
		if !ok || !record.alive() {
			say("kube-apiserver is down already")
			return nil
		}
		if err := kill([]processRecord{record}, 10*time.Second); err != nil {
			return err
		}
		say("kube-apiserver (process %d) is killed", record.PID)
		return nil
	})
}

func startAPIServer(ctx context.Context, l Layout) error {
	return withCluster(ctx, l, func(s *starter) error { return s.startAPIServer(ctx) })
}

// killAPIServer lets the API server crash and come back at once.
func killAPIServer(ctx context.Context, l Layout) error {
	return withCluster(ctx, l, func(s *starter) error {
		if record, ok := readRecord(l, apiServer); ok {
			if err := kill([]processRecord{record}, 10*time.Second); err != nil {
				return err
			}
		}
		return s.startAPIServer(ctx)
	})
}

func (s *starter) startAPIServer(ctx context.Context) error {
	if _, err := resume(ctx, s.layout, apiServer); err != nil {
		return err
	}
	if !componentAlive(s.layout, apiServer) {
		if err := start(s.layout, s.components[apiServer]); err != nil {
			return err
		}
	}
	if err := s.awaitAPI(ctx); err != nil {
		return err
	}
	say("kube-apiserver is ready")
	return nil
}

// pauseAPIServer makes the API server fall silent: connections stay open and
// new ones are taken by the kernel, but nothing is answered.
func pauseAPIServer(ctx context.Context, l Layout) error {
	return withCluster(ctx, l, func(*starter) error {
		record, ok := readRecord(l, apiServer)
		if !ok || !record.alive() {
			return errors.New("pause kube-apiserver: it does not run; see `cluster start-apiserver`")
		}
		if err := record.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		err := await(ctx, "kube-apiserver to stop", 10*time.Second, time.Millisecond, func() error {
			if !record.paused() {
				return errors.New("it still runs")
			}
			return nil
		})
		if err != nil {
			return err
		}
		say("kube-apiserver (process %d) is paused", record.PID)
		return nil
	})
}

// continueAPIServer lets a paused API server go on where it was.
func continueAPIServer(ctx context.Context, l Layout) error {
	return withCluster(ctx, l, func(s *starter) error {
		if !componentAlive(l, apiServer) {
			return errors.New("continue kube-apiserver: it does not run; see `cluster start-apiserver`")
		}
		return s.startAPIServer(ctx)
	})
}

// resume lets the named components go on when they are paused, and returns the
// names of those that were.
func resume(ctx context.Context, l Layout, names ...string) ([]string, error) {
	var resumed []string
	for _, name := range names {
		record, ok := readRecord(l, name)
		if !ok || !record.paused() {
			continue
		}
		if err := record.signal(syscall.SIGCONT); err != nil {
			return resumed, err
		}
		err := await(ctx, name+" to go on", 10*time.Second, time.Millisecond, func() error {
			if record.paused() {
				return errors.New("it is still paused")
			}
			return nil
		})
		if err != nil {
			return resumed, err
		}
		resumed = append(resumed, name)
	}
	return resumed, nil
}

// fillEtcd brings etcd into the condition in which its file has passed the
// quota: reads and deletions work, every other write is refused.
func fillEtcd(ctx context.Context, l Layout) error {
	return withCluster(ctx, l, func(*starter) error {
		if err := dead(l, "etcd"); err != nil {
			return err
		}
		etcd := newEtcdClient(l)
		if err := etcd.setFull(ctx, true); err != nil {
			return err
		}
		err := await(ctx, "etcd to refuse writes", 10*time.Second, 10*time.Millisecond, func() error {
			err := etcd.write(ctx)
			var refused etcdError
			if errors.As(err, &refused) {
				return nil
			}
			return errors.Join(errors.New("it still takes them"), err)
		})
		if err != nil {
			return err
		}
		say("etcd is full: it refuses every write but deletions")
		return nil
	})
}

// emptyEtcd ends what fillEtcd began.
func emptyEtcd(ctx context.Context, l Layout) error {
	return withCluster(ctx, l, func(*starter) error {
		if err := dead(l, "etcd"); err != nil {
			return err
		}
		if _, err := makeRoom(ctx, l); err != nil {
			return err
		}
		say("etcd takes writes again")
		return nil
	})
}

// makeRoom ends etcd's alarm, waits until it takes writes, and tells whether
// there was an alarm.
func makeRoom(ctx context.Context, l Layout) (bool, error) {
	etcd := newEtcdClient(l)
	full, err := etcd.full(ctx)
	if err != nil || !full {
		return false, err
	}
	if err := etcd.setFull(ctx, false); err != nil {
		return true, err
	}
	return true, await(ctx, "etcd to take writes", 10*time.Second, 10*time.Millisecond, func() error { return etcd.write(ctx) })
}

// rebootNode does to the node what the loss of its power does: processes end
// without a word, what lived in memory is gone (volumes in memory, the runtime's
// state, rules of the firewall, the boot's identity), what lay on the disk is
// there. Then the node starts again.
func rebootNode(ctx context.Context, l Layout) error {
	return withCluster(ctx, l, func(s *starter) error {
		begin := time.Now()
		var err error
		if s.api, err = newAPIClient(l); err != nil {
			return err
		}
		if err := s.whole(ctx); err != nil {
			return fmt.Errorf("restart the node of a whole cluster: %w", err)
		}
		// Cut off from here on, it can only be made anew.
		record, _ := readClusterRecord(l)
		record.Phase = phaseStarting
		if err := writeJSON(l.record(), record); err != nil {
			return err
		}
		if err := s.cutPower(); err != nil {
			return err
		}
		gone := time.Since(begin)
		boot, err := writeBootID(l)
		if err != nil {
			return err
		}
		if err := createCgroups(); err != nil {
			return err
		}
		if err := masqueradePods(l); err != nil {
			return err
		}
		if _, err := s.startMissing(ctx); err != nil {
			return err
		}
		// Until the kubelet reports, the API shows the node and its pods as
		// they were before.
		err = await(ctx, "the kubelet to report the restart", time.Minute, 50*time.Millisecond, func() error {
			n, err := s.api.node(ctx)
			if err == nil && n.Status.NodeInfo.BootID != boot {
				err = errors.New("the node's status is from before")
			}
			return err
		})
		if err != nil {
			return err
		}
		record.Phase = phaseUp
		if err := writeJSON(l.record(), record); err != nil {
			return err
		}
		say("the node was down for %.1f s and works again after %.1f s", gone.Seconds(), time.Since(begin).Seconds())
		return nil
	})
}

// cutPower ends everything that runs on the node and forgets what was in memory.
func (s *starter) cutPower() error {
	l := s.layout
	// The kubelet first: it would report what happens to the pods. The control
	// plane stays, as if on another machine.
	for _, name := range []string{"kubelet", "kube-router", "kube-proxy", "containerd"} {
		if record, ok := readRecord(l, name); ok {
			if err := kill([]processRecord{record}, 15*time.Second); err != nil {
				return fmt.Errorf("end %s: %w", name, err)
			}
		}
	}
	if _, err := killCgroups(15 * time.Second); err != nil {
		return err
	}
	if _, err := endAll(func() []processRecord { return shims(l) }, 15*time.Second); err != nil {
		return fmt.Errorf("end the containers' shims: %w", err)
	}
	if err := removeShimSockets(l); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(l.kubelet(), "pods"), filepath.Join(l.kubelet(), "plugins"), l.path("containerd")} {
		if err := unmountBelow(dir); err != nil {
			return err
		}
	}
	for _, dir := range []string{l.containerdState(), l.runcState()} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("forget the runtime's state: %w", err)
		}
	}
	if err := removeCgroups(); err != nil {
		return err
	}
	return clearFirewall(l)
}

// shims are the parents of containers. They live in the node's network
// namespace, outside the cgroups of pods.
func shims(l Layout) []processRecord {
	return slices.DeleteFunc(namespaceProcesses(l), func(r processRecord) bool {
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.PID))
		return err != nil || filepath.Base(program) != "containerd-shim-runc-v2"
	})
}
