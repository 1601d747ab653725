package main

import "fmt"

// auditPolicy says which requests the API server writes down. Checkers replay
// the changes of Jobs in the order of the resource versions that the answers
// carry, and only the fullest level shows answers. Of other changes of our
// objects it notes who, what and when; of everything else, nothing.
func auditPolicy() (string, error) {
	changes := []string{"create", "update", "patch", "delete", "deletecollection"}
	rule := func(level string, resources ...string) map[string]any {
		group := map[string]any{"group": "patchbay.dev"}
		if len(resources) != 0 {
			group["resources"] = resources
		}
		return map[string]any{"level": level, "verbs": changes, "resources": []any{group}}
	}
	return renderJSON(map[string]any{
		"apiVersion":        "audit.k8s.io/v1",
		"kind":              "Policy",
		"omitStages":        []string{"RequestReceived"},
		"omitManagedFields": true,
		// The first rule that fits decides.
		"rules": []any{
			rule("RequestResponse", "jobs", "jobs/status"),
			rule("Metadata"),
			map[string]any{"level": "None"},
		},
	})
}

// printAuditLog prints where the API server writes its audit log: one JSON
// object a line, an event of audit.k8s.io/v1.
func printAuditLog(l Layout) error {
	if _, known := readClusterRecord(l); !known {
		return errNotRunning
	}
	fmt.Println(l.auditLog())
	return nil
}
