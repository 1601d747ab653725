package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ticksPerSecond is USER_HZ, which is 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// start starts a program that ends with us. What it writes goes into a file of that name in
// the folder.
func start(folder, name string, command *exec.Cmd) error {
	log, err := os.Create(filepath.Join(folder, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	if command.Stdout == nil {
		command.Stdout = log
	}
	command.Stderr = log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	return nil
}

// end kills a program that we started and collects it.
func end(command *exec.Cmd) {
	if command == nil || command.Process == nil {
		return
	}
	_ = command.Process.Kill()
	_ = command.Wait()
}

// firstLine starts a program and returns the first line that it prints.
func firstLine(folder, name string, command *exec.Cmd) (string, error) {
	output, err := command.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := start(folder, name, command); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		end(command)
		return "", fmt.Errorf("waiting for the first line of %s: %w\n%s", name, err, tail(folder, name))
	}
	return strings.TrimSpace(line), nil
}

// tail is the end of a program's log, for errors.
func tail(folder, name string) string {
	text, _ := os.ReadFile(filepath.Join(folder, name+".log"))
	return string(text[max(0, len(text)-2000):])
}

// cpuSeconds is what a process has used so far, all threads together.
func cpuSeconds(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// "pid (name) state …": user and system time are fields 14 and 15.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("reading /proc/%d/stat: it has %d fields", pid, len(fields))
	}
	ticks := 0
	for _, field := range fields[11:13] {
		number, err := strconv.Atoi(string(field))
		if err != nil {
			return 0, err
		}
		ticks += number
	}
	return float64(ticks) / ticksPerSecond, nil
}

// kibibytes reads one line such as "VmRSS: 123 kB" of a file of a process.
func kibibytes(pid int, file, name string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, name+":"); found {
			return strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
		}
	}
	return 0, fmt.Errorf("reading /proc/%d/%s: there is no %s", pid, file, name)
}

// residentMiB is the resident memory of a process.
func residentMiB(pid int) (float64, error) {
	size, err := kibibytes(pid, "status", "VmRSS")
	return size / 1024, err
}
