//go:build !linux

package redistest

import "syscall"

// attributes has nothing to ask for here: a test binary that is killed leaves
// its servers behind.
func attributes() *syscall.SysProcAttr { return nil }

// stopped cannot be asked without help; a signal takes effect almost at once.
func stopped(int) (bool, error) { return true, nil }
