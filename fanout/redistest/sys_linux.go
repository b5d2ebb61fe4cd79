package redistest

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
)

// attributes makes the kernel kill the child when we die, however we die.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// stopped reports whether SIGSTOP has taken effect on pid.
func stopped(pid int) (bool, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false, err
	}
	// pid (name) state …, where the name may hold anything, even parentheses
	_, after, ok := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(") "))
	if !ok || len(after) == 0 {
		return false, fmt.Errorf("reading the state of process %d: got %q", pid, stat)
	}
	return after[0] == 'T', nil
}
