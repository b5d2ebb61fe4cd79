package limit

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/fanout"
)

// nodes runs several nodes' buckets on one ledger, in a bubble.
func nodes(t *testing.T, n int, opt RateOptions, f func(t *testing.T, nodes []*Shared)) {
	synctest.Test(t, func(t *testing.T) {
		ledger := fanout.NewMemory(fanout.Retention{})
		ctx, cancel := context.WithCancel(t.Context())
		var tasks sync.WaitGroup
		list := make([]*Shared, n)
		for i := range list {
			list[i] = NewShared("x", opt)
			tasks.Go(func() { list[i].Run(ctx, ledger) })
		}
		f(t, list)
		cancel()
		tasks.Wait()
	})
}

func TestNodesGiveARateOnce(t *testing.T) {
	nodes(t, 4, RateOptions{PerSecond: 100, Burst: 200}, func(t *testing.T, nodes []*Shared) {
		given := 0
		const seconds = 60
		for range seconds * 100 {
			for _, n := range nodes {
				for range 2 { // eight times the rate, all in all
					if ok, _ := n.Allow("ann", 1); ok {
						given++
					}
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		// The rate, and at most a burst on each node before it hears of the others.
		if least, most := 100*seconds, 100*seconds+4*200+100; given < least*9/10 || given > most {
			t.Errorf("%d were given out in %d s; want %d to %d", given, seconds, least, most)
		}
	})
}

func TestOneNodeGivesWhatItWouldAlone(t *testing.T) {
	nodes(t, 1, RateOptions{PerSecond: 100, Burst: 200}, func(t *testing.T, nodes []*Shared) {
		alone := NewRates(RateOptions{PerSecond: 100, Burst: 200})
		given, want := 0, 0
		for range 3000 {
			for range 2 {
				if ok, _ := nodes[0].Allow("ann", 1); ok {
					given++
				}
				if ok, _ := alone.Allow("ann", 1); ok {
					want++
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		if given < want*95/100 || given > want {
			t.Errorf("%d were given out, want about %d", given, want)
		}
	})
}

func TestLittleIsNotTold(t *testing.T) {
	nodes(t, 1, RateOptions{PerSecond: 100, Burst: 200}, func(t *testing.T, nodes []*Shared) {
		for i := range 1000 {
			nodes[0].Allow("ann", 1)
			nodes[0].Allow(fmt.Sprint(i), 1)
			time.Sleep(time.Second) // one a second, of a hundred
		}
		if keys, _ := nodes[0].due(); len(keys) != 0 {
			t.Errorf("%d keys would be told", len(keys))
		}
		if n := len(nodes[0].spent); n > 10 {
			t.Errorf("%d tabs are kept", n)
		}
	})
}

func TestTabsAreBounded(t *testing.T) {
	s := NewShared("x", RateOptions{PerSecond: 1, Burst: 100, MaxKeys: 100})
	for i := range 10_000 {
		s.Allow(fmt.Sprint(i), 1)
	}
	if n := len(s.spent); n > 100 {
		t.Errorf("%d tabs are kept, want at most 100", n)
	}
}

func TestRecentNamesAreKnownForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecent(1000, time.Minute)
		r.Add("a")
		time.Sleep(50 * time.Second)
		if !r.Has("a") || r.Has("b") {
			t.Error("after 50 s: want a to be known, and b not")
		}
		time.Sleep(50 * time.Second)
		if !r.Has("a") { // which keeps it
			t.Error("a is forgotten although it came again")
		}
		time.Sleep(70 * time.Second)
		r.Add("c")
		time.Sleep(70 * time.Second)
		if r.Has("a") {
			t.Error("a is known after two minutes")
		}
		for i := range 10_000 {
			r.Add(fmt.Sprint(i))
		}
		if n := len(r.young) + len(r.aged); n > 1000 || !r.Has("9999") || r.Has("1") {
			t.Errorf("%d of 10000 names are kept; want the newest, 1000 at most", n)
		}
	})
}
