package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// processRecord identifies a process for as long as the machine runs: a pid
// alone may be given to somebody else after the process ended.
type processRecord struct {
	PID int `json:"pid"`
	// StartTicks is field 22 of /proc/PID/stat: clock ticks since boot.
	StartTicks uint64 `json:"startTicks"`
	BootID     string `json:"bootID"`
}

// processStat is what we need of /proc/PID/stat.
type processStat struct {
	state      byte
	threads    int
	startTicks uint64
}

// parseStat reads a line of /proc/PID/stat. The second field is a program name
// in parentheses and may itself contain blanks and parentheses.
func parseStat(line string) (processStat, error) {
	end := strings.LastIndexByte(line, ')')
	if end < 0 {
		return processStat{}, errors.New("read a process's stat: no program name")
	}
	fields := strings.Fields(line[end+1:])
	if len(fields) < 20 || len(fields[0]) != 1 {
		return processStat{}, errors.New("read a process's stat: too few fields")
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return processStat{}, fmt.Errorf("read a process's start time: %w", err)
	}
	threads, err := strconv.Atoi(fields[17])
	if err != nil {
		return processStat{}, fmt.Errorf("read a process's number of threads: %w", err)
	}
	return processStat{state: fields[0][0], threads: threads, startTicks: start}, nil
}

func statOf(pid int) (processStat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return processStat{}, err
	}
	return parseStat(string(text))
}

// running is false for zombies: they are dead and only wait for their parent. One whose other
// threads have not ended holds its files and sockets still.
func (s processStat) running() bool {
	return s.state != 'Z' && s.state != 'X' || s.threads > 1
}

func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func recordOf(pid int) (processRecord, error) {
	stat, err := statOf(pid)
	if err != nil {
		return processRecord{}, err
	}
	return processRecord{PID: pid, StartTicks: stat.startTicks, BootID: bootID()}, nil
}

// alive tells whether exactly the recorded process still runs.
func (r processRecord) alive() bool {
	if r.PID <= 1 || r.BootID != bootID() {
		return false
	}
	stat, err := statOf(r.PID)
	return err == nil && stat.startTicks == r.StartTicks && stat.running()
}

// paused tells whether the recorded process is stopped by a signal.
func (r processRecord) paused() bool {
	stat, err := statOf(r.PID)
	return err == nil && stat.state == 'T' && r.alive()
}

// signal reaches exactly the recorded process. os.FindProcess pins the process
// by descriptor before its start time is compared, so it cannot be exchanged
// in between.
func (r processRecord) signal(sig os.Signal) error {
	process, err := os.FindProcess(r.PID)
	if err != nil {
		return nil // gone
	}
	defer process.Release() //nolint:errcheck // nothing depends on it
	if !r.alive() {
		return nil
	}
	if err := process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", r.PID, err)
	}
	return nil
}

// kill ends the processes and waits until they are gone.
func kill(records []processRecord, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		var left []processRecord
		for _, r := range records {
			if r.alive() {
				left = append(left, r)
			}
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("end %d processes (first: %d): still there after %s", len(left), left[0].PID, limit)
		}
		for _, r := range left {
			if err := r.signal(syscall.SIGKILL); err != nil {
				return err
			}
		}
		records = left
		time.Sleep(5 * time.Millisecond) // the kernel tells a non-parent nothing; this only paces the look
	}
}

// endAll ends what list finds until it finds nothing more: a process that is being ended may have
// started another one after the look. It returns what it ended.
func endAll(list func() []processRecord, limit time.Duration) ([]processRecord, error) {
	deadline := time.Now().Add(limit)
	var ended []processRecord
	for {
		found := list()
		if len(found) == 0 {
			return ended, nil
		}
		if err := kill(found, time.Until(deadline)); err != nil {
			return ended, err
		}
		ended = append(ended, found...)
	}
}

// awaitReaped waits until ended processes have left the process table, where people look whether
// something still runs. Where process 1 reaps nobody they stay; so there is a limit, and no error.
func awaitReaped(ended []processRecord, limit time.Duration) {
	deadline := time.Now().Add(limit)
	for len(ended) != 0 && time.Now().Before(deadline) {
		ended = slices.DeleteFunc(ended, func(r processRecord) bool {
			stat, err := statOf(r.PID)
			return err != nil || stat.startTicks != r.StartTicks
		})
		time.Sleep(5 * time.Millisecond)
	}
}

func (l Layout) recordPath(name string) string { return filepath.Join(l.pids(), name+".json") }

func readRecord(l Layout, name string) (processRecord, bool) {
	text, err := os.ReadFile(l.recordPath(name))
	if err != nil {
		return processRecord{}, false
	}
	var r processRecord
	if json.Unmarshal(text, &r) != nil {
		return processRecord{}, false
	}
	return r, true
}

func componentAlive(l Layout, name string) bool {
	r, ok := readRecord(l, name)
	return ok && r.alive()
}

// writeJSON replaces a file as a whole, so that a reader never sees half of it.
func writeJSON(path string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("render %s: %w", path, err)
	}
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write a record: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write a record: %w", err)
	}
	return nil
}

// start runs a component inside the node's network namespace, detached from
// this program, and records it. nsenter and unshare replace themselves by the
// program, so the pid stays the component's.
func start(l Layout, c component) error {
	log, err := os.OpenFile(l.log(c.name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	defer log.Close()
	nsenter, err := systemProgram("nsenter")
	if err != nil {
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	cmd := exec.Command(nsenter, append([]string{"--net=" + l.namespace(), "--"}, c.command...)...)
	cmd.Dir = "/"
	// Nothing of the caller's environment, above all no proxy settings.
	cmd.Env = []string{"PATH=" + systemPath, "HOME=/root", "LANG=C.UTF-8"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	r, err := recordOf(cmd.Process.Pid)
	if err != nil {
		return fmt.Errorf("start %s: it ended at once; see %s", c.name, l.log(c.name))
	}
	if err := writeJSON(l.recordPath(c.name), r); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	go cmd.Wait() //nolint:errcheck // only so that no zombie stays while this program runs
	return nil
}

// logTail is the end of a component's log, for messages about its death.
func logTail(l Layout, name string) string {
	text, err := os.ReadFile(l.log(name))
	if err != nil {
		return ""
	}
	if len(text) > 8192 {
		text = text[len(text)-8192:]
	}
	return lastLines(string(bytes.ToValidUTF8(text, nil)), 12)
}

// processesWhere returns every process for which the question is answered yes,
// except this one and its ancestors.
func processesWhere(question func(pid int) bool) []processRecord {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []processRecord
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid <= 1 || pid == os.Getpid() || pid == os.Getppid() {
			continue
		}
		if !question(pid) {
			continue
		}
		if r, err := recordOf(pid); err == nil && r.alive() {
			found = append(found, r)
		}
	}
	return found
}
