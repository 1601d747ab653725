package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// lockFile takes an exclusive lock that ends with the process at the latest.
// It says once whom it waits for. The returned function gives the lock back.
func lockFile(ctx context.Context, path, what string) (func(), error) {
	told := false
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open the lock of %s: %w", what, err)
		}
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && sameFile(file, path) {
			if err := errors.Join(file.Truncate(0), writeAt(file, fmt.Sprintf("%d\n", os.Getpid()))); err != nil {
				file.Close()
				return nil, fmt.Errorf("write the lock of %s: %w", what, err)
			}
			return func() { file.Close() }, nil
		}
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", what, err)
		}
		if err != nil && !told {
			holder, _ := os.ReadFile(path)
			say("waiting for %s, held by process %s", what, strings.TrimSpace(string(holder)))
			told = true
		}
		file.Close()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// sameFile tells whether the locked file is still the one at its path. `down`
// removes the lock file while holding it, and a lock on a removed file
// excludes nobody.
func sameFile(file *os.File, path string) bool {
	held, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(held, there)
}

func writeAt(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}
