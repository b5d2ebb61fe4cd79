//go:build !linux

package e2e

import "syscall"

// attributes put a child in a group of its own, so that a signal reaches what
// it started too.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
