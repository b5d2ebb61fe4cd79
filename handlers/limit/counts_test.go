package limit

import (
	"fmt"
	"sync"
	"testing"
)

func TestKeyHoldsNoMoreThanTheMost(t *testing.T) {
	c := NewCounts(2)
	for i, want := range []bool{true, true, false, false} {
		if got := c.Acquire("ann"); got != want {
			t.Errorf("acquire %d: %v, want %v", i, got, want)
		}
	}
	if !c.Acquire("bob") {
		t.Error("bob is refused for ann's sake")
	}
	c.Release("ann")
	if !c.Acquire("ann") || c.Acquire("ann") {
		t.Error("a release does not make room for exactly one")
	}
	if c.Held("ann") != 2 || c.Held("bob") != 1 || c.Held("eve") != 0 || c.Total() != 3 {
		t.Errorf("ann %d, bob %d, eve %d, all %d", c.Held("ann"), c.Held("bob"), c.Held("eve"), c.Total())
	}
}

func TestReleaseWithoutAcquireDoesNothing(t *testing.T) {
	c := NewCounts(1)
	c.Release("ann")
	c.Acquire("ann")
	c.Release("ann")
	c.Release("ann")
	if c.Total() != 0 || c.Held("ann") != 0 {
		t.Errorf("%d held, %d in all", c.Held("ann"), c.Total())
	}
	if !c.Acquire("ann") || c.Acquire("ann") {
		t.Error("the maximum has moved")
	}
}

func TestZeroCountsOnly(t *testing.T) {
	c := NewCounts(0)
	for range 1000 {
		if !c.Acquire("ann") {
			t.Fatal("refused without a maximum")
		}
	}
	if c.Held("ann") != 1000 {
		t.Errorf("%d held", c.Held("ann"))
	}
}

func TestCountsReturnToNothing(t *testing.T) {
	c := NewCounts(3)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for n := range 1000 {
				key := fmt.Sprint((i + n) % 5)
				if c.Acquire(key) {
					if held := c.Held(key); held < 1 || held > 3 {
						t.Errorf("%d held", held)
					}
					c.Release(key)
				}
			}
		})
	}
	all.Wait()
	if c.Total() != 0 || len(c.held) != 0 {
		t.Errorf("%d held by %d keys", c.Total(), len(c.held))
	}
}

func TestALowerMaximumLeavesWhatIsHeld(t *testing.T) {
	c := NewCounts(0)
	for range 3 {
		c.Acquire("a")
	}
	c.SetMost(2)
	if c.Held("a") != 3 || c.Acquire("a") {
		t.Errorf("%d are held; want 3, and not one more", c.Held("a"))
	}
	c.Release("a")
	c.Release("a")
	if !c.Acquire("a") || c.Acquire("a") {
		t.Error("with one held, want one more and no other")
	}
}
