package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestABusyMachineIsCalledBusy(t *testing.T) {
	for seen, want := range map[stillnessOf]bool{
		{Share: 0.99, Gap: time.Millisecond}:      true,
		{Share: 0.80, Gap: time.Millisecond}:      false,
		{Share: 0.99, Gap: 20 * time.Millisecond}: false,
	} {
		if seen.quiet() != want || strings.Contains(seen.String(), "BUSY") == want {
			t.Errorf("%+v: quiet %v, %s", seen, seen.quiet(), seen)
		}
	}
}

func TestTheLookSeesWhatALoopGot(t *testing.T) {
	seen := listen(20 * time.Millisecond)
	if seen.Share <= 0 || seen.Share > 1.1 || seen.Gap <= 0 {
		t.Errorf("%+v", seen)
	}
}

func TestProcessorTimeGrowsWithWork(t *testing.T) {
	before, err := processorTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	listen(20 * time.Millisecond)
	after, err := processorTime(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("%s before, %s after, %v", before, after, err)
	}
}

func TestAPinnedProcessStaysOnItsProcessor(t *testing.T) {
	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	if err := pin(child.Process.Pid, 0); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", child.Process.Pid))
	if err != nil || !strings.Contains(string(text), "Cpus_allowed_list:\t0\n") {
		t.Errorf("%v\n%s", err, text)
	}
}
