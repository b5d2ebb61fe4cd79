//go:build !linux

package main

import "syscall"

// attributes are a matter of Linux: elsewhere a rig that is killed leaves its nodes.
func attributes() *syscall.SysProcAttr { return nil }
