package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"
)

const (
	dnsName       = "coredns"
	dnsNamespace  = "kube-system"
	clusterDomain = "cluster.local"
)

// corefile lets the server know the cluster's names and nothing else. A name of
// the world outside does not exist: the node has no way there, and "no such
// name" ends a look-up at once where a refusal would make programs try again.
// Answers come from memory, so a cache would only make new Services appear late.
const corefile = `.:53 {
    errors
    health :8080
    ready :8181
    kubernetes ` + clusterDomain + ` in-addr.arpa ip6.arpa {
        pods insecure
    }
    template ANY ANY . {
        rcode NXDOMAIN
    }
}
`

// dnsImage names the image of one build of CoreDNS: the cache folder of a
// program carries its version and the hash of what went into it.
func dnsImage(p programs) string {
	build := strings.TrimPrefix(filepath.Base(filepath.Dir(p[dnsName])), dnsName+"-")
	return "patchbay.dev/" + dnsName + ":" + build
}

// dnsObject is one object of the DNS server and the address it is applied to.
type dnsObject struct {
	Path   string         `json:"path"`
	Object map[string]any `json:"object"`
}

// dnsObjects are the DNS server's objects in the order of their creation.
func dnsObjects(image string) []dnsObject {
	const rbac = "rbac.authorization.k8s.io"
	object := func(path, version, kind, name string, rest map[string]any) dnsObject {
		metadata := map[string]any{"name": name}
		if strings.Contains(path, "/namespaces/") {
			metadata["namespace"] = dnsNamespace
			metadata["labels"] = map[string]any{"k8s-app": "kube-dns"}
		}
		rest["apiVersion"], rest["kind"], rest["metadata"] = version, kind, metadata
		return dnsObject{Path: path + "/" + name, Object: rest}
	}
	core := "/api/v1/namespaces/" + dnsNamespace
	read := []string{"list", "watch"}
	return []dnsObject{
		object(core+"/serviceaccounts", "v1", "ServiceAccount", dnsName, map[string]any{}),
		object("/apis/"+rbac+"/v1/clusterroles", rbac+"/v1", "ClusterRole", "system:coredns", map[string]any{
			"rules": []any{
				map[string]any{"apiGroups": []string{""}, "resources": []string{"services", "pods", "namespaces"}, "verbs": read},
				map[string]any{"apiGroups": []string{"discovery.k8s.io"}, "resources": []string{"endpointslices"}, "verbs": read},
			},
		}),
		object("/apis/"+rbac+"/v1/clusterrolebindings", rbac+"/v1", "ClusterRoleBinding", "system:coredns", map[string]any{
			"roleRef":  map[string]any{"apiGroup": rbac, "kind": "ClusterRole", "name": "system:coredns"},
			"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": dnsName, "namespace": dnsNamespace}},
		}),
		object(core+"/configmaps", "v1", "ConfigMap", dnsName, map[string]any{
			"data": map[string]any{"Corefile": corefile},
		}),
		object("/apis/apps/v1/namespaces/"+dnsNamespace+"/deployments", "apps/v1", "Deployment", dnsName, map[string]any{
			"spec": map[string]any{
				"replicas": 1,
				"selector": map[string]any{"matchLabels": map[string]any{"k8s-app": "kube-dns"}},
				"template": map[string]any{
					"metadata": map[string]any{"labels": map[string]any{"k8s-app": "kube-dns"}},
					"spec":     dnsPod(image),
				},
			},
		}),
		object(core+"/services", "v1", "Service", "kube-dns", map[string]any{
			"spec": map[string]any{
				"clusterIP": dnsService,
				"selector":  map[string]any{"k8s-app": "kube-dns"},
				"ports": []any{
					map[string]any{"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"},
					map[string]any{"name": "dns-tcp", "port": 53, "targetPort": 53, "protocol": "TCP"},
				},
			},
		}),
	}
}

// dnsPod is the server's pod. It listens on 53 itself, because the ports of
// NetworkPolicies are those of pods, and needs no privilege for it: the lowest
// free port is a setting of the pod's own network namespace.
func dnsPod(image string) map[string]any {
	port := func(name, protocol string, number int) map[string]any {
		return map[string]any{"name": name, "containerPort": number, "protocol": protocol}
	}
	return map[string]any{
		"serviceAccountName": dnsName,
		"priorityClassName":  "system-cluster-critical",
		"dnsPolicy":          "Default",
		// It may come before the node calls itself ready, which saves a start
		// the time of one after the other.
		"tolerations": []any{map[string]any{"operator": "Exists"}},
		"securityContext": map[string]any{
			"runAsNonRoot":   true,
			"runAsUser":      65535,
			"runAsGroup":     65535,
			"seccompProfile": map[string]any{"type": "RuntimeDefault"},
			"sysctls":        []any{map[string]any{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}},
		},
		"containers": []any{map[string]any{
			"name":            dnsName,
			"image":           image,
			"imagePullPolicy": "Never",
			"args":            []string{"-conf", "/etc/coredns/Corefile"},
			"ports":           []any{port("dns", "UDP", 53), port("dns-tcp", "TCP", 53)},
			"resources": map[string]any{
				"requests": map[string]any{"cpu": "20m", "memory": "64Mi"},
				"limits":   map[string]any{"memory": "192Mi"},
			},
			"securityContext": map[string]any{
				"allowPrivilegeEscalation": false,
				"readOnlyRootFilesystem":   true,
				"capabilities":             map[string]any{"drop": []string{"ALL"}},
			},
			"readinessProbe": map[string]any{
				"httpGet":       map[string]any{"path": "/ready", "port": 8181},
				"periodSeconds": 1,
			},
			"livenessProbe": map[string]any{
				"httpGet":          map[string]any{"path": "/health", "port": 8080},
				"periodSeconds":    10,
				"failureThreshold": 6,
			},
			"volumeMounts": []any{map[string]any{"name": "config", "mountPath": "/etc/coredns", "readOnly": true}},
		}},
		"volumes": []any{map[string]any{"name": "config", "configMap": map[string]any{"name": dnsName}}},
	}
}

// applyDNS makes the DNS server's objects, and makes them right again when
// somebody changed them. The namespace comes a moment after the API server is
// ready.
func (s *starter) applyDNS(ctx context.Context) error {
	for _, o := range dnsObjects(dnsImage(s.programs)) {
		err := await(ctx, "the cluster to take "+o.Path, 30*time.Second, 50*time.Millisecond, func() error {
			return s.api.apply(ctx, o.Path, o.Object)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// resolves asks the cluster's DNS at its Service address, as pods do, for the
// API server's name.
func (s *starter) resolves() error {
	address, err := askDNS(s.layout, "kubernetes.default.svc."+clusterDomain)
	if err != nil {
		return fmt.Errorf("the cluster's DNS does not answer yet: %w", err)
	}
	if address != firstService {
		return fmt.Errorf("the cluster's DNS gives the API server the address %s, want %s", address, firstService)
	}
	return nil
}

// askDNS sends one question for an IPv4 address from the node.
func askDNS(l Layout, name string) (string, error) {
	connection, err := dialOnNode(l, "udp", net.JoinHostPort(dnsService, "53"))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		return "", err
	}
	question := dnsQuestion(name)
	if _, err := connection.Write(question); err != nil {
		return "", err
	}
	answer := make([]byte, 512)
	n, err := connection.Read(answer)
	if err != nil {
		return "", err
	}
	return dnsAnswer(question, answer[:n])
}

// dnsHeader is the length of a DNS message before its question.
const dnsHeader = 12

// dnsQuestion renders a question for the IPv4 address of a name. The port that
// it is sent from is new each time, so the message needs no number of its own.
func dnsQuestion(name string) []byte {
	message := []byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0} // recursion desired, one question
	for _, label := range strings.Split(name, ".") {
		message = append(append(message, byte(len(label))), label...)
	}
	return append(message, 0, 0, 1, 0, 1) // the root, type A, class IN
}

// dnsAnswer reads the address from the one record that answers the question.
// Names in answers repeat the question and are as long there or compressed, so
// the record is taken from its end: class, life, length and four bytes.
func dnsAnswer(question, message []byte) (string, error) {
	if len(message) < len(question) || !bytes.Equal(message[dnsHeader:len(question)], question[dnsHeader:]) {
		return "", errors.New("the answer is to another question")
	}
	if code := message[3] & 0x0f; code != 0 {
		return "", fmt.Errorf("the answer is error %d", code)
	}
	const tail = 2 + 2 + 4 + 2 + 4
	if answers := binary.BigEndian.Uint16(message[6:]); answers != 1 || len(message) < len(question)+tail {
		return "", fmt.Errorf("the answer has %d records", answers)
	}
	record := message[len(message)-tail:]
	if !bytes.Equal(record[:4], []byte{0, 1, 0, 1}) || !bytes.Equal(record[8:10], []byte{0, 4}) {
		return "", errors.New("the answer is no IPv4 address")
	}
	return net.IP(record[10:]).String(), nil
}
