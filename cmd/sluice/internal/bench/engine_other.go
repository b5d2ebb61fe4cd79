//go:build !linux

package bench

import "time"

// manySources says that every address in 127.0.0.0/8 can be bound; elsewhere
// than on Linux only the first one is there.
const manySources = false

func newEngine(r *run) (engine, error) { return newPortable(r), nil }

// readers is how many intakes the streams share.
func readers() int { return 4 }

// ensureDescriptors leaves it to connecting to find the limit.
func ensureDescriptors(int) error { return nil }

// cpuTime is not known here.
func cpuTime() time.Duration { return 0 }
