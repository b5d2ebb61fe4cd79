package main

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestGarbageGrowsOnlyWhileMuchIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var published atomic.Int64
		var set []int
		g := garbage{published: published.Load, live: func() uint64 { return 8 << 20 }, set: func(percent int) { set = append(set, percent) }}
		ctx, cancel := context.WithCancel(t.Context())
		var task sync.WaitGroup
		task.Go(func() { g.run(ctx) })
		second := func(events int64) {
			published.Add(events)
			time.Sleep(garbageLook)
			synctest.Wait()
		}
		for range 3 {
			second(100)
		}
		if len(set) != 0 {
			t.Errorf("on a calm node it was set to %v", set)
		}
		for range 3 {
			second(5000)
		}
		if want := []int{400}; !slices.Equal(set, want) {
			t.Errorf("on a busy node it was set to %v, want %v", set, want)
		}
		second(0)
		second(5000)
		cancel()
		task.Wait()
		if want := []int{400, 100, 400, 100}; !slices.Equal(set, want) {
			t.Errorf("it was set to %v, want %v", set, want)
		}
	})
}

func TestGarbageOfALargeHeapIsGosOwn(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 8 << 20: 400, 9 << 20: 200, 16 << 20: 200, 17 << 20: 100, 1 << 40: 100} {
		if got := busyPercentOf(live); got != want {
			t.Errorf("with %d MiB it is %d %%, want %d", live>>20, got, want)
		}
	}
}
