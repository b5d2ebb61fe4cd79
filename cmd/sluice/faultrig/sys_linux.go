package main

import "syscall"

// attributes make the kernel kill a node should the rig be killed.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
