// Command checker judges a run of Jobs after the fact: were the guarantees kept?
//
// It shares nothing with the product. It reads three records that the product did not write or
// cannot change: the chronicle (every version of every Job, as a watch delivered them), the API
// server's audit log (every attempt to write, also those that were refused), and the diaries of
// the plugins (every job that really reached one, written before it was worked on).
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	chronicle := flag.String("chronicle", "", "file with one watch event a line")
	audit := flag.String("audit", "", "the API server's audit log; its rotated parts lie beside it")
	diaries := flag.String("diaries", "", "folder with the plugins' diaries")
	namespace := flag.String("namespace", "", "namespace of the run")
	asJSON := flag.Bool("json", false, "print the verdict as JSON")
	flag.Parse()
	verdict, err := judgeFiles(*chronicle, *audit, *diaries, *namespace)
	if err != nil {
		fmt.Fprintln(os.Stderr, "checker:", err)
		os.Exit(2)
	}
	if *asJSON {
		_ = json.NewEncoder(os.Stdout).Encode(verdict)
	} else {
		fmt.Print(verdict.text())
	}
	if !verdict.Kept() {
		os.Exit(1)
	}
}

func judgeFiles(chronicle, audit, diaries, namespace string) (*Verdict, error) {
	history := newHistory(namespace)
	if err := eachLine(chronicle, history.hear); err != nil {
		return nil, fmt.Errorf("reading the chronicle: %w", err)
	}
	if audit != "" {
		parts, err := filepath.Glob(strings.TrimSuffix(audit, ".log") + "*.log")
		if err != nil {
			return nil, fmt.Errorf("looking for the audit log: %w", err)
		}
		if len(parts) == 0 {
			return nil, fmt.Errorf("reading the audit log: there is no %s", audit)
		}
		for _, part := range parts {
			if err := eachLine(part, history.hearAudit); err != nil {
				return nil, fmt.Errorf("reading the audit log: %w", err)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(diaries, "*"))
	if err != nil {
		return nil, fmt.Errorf("looking for diaries: %w", err)
	}
	var entries []Entry
	for _, file := range files {
		err := eachLine(file, func(line []byte) error {
			var entry Entry
			if err := json.Unmarshal(line, &entry); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			entries = append(entries, entry)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("reading a diary: %w", err)
		}
	}
	return judge(history, entries), nil
}
