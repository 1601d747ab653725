package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const etcdURL = "http://127.0.0.1:2379" // the node's own loopback

// etcdClient speaks to etcd through its HTTP gateway.
type etcdClient struct{ http *http.Client }

func newEtcdClient(l Layout) etcdClient {
	return etcdClient{&http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
				return dialOnNode(l, network, address)
			},
		},
	}}
}

// call sends one request and decodes the answer into out unless that is nil.
func (c etcdClient) call(ctx context.Context, path string, body map[string]any, out any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("render a request for etcd's %s: %w", path, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, etcdURL+path, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("make a request for etcd's %s: %w", path, err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("call etcd's %s: %w", path, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("call etcd's %s: %w", path, err)
	}
	if response.StatusCode != http.StatusOK {
		return etcdError{path: path, text: string(bytes.TrimSpace(answer))}
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			return fmt.Errorf("read the answer of etcd's %s: %w", path, err)
		}
	}
	return nil
}

// etcdError is an answer of etcd that refuses what was asked.
type etcdError struct{ path, text string }

func (e etcdError) Error() string {
	return fmt.Sprintf("call etcd's %s: it refuses: %s", e.path, e.text)
}

// noSpace is the alarm under which etcd refuses every write but deletions. It
// outlives a restart of etcd.
const noSpace = "NOSPACE"

// full tells whether etcd has raised the alarm.
func (c etcdClient) full(ctx context.Context) (bool, error) {
	var answer struct {
		Alarms []struct {
			Alarm string `json:"alarm"`
		} `json:"alarms"`
	}
	if err := c.call(ctx, "/v3/maintenance/alarm", map[string]any{"action": "GET"}, &answer); err != nil {
		return false, err
	}
	for _, a := range answer.Alarms {
		if a.Alarm == noSpace {
			return true, nil
		}
	}
	return false, nil
}

// setFull raises or ends the alarm, in the same way in which etcd does it when
// its file passes the quota: by an entry in the log that all members follow.
func (c etcdClient) setFull(ctx context.Context, full bool) error {
	var status struct {
		Header struct {
			MemberID string `json:"member_id"`
		} `json:"header"`
	}
	if err := c.call(ctx, "/v3/maintenance/status", map[string]any{}, &status); err != nil {
		return err
	}
	action := "DEACTIVATE"
	if full {
		action = "ACTIVATE"
	}
	return c.call(ctx, "/v3/maintenance/alarm",
		map[string]any{"action": action, "alarm": noSpace, "memberID": status.Header.MemberID}, nil)
}

// write stores a key outside of what the API server looks at, and removes it.
func (c etcdClient) write(ctx context.Context) error {
	key := base64.StdEncoding.EncodeToString([]byte("/patchbay-cluster/probe"))
	if err := c.call(ctx, "/v3/kv/put", map[string]any{"key": key, "value": ""}, nil); err != nil {
		return err
	}
	return c.call(ctx, "/v3/kv/deleterange", map[string]any{"key": key}, nil)
}
