// Package redistest is the rig that Sluice is tried on: real Redis servers,
// alone, replicated, under Sentinel or in a Cluster, and a TCP proxy that does
// to a connection what networks do.
//
//	Start          one server: kill, stop, restart, freeze it
//	Replica        a server that follows another: detach, promote it
//	StartSentinels sentinels that watch over a primary and its replicas
//	StartCluster   a Redis Cluster: fail a master over, move a slot
//	NewProxy       cut, hold, chop, lose or refuse what passes between two ends
//
// Everything listens on loopback, keeps its files in a directory of its own and
// ends with the test that started it: the processes are killed and waited for,
// and no goroutine is left. Should the test binary itself be killed, the kernel
// kills the servers on Linux.
//
// Nothing here is skipped where Redis is missing: the test fails and says how to
// install it. Redis 7.0 or newer is needed.
//
// What goes wrong fails the T that the server was started with. Called from
// another goroutine than the test's, such a failure ends that goroutine and
// fails the test, as t.FailNow does. Programs that are not tests get a T from
// [Run].
package redistest

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// T is what the rig needs of whoever uses it. *testing.T, *testing.B, *testing.F
// and *rapid.T are Ts, and Run makes one for a program.
type T interface {
	Helper()
	Cleanup(func())
	Logf(format string, args ...any)
	Fatalf(format string, args ...any) // does not return
}

// Run calls f with a T of its own, waits for it, cleans up after it and returns
// the failure, if there was one. Log lines go to logf, which may be nil.
func Run(logf func(format string, args ...any), f func(T)) error {
	if logf == nil {
		logf = func(string, ...any) {}
	}
	r := &run{logf: logf}
	var task sync.WaitGroup
	task.Go(func() {
		// Deferred, so that the processes end too when f fails or panics.
		defer r.cleanUp()
		f(r)
	})
	task.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.failures...)
}

// run is the T of a program.
type run struct {
	logf func(format string, args ...any)

	mu       sync.Mutex // guards the fields below
	cleanups []func()
	failures []error
}

func (r *run) Helper() {}

func (r *run) Logf(format string, args ...any) { r.logf(format, args...) }

func (r *run) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *run) Fatalf(format string, args ...any) {
	r.mu.Lock()
	r.failures = append(r.failures, fmt.Errorf(format, args...))
	r.mu.Unlock()
	runtime.Goexit()
}

// cleanUp calls the cleanups, the latest first. A cleanup may fail: the rest of
// them still run, since Fatalf ends only the goroutine of that one.
func (r *run) cleanUp() {
	r.mu.Lock()
	todo := r.cleanups
	r.cleanups = nil
	r.mu.Unlock()
	for _, f := range slices.Backward(todo) {
		var one sync.WaitGroup
		one.Go(f)
		one.Wait()
	}
}

// hopeless wraps an error that waiting longer cannot mend.
type hopeless struct{ error }

func (h hopeless) Unwrap() error { return h.error }

// poll calls try until it returns nil or something hopeless, at most for limit,
// and returns try's last error. Another process has no other way to tell us
// that it is ready, so asking often is what makes the rig quick.
func poll(limit, every time.Duration, try func() error) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := try()
		var end hopeless
		switch {
		case err == nil:
			return nil
		case errors.As(err, &end):
			return end.error
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("not after %v: %w", limit, err)
		}
	}
}

// each calls f for all of s at the same time, waits, and returns what failed.
func each[S any](s []S, f func(i int, one S) error) error {
	errs := make([]error, len(s))
	var tasks sync.WaitGroup
	for i, one := range s {
		tasks.Go(func() { errs[i] = f(i, one) })
	}
	tasks.Wait()
	return errors.Join(errs...)
}
