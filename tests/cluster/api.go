package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// apiClient speaks to the API server as administrator. It needs a handful of
// plain requests only, so it carries no Kubernetes library.
type apiClient struct{ http *http.Client }

func newAPIClient(l Layout) (apiClient, error) {
	ca, err := os.ReadFile(l.pki("ca.crt"))
	if err != nil {
		return apiClient{}, fmt.Errorf("read the cluster's authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return apiClient{}, errors.New("read the cluster's authority: no certificate in the file")
	}
	pair, err := tls.LoadX509KeyPair(l.pki("admin.crt"), l.pki("admin.key"))
	if err != nil {
		return apiClient{}, fmt.Errorf("read the administrator's certificate: %w", err)
	}
	return apiClient{&http.Client{
		Timeout: 10 * time.Second,
		// No Proxy function: the environment's proxies do not know the node.
		Transport: &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
		}},
	}}, nil
}

// do sends one request and decodes the answer into out unless that is nil.
// It returns the status code also with an error.
func (c apiClient) do(ctx context.Context, method, path string, body, out any) (int, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return 0, fmt.Errorf("render a request for %s: %w", path, err)
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, apiURL+path, bytes.NewReader(text))
	if err != nil {
		return 0, fmt.Errorf("make a request for %s: %w", path, err)
	}
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/apply-patch+yaml") // of which JSON is a part
	}
	response, err := c.http.Do(request)
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 8<<20))
	if err != nil {
		return response.StatusCode, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if response.StatusCode/100 != 2 {
		return response.StatusCode, fmt.Errorf("%s %s: %s: %.300s", method, path, response.Status, answer)
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			return response.StatusCode, fmt.Errorf("%s %s: read the answer: %w", method, path, err)
		}
	}
	return response.StatusCode, nil
}

func (c apiClient) get(ctx context.Context, path string, out any) error {
	_, err := c.do(ctx, http.MethodGet, path, nil, out)
	return err
}

// create makes an object; one that is already there is left as it is.
func (c apiClient) create(ctx context.Context, path string, object any) error {
	code, err := c.do(ctx, http.MethodPost, path, object, nil)
	if code == http.StatusConflict {
		return nil
	}
	return err
}

// apply makes an object what it is given as, whether it is there or not. Other
// fields stay as they are.
func (c apiClient) apply(ctx context.Context, path string, object any) error {
	_, err := c.do(ctx, http.MethodPatch, path+"?fieldManager=patchbay-cluster&force=true", object, nil)
	return err
}

// ready asks the API server whether it is ready to serve.
func (c apiClient) ready(ctx context.Context) error { return c.get(ctx, "/readyz", nil) }

// node is the part of a Node that we look at.
type node struct {
	Spec struct {
		PodCIDR string `json:"podCIDR"`
	} `json:"spec"`
	Status struct {
		Conditions []struct {
			Type    string `json:"type"`
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"conditions"`
		NodeInfo struct {
			BootID string `json:"bootID"`
		} `json:"nodeInfo"`
	} `json:"status"`
}

func (c apiClient) node(ctx context.Context) (node, error) {
	var n node
	err := c.get(ctx, "/api/v1/nodes/"+nodeName, &n)
	return n, err
}

// notReady says why the node cannot take pods, or returns nil.
func (n node) notReady() error {
	for _, condition := range n.Status.Conditions {
		if condition.Type == "Ready" {
			if condition.Status == "True" {
				return nil
			}
			return fmt.Errorf("node is not Ready: %s", condition.Message)
		}
	}
	return errors.New("node has not reported yet")
}

const enforcerUser = "patchbay:network-policy-enforcer"

// grantEnforcer lets the NetworkPolicy enforcer read what policies speak of.
func (c apiClient) grantEnforcer(ctx context.Context) error {
	const group = "rbac.authorization.k8s.io"
	meta := map[string]any{"name": enforcerUser}
	read := []string{"get", "list", "watch"}
	err := c.create(ctx, "/apis/"+group+"/v1/clusterroles", map[string]any{
		"apiVersion": group + "/v1", "kind": "ClusterRole", "metadata": meta,
		"rules": []any{
			map[string]any{"apiGroups": []string{""}, "resources": []string{"namespaces", "pods", "services", "nodes", "endpoints"}, "verbs": read},
			map[string]any{"apiGroups": []string{"networking.k8s.io"}, "resources": []string{"networkpolicies"}, "verbs": read},
			map[string]any{"apiGroups": []string{"discovery.k8s.io"}, "resources": []string{"endpointslices"}, "verbs": read},
		},
	})
	if err != nil {
		return fmt.Errorf("grant the enforcer its rights: %w", err)
	}
	err = c.create(ctx, "/apis/"+group+"/v1/clusterrolebindings", map[string]any{
		"apiVersion": group + "/v1", "kind": "ClusterRoleBinding", "metadata": meta,
		"roleRef":  map[string]any{"apiGroup": group, "kind": "ClusterRole", "name": enforcerUser},
		"subjects": []any{map[string]any{"apiGroup": group, "kind": "User", "name": enforcerUser}},
	})
	if err != nil {
		return fmt.Errorf("grant the enforcer its rights: %w", err)
	}
	return nil
}
