// Command bench measures Patchbay against its peers in one run and prints the ratios.
//
// It judges nothing: a bar that is missed is shown as missed and the exit code stays 0. Only
// what could not be measured is an error.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

var programStart = time.Now()

// settings are the flags.
type settings struct {
	rounds   int
	slice    time.Duration
	programs string // our release programs
	fixtures string // the tests' Go programs
	python   string // the tests' controller plugins
	checker  string // judges a run of jobs
	audit    string // the API server's audit log, if it is on this machine
	out      string
	images   string // repository prefix of images in the cluster
	parts    string
	operator string // namespace of the installation
}

// parts are measured in this order.
var parts = []struct {
	name    string
	measure func(settings) ([]row, error)
}{
	{"calls", measureCalls},
	{"starts", measureStarts},
	{"cluster", measureCluster},
	{"jobs", measureJobs},
}

func main() {
	var s settings
	flag.IntVar(&s.rounds, "rounds", 15, "rounds; in each of them everybody has one turn. Three fifths of them for the cluster, a fifth for jobs")
	flag.DurationVar(&s.slice, "slice", time.Second, "length of one run of calls")
	flag.StringVar(&s.programs, "programs", os.Getenv("PATCHBAY_BIN_DIR"), "folder of the programs")
	flag.StringVar(&s.fixtures, "fixtures", "", "folder of the fixtures' programs")
	flag.StringVar(&s.python, "python", "tests/plugins/python", "folder of the fixtures' controller plugins")
	flag.StringVar(&s.checker, "checker", "", "the program that judges a run of jobs")
	flag.StringVar(&s.audit, "audit", "", "the audit log of the API server; not looked at when empty")
	flag.StringVar(&s.out, "out", "", "folder of the results")
	flag.StringVar(&s.images, "images", "patchbay.dev", "repository prefix of the images")
	flag.StringVar(&s.parts, "parts", "calls starts cluster jobs", "what to measure")
	flag.StringVar(&s.operator, "operator-namespace", "patchbay-system", "where the operator is installed")
	flag.Parse()
	// Everything temporary, also of the programs that we start, goes with this folder.
	scratch, err := os.MkdirTemp("", "pb-bench-")
	if err == nil {
		err = os.Setenv("TMPDIR", scratch)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: making a temporary folder:", err)
		os.Exit(1)
	}
	// A signal must not leave a namespace or a process behind.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- run(s) }()
	select {
	case err = <-ended:
	case <-stop:
		err = errors.New("interrupted")
	}
	cleanUp()
	_ = os.RemoveAll(scratch)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(s settings) error {
	began := time.Now()
	before := listen(spin)
	fmt.Fprintf(os.Stderr, "this machine is %s; load %s\n", before, machineLoad())
	conditions := map[string]string{
		"machine":    before.String(),
		"quiet":      fmt.Sprint(before.quiet()),
		"date":       began.UTC().Format(time.RFC3339),
		"processors": fmt.Sprint(runtime.NumCPU()),
		"rounds":     fmt.Sprint(s.rounds),
		"load":       machineLoad(),
	}
	var rows []row
	var minutes []string
	for _, part := range parts {
		if !strings.Contains(" "+s.parts+" ", " "+part.name+" ") {
			fmt.Fprintf(os.Stderr, "%s: skipped\n", part.name)
			continue
		}
		begin := time.Now()
		more, err := part.measure(s)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", part.name, err)
		}
		rows = append(rows, more...)
		minutes = append(minutes, fmt.Sprintf("%s %.1f", part.name, time.Since(begin).Minutes()))
	}
	after := listen(spin)
	conditions["load at the end"] = machineLoad()
	conditions["machine at the end"], conditions["quiet at the end"] = after.String(), fmt.Sprint(after.quiet())
	conditions["minutes"] = strings.Join(minutes, ", ")
	fmt.Printf("\n%d rounds on %d processors, load %s before and %s after; median [min..max] over the rounds\n\n",
		s.rounds, runtime.NumCPU(), conditions["load"], conditions["load at the end"])
	show(os.Stdout, rows)
	file, err := record(s.out, conditions, rows)
	if err != nil {
		return err
	}
	fmt.Printf("\nthe machine before: %s\nthe machine after:  %s\n", before, after)
	fmt.Printf("minutes: %s; every round is in %s\n", conditions["minutes"], file)
	return nil
}

// fewer are the rounds of a part whose rounds take long; there is at least one.
func (s settings) fewer(part float64) int { return max(1, int(float64(s.rounds)*part+0.5)) }

func (s settings) progress(what string, round int) { progress(what, round, s.rounds) }

func progress(what string, round, rounds int) {
	seconds := int(time.Since(programStart).Seconds())
	fmt.Fprintf(os.Stderr, "%2d:%02d %s: round %d of %d\n", seconds/60, seconds%60, what, round+1, rounds)
}

// machineLoad is the load average of the last minute: what others do at the same time counts.
func machineLoad() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
