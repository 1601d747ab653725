package main

import (
	"os/exec"
	"testing"
	"time"
)

// started starts a program that nobody waits for, so that it stays in the process table when it ends.
func started(t *testing.T, args ...string) (*exec.Cmd, processRecord) {
	t.Helper()
	child := exec.Command(args[0], args[1:]...)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		child.Process.Kill() //nolint:errcheck // ended already when the test passes
		child.Wait()         //nolint:errcheck // killed on purpose
	})
	record, err := recordOf(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return child, record
}

func TestAProcessThatAppearsWhileOthersAreEndedIsEndedToo(t *testing.T) {
	_, first := started(t, "sleep", "600")
	var late processRecord
	look := 0
	ended, err := endAll(func() []processRecord {
		look++
		switch look {
		case 1:
			return []processRecord{first}
		case 2:
			_, late = started(t, "sleep", "600")
			return []processRecord{late}
		}
		return nil
	}, 10*time.Second)
	if err != nil || len(ended) != 2 || first.alive() || late.alive() {
		t.Errorf("ended %v, first lives: %v, late lives: %v, %v", ended, first.alive(), late.alive(), err)
	}
}

func TestDownWaitsUntilEndedProcessesHaveLeftTheTable(t *testing.T) {
	child, record := started(t, "sleep", "600")
	if err := kill([]processRecord{record}, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := statOf(record.PID); err != nil {
		t.Fatalf("a process that nobody waited for is not in the table: %v", err)
	}
	waited := make(chan struct{})
	go func() { awaitReaped([]processRecord{record}, time.Minute); close(waited) }()
	select {
	case <-waited:
		t.Error("the wait was over while the process was in the table")
	case <-time.After(100 * time.Millisecond):
	}
	child.Wait() //nolint:errcheck // killed on purpose
	select {
	case <-waited:
	case <-time.After(10 * time.Second):
		t.Error("the wait goes on after the process has left the table")
	}
}

func TestTheWaitForTheTableHasALimit(t *testing.T) {
	_, record := started(t, "true")
	awaitReaped([]processRecord{record}, 20*time.Millisecond)
}

// A containerd shim whose first thread has ended has no namespace of its own in /proc any more.
func TestAProcessIsInItsNamespaceUntilItsLastThreadEnds(t *testing.T) {
	own, ok := namespaceID("/proc/self/ns/net")
	if !ok {
		t.Fatal("this process has no network namespace")
	}
	_, record := started(t, "python3", "-c", `
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
ctypes.CDLL(None).syscall(60, 0) if __import__("platform").machine() == "x86_64" else ctypes.CDLL(None).syscall(93, 0)
`)
	deadline := time.Now().Add(10 * time.Second)
	for {
		stat, err := statOf(record.PID)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the first thread does not end alone: %+v, %v", stat, err)
		}
		if stat.state == 'Z' {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if !record.alive() || !inNamespace(record.PID, own) {
		t.Errorf("alive: %v, in the namespace: %v", record.alive(), inNamespace(record.PID, own))
	}
	if err := kill([]processRecord{record}, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if inNamespace(record.PID, own) {
		t.Error("an ended process is in the namespace")
	}
}
