//go:build !linux

package main

import (
	"syscall"
	"time"
)

// limitUnacknowledged has no portable form; keep-alive probes remain.
func limitUnacknowledged(time.Duration) func(network, address string, c syscall.RawConn) error {
	return nil
}
