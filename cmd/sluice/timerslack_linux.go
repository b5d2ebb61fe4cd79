package main

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is by how much the kernel may let a thread of a node oversleep.
//
// Go's runtime has a thread that looks after the others every 20 µs while there
// is anything to do, and others sleep for 3 µs before they take work from their
// neighbours. With the usual slack of 50 µs those are ten wake-ups for a
// publication, of a node that has some hundred a second: a tenth of all it does.
// Nothing in a node is so urgent.
const timerSlack = time.Millisecond

// oversleeping is in the environment of a process that has executed itself.
const oversleeping = "_SLUICE_OVERSLEEPING=1"

// oversleep gives all threads of the process that slack. A thread has it from
// the one that made it, and the runtime has made its own before main, so the
// process executes itself, which keeps the slack, and with it the process's
// number, files and signals. It returns in the new life, or where this cannot be
// done, which does no harm.
func oversleep() {
	if slices.Contains(os.Environ(), oversleeping) {
		name, _, _ := strings.Cut(oversleeping, "=")
		_ = os.Unsetenv(name) // it cannot fail, and is nobody else's
		return
	}
	path, err := os.Executable()
	if err != nil {
		return
	}
	runtime.LockOSThread() // it is of one thread, the one that lives on
	defer runtime.UnlockOSThread()
	if has, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || has >= int(timerSlack) {
		return // whoever started the process has seen to it
	}
	if unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0) == nil {
		_ = syscall.Exec(path, os.Args, append(os.Environ(), oversleeping)) // it returns only if that fails
	}
}
