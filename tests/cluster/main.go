// Command cluster runs one real Kubernetes node on a bare Linux machine for the
// project's tests and demo: etcd, the Kubernetes programs, containerd and a
// NetworkPolicy enforcer, all inside an own network namespace and own folders.
//
// It never changes the machine's network, kernel settings or cgroup mounts,
// and ends only processes that it can prove to be its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: cluster VERB [ARGUMENTS]

  up                    build what is missing, start the cluster or repair it, wait until it works
  down                  end it and remove everything but the cache of built programs
  status                say what runs; exit code 1 when the cluster is not whole
  prepare               install the Debian packages and build every program, start nothing
  kubeconfig            print the path of the administrator's kubeconfig
  audit-log             print the path of the API server's audit log: changes of our objects, a JSON object a line
  load-image FILE...    import OCI or Docker archives into the node's image store
  bin NAME              print the path of a program (kubectl, helm, etcd, ...), building it when needed
  ctr ARGUMENTS         run containerd's client against the node
  node-exec -- COMMAND  run a command inside the node's network namespace
  stop-apiserver        kill kube-apiserver and leave it down
  start-apiserver       start it again and wait until it is ready
  kill-apiserver        kill it, start it again and wait until it is ready
  pause-apiserver       stop it by a signal: it keeps its connections and answers nothing
  continue-apiserver    let it go on and wait until it is ready
  fill-etcd             bring etcd into the alarm of a full disk quota: it refuses every write but deletions
  empty-etcd            end that alarm
  node-reboot           end all that runs on the node but the control plane, lose what is in memory, start again
  help                  print this text

environment:
  PATCHBAY_CLUSTER_DIR  where the running cluster keeps its state (default /var/lib/patchbay-cluster)
  XDG_CACHE_HOME        the built programs are cached in its folder patchbay/cluster-bin
`

// errUsage is returned for a command line that cannot be understood.
var errUsage = errors.New("the command line is not understood; see `cluster help`")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "cluster:", err)
	if errors.Is(err, errUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return errUsage
	}
	layout, err := layoutFromEnvironment()
	if err != nil {
		return err
	}
	verb, rest := args[0], args[1:]
	switch verb {
	case "load-image":
		if len(rest) == 0 {
			return errUsage
		}
		return loadImages(ctx, layout, rest)
	case "bin":
		if len(rest) != 1 {
			return errUsage
		}
		return printProgram(ctx, rest[0])
	case "ctr":
		return runCtr(layout, rest)
	case "node-exec":
		if len(rest) > 0 && rest[0] == "--" {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			return errUsage
		}
		return nodeExec(layout, rest)
	}
	if len(rest) != 0 {
		return errUsage
	}
	switch verb {
	case "up":
		return up(ctx, layout)
	case "down":
		return down(ctx, layout)
	case "status":
		return status(ctx, layout)
	case "prepare":
		return prepare(ctx)
	case "kubeconfig":
		return printKubeconfig(layout)
	case "stop-apiserver":
		return stopAPIServer(ctx, layout)
	case "start-apiserver":
		return startAPIServer(ctx, layout)
	case "kill-apiserver":
		return killAPIServer(ctx, layout)
	case "pause-apiserver":
		return pauseAPIServer(ctx, layout)
	case "continue-apiserver":
		return continueAPIServer(ctx, layout)
	case "fill-etcd":
		return fillEtcd(ctx, layout)
	case "empty-etcd":
		return emptyEtcd(ctx, layout)
	case "node-reboot":
		return rebootNode(ctx, layout)
	case "audit-log":
		return printAuditLog(layout)
	case "help", "-h", "--help":
		fmt.Print(usage)
		return nil
	}
	return fmt.Errorf("verb %q: %w", verb, errUsage)
}

// say prints one line of progress. Standard output is kept for answers that
// scripts read.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "cluster: "+format+"\n", args...)
}
