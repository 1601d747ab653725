//go:build linux && amd64

package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"
)

// setns is the number of the system call on amd64; Go's own list ends before it.
const setns = 308

// dialOnNode connects from inside the node's network namespace. A socket stays
// in the namespace that it was made in, so only the thread that makes it has to
// go there, and that thread ends with the goroutine that is locked to it.
func dialOnNode(l Layout, network, address string) (net.Conn, error) {
	type dialled struct {
		connection net.Conn
		err        error
	}
	done := make(chan dialled, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		file, err := os.Open(l.namespace())
		if err != nil {
			done <- dialled{err: fmt.Errorf("enter the node's network namespace: %w", err)}
			return
		}
		defer file.Close()
		if _, _, errno := syscall.RawSyscall(setns, file.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
			done <- dialled{err: fmt.Errorf("enter the node's network namespace: %w", errno)}
			return
		}
		connection, err := net.DialTimeout(network, address, 5*time.Second)
		done <- dialled{connection, err}
	}()
	d := <-done
	return d.connection, d.err
}
