package main

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged sets TCP_USER_TIMEOUT (RFC 5482) on a listener, from
// which its connections inherit it.
func limitUnacknowledged(c syscall.RawConn, limit time.Duration) error {
	return control(c, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
	})
}

// sharePort lets another process of the same user listen at the same address.
func sharePort(c syscall.RawConn) error {
	return control(c, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
}

// takeTheNew gives new connections to the second of those who listen at one
// address, if there are two: that is the one who takes over. Otherwise the
// kernel would spread them, and what the first has not accepted when it closes
// its listener would be reset. The rule is the listeners' common one: it holds
// as soon as the second listens, and when the first has closed, the second is
// the first.
func takeTheNew(ln *net.TCPListener) error {
	c, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	// The program says which one it is, by its number. Where there is no such
	// number the kernel spreads, over the only one.
	second := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 1}}
	err = control(c, func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: uint16(len(second)), Filter: &second[0]})
	})
	if err != nil {
		return fmt.Errorf("--reuse-port: %w", os.NewSyscallError("setsockopt", err))
	}
	return nil
}

func control(c syscall.RawConn, f func(fd int) error) error {
	var err error
	if failed := c.Control(func(fd uintptr) { err = f(int(fd)) }); failed != nil {
		return failed
	}
	return err
}
