//go:build unix

package main

import (
	"math"
	"syscall"
)

// descriptors is how many files and connections this process may have open; 0
// if nobody says. Go has raised the limit as far as it may by now.
func descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(uint64(limit.Cur), math.MaxInt32))
}
