package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// garbage decides how often Go collects it. A node's heap is small, so that by
// default a busy one collects many times a second, which costs a tenth of its
// processor time and more. It lets garbage grow further while much is published,
// and only then: what streams are made of would lie among it, and an idle node
// would hold more memory than it needs.
type garbage struct {
	published func() int64  // events, ever
	live      func() uint64 // bytes that the last collection left
	set       func(percent int)
}

const (
	calmPercent = 100      // Go's own
	busyPercent = 400      // more was not seen to help
	busyGarbage = 32 << 20 // bytes; what is beyond grows as on a calm node
	busyRate    = 500      // events a second
	garbageLook = time.Second
)

// paceGarbage runs until ctx ends. It leaves things as they are where the
// operator has decided, by Go's own variable.
func paceGarbage(ctx context.Context, published func() int64) {
	if os.Getenv("GOGC") != "" {
		return
	}
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	g := garbage{
		published: published,
		live: func() uint64 {
			metrics.Read(sample)
			return sample[0].Value.Uint64()
		},
		set: func(percent int) { debug.SetGCPercent(percent) },
	}
	g.run(ctx)
}

func (g *garbage) run(ctx context.Context) {
	ticker := time.NewTicker(garbageLook)
	defer ticker.Stop()
	percent, before := calmPercent, g.published()
	defer func() { g.set(calmPercent) }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, next := g.published(), calmPercent
		if now-before >= int64(busyRate*garbageLook/time.Second) {
			next = busyPercentOf(g.live())
		}
		if before = now; next != percent {
			percent = next
			g.set(percent)
		}
	}
}

// busyPercentOf lets garbage grow to busyGarbage, in a few steps, since each
// change stops the process for a moment.
func busyPercentOf(live uint64) int {
	for percent := busyPercent; percent > calmPercent; percent /= 2 {
		if live*uint64(percent)/100 <= busyGarbage {
			return percent
		}
	}
	return calmPercent
}
