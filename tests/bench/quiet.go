package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// What a machine must give for its milliseconds to mean something: nearly all of every processor,
// without being away for as long as the differences that are measured.
const (
	spin      = time.Second
	fullShare = 0.97
	longGap   = 5 * time.Millisecond
)

// stillnessOf is what a loop on every processor saw of the others on this machine.
type stillnessOf struct {
	// Share of the time that the least lucky loop ran.
	Share float64
	// Gap is the longest time between two looks at the clock, on any processor.
	Gap time.Duration
}

func (q stillnessOf) quiet() bool { return q.Share >= fullShare && q.Gap <= longGap }

func (q stillnessOf) String() string {
	verdict := "quiet"
	if !q.quiet() {
		verdict = "BUSY: read rows in milliseconds and per second with care; ratios within a round and processor time suffer less"
	}
	return fmt.Sprintf("%s (every processor gave at least %.0f%% of its time, longest pause %.1f ms)",
		verdict, 100*q.Share, float64(q.Gap.Microseconds())/1000)
}

// listen spins on every processor for a while.
func listen(length time.Duration) stillnessOf {
	var (
		loops sync.WaitGroup
		lock  sync.Mutex
		found = stillnessOf{Share: 1}
	)
	for range runtime.NumCPU() {
		loops.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			used, began := threadTime(), time.Now()
			last, gap := began, time.Duration(0)
			for last.Sub(began) < length {
				now := time.Now()
				gap, last = max(gap, now.Sub(last)), now
			}
			share := float64(threadTime()-used) / float64(last.Sub(began))
			lock.Lock()
			defer lock.Unlock()
			found.Share, found.Gap = min(found.Share, share), max(found.Gap, gap)
		})
	}
	loops.Wait()
	return found
}

// threadTime is the processor time of this thread.
func threadTime() time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var usage syscall.Rusage
	if err := syscall.Getrusage(thread, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// placement says on which processor each program of the calls runs. Three programs on fewer than
// four processors are left to the scheduler: a fixed place would make two of them share one while
// another stands idle.
type placement struct{ client, proxy, plugin int }

func placed() (placement, bool) {
	if runtime.NumCPU() < 4 {
		return placement{}, false
	}
	return placement{client: 1, proxy: 2, plugin: 3}, true
}

// pin keeps all threads of a process on one processor; those that it starts later inherit that.
func pin(pid, processor int) error {
	var set [16]uint64
	set[processor/64] |= 1 << (processor % 64)
	// Twice: a thread that was being started during the first look has its place after the second.
	for range 2 {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			return err
		}
		for _, thread := range threads {
			id, err := strconv.Atoi(filepath.Base(thread))
			if err != nil {
				return err
			}
			_, _, failed := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(id), unsafe.Sizeof(set), uintptr(unsafe.Pointer(&set)))
			if failed != 0 && failed != syscall.ESRCH {
				return fmt.Errorf("keeping process %d on processor %d: %w", pid, processor, failed)
			}
		}
	}
	return nil
}

// processorTime is what the living threads of a process have used. It is finer than the ticks of
// cpuSeconds, and does not count threads that have ended.
func processorTime(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	total := time.Duration(0)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		one, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading %s: %w", file, err)
		}
		total += time.Duration(one)
	}
	return total, nil
}
