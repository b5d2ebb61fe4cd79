//go:build !linux

package main

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// limitUnacknowledged has no portable form; keep-alive probes remain.
func limitUnacknowledged(syscall.RawConn, time.Duration) error { return nil }

var errSharing = errors.New("--reuse-port needs Linux; elsewhere have the listener passed (LISTEN_FDS)")

func sharePort(syscall.RawConn) error { return errSharing }

func takeTheNew(*net.TCPListener) error { return errSharing }
