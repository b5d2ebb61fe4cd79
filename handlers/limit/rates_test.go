package limit

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func allow(t *testing.T, r *Rates, key string, n int) {
	t.Helper()
	if ok, after := r.Allow(key, n); !ok || after != 0 {
		t.Fatalf("Allow(%q, %d) = %v, %v; want true", key, n, ok, after)
	}
}

func refuse(t *testing.T, r *Rates, key string, n int, want time.Duration) {
	t.Helper()
	if ok, after := r.Allow(key, n); ok || after != want {
		t.Fatalf("Allow(%q, %d) = %v, %v; want false, %v", key, n, ok, after, want)
	}
}

func TestBucketRefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRates(RateOptions{PerSecond: 10, Burst: 3})
		for range 3 {
			allow(t, r, "ann", 1)
		}
		refuse(t, r, "ann", 1, 100*time.Millisecond)
		refuse(t, r, "ann", 3, 300*time.Millisecond)
		allow(t, r, "bob", 3) // a bucket of his own
		time.Sleep(99 * time.Millisecond)
		refuse(t, r, "ann", 1, time.Millisecond)
		time.Sleep(time.Millisecond)
		allow(t, r, "ann", 1)
		refuse(t, r, "ann", 1, 100*time.Millisecond)
		time.Sleep(time.Hour)
		allow(t, r, "ann", 3) // no more than the bucket holds
		refuse(t, r, "ann", 1, 100*time.Millisecond)
	})
}

// TestRefusalSaysWhenToReturn: who waits as told is let in, and a refusal costs nothing.
func TestRefusalSaysWhenToReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRates(RateOptions{PerSecond: 3, Burst: 7})
		for range 1000 {
			n := 1 + rand.IntN(7)
			ok, after := r.Allow("ann", n)
			if ok {
				continue
			}
			for range 5 {
				refuse(t, r, "ann", n, after)
			}
			time.Sleep(after)
			allow(t, r, "ann", n)
		}
	})
}

func TestBatchLargerThanTheBucketIsPaidOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRates(RateOptions{PerSecond: 100, Burst: 200})
		allow(t, r, "ann", 1)
		refuse(t, r, "ann", 1000, 10*time.Millisecond) // the bucket must be full
		time.Sleep(10 * time.Millisecond)
		allow(t, r, "ann", 1000)
		refuse(t, r, "ann", 1, 8*time.Second+10*time.Millisecond)
		time.Sleep(8 * time.Second)
		for range 3 { // silence does not make the debt forgotten
			allow(t, r, fmt.Sprint(rand.Int()), 1)
			refuse(t, r, "ann", 1, 10*time.Millisecond)
		}
		time.Sleep(10 * time.Millisecond)
		allow(t, r, "ann", 1)
	})
}

func TestZeroOptionsSetNoLimit(t *testing.T) {
	for _, r := range []*Rates{NewRates(RateOptions{}), NewRates(RateOptions{PerSecond: -1, Burst: 1}), NewRates(RateOptions{PerSecond: 1e12})} {
		for range 1000 {
			allow(t, r, "ann", 1000)
		}
		if n := r.Len(); n > 0 {
			t.Errorf("%d buckets without a limit", n)
		}
	}
	r := NewRates(RateOptions{PerSecond: 0.5})
	allow(t, r, "ann", 1) // a burst of at least one
	allow(t, r, "ann", 0)
	if ok, after := r.Allow("ann", 1); ok || after > 2*time.Second {
		t.Errorf("got %v, %v", ok, after)
	}
}

// TestExtremesDoNotOverflow: whatever the numbers, a bucket lets something through and
// then, with a rate that is slow enough to see, refuses with a time ahead.
func TestExtremesDoNotOverflow(t *testing.T) {
	for _, opt := range []RateOptions{
		{PerSecond: 1e-300, Burst: 1 << 40}, {PerSecond: 1e-300, Burst: 1}, {PerSecond: 1, Burst: -5}, {PerSecond: 1, MaxKeys: 1}, {PerSecond: 1, MaxKeys: -1},
	} {
		r := NewRates(opt)
		allow(t, r, "ann", 1<<40)
		if ok, after := r.Allow("ann", 1<<40); ok || after <= 0 {
			t.Errorf("%+v: got %v, %v", opt, ok, after)
		}
	}
}

func TestIdleBucketsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRates(RateOptions{PerSecond: 10, Burst: 20})
		for i := range 1000 {
			allow(t, r, fmt.Sprint("key ", i), 1)
		}
		if n := r.Len(); n != 1000 {
			t.Fatalf("%d buckets, want 1000", n)
		}
		time.Sleep(3 * time.Second)
		if n := r.Len(); n != 0 {
			t.Errorf("%d buckets after they were full again", n)
		}
	})
}

func TestFloodOfKeysIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRates(RateOptions{PerSecond: 1, Burst: 10, MaxKeys: 1000})
		for i := range 20_000 {
			allow(t, r, fmt.Sprint("flood ", i), 1)
			if i%100 == 0 {
				// Whoever keeps asking keeps the bucket that is empty.
				if ok, _ := r.Allow("ann", 1); ok != (i < 1000) {
					t.Fatalf("after %d keys: %v", i, ok)
				}
			}
			if n := r.Len(); n > 1000 {
				t.Fatalf("%d buckets", n)
			}
		}
	})
}

// TestForgettingChangesNoAnswer compares with buckets that are never forgotten.
func TestForgettingChangesNoAnswer(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			interval, burst := time.Duration(1+rnd.IntN(1000))*time.Millisecond, 1+rnd.IntN(20)
			r := NewRates(RateOptions{PerSecond: float64(time.Second) / float64(interval), Burst: burst})
			start := time.Now()
			full := map[string]time.Duration{}
			for range 2000 {
				time.Sleep(time.Duration(rnd.ExpFloat64() * float64(interval)))
				key, n := fmt.Sprint(rnd.IntN(20)), 1+rnd.IntN(2*burst)
				now := time.Since(start)
				at := max(full[key], now)
				want := at-now+interval*time.Duration(min(n, burst)) <= interval*time.Duration(burst)
				if want {
					full[key] = at + interval*time.Duration(n)
				}
				if ok, after := r.Allow(key, n); ok != want || ok != (after == 0) {
					t.Fatalf("seed %d: Allow(%q, %d) = %v, %v; want %v", seed, key, n, ok, after, want)
				}
			}
		})
	}
}

func TestConcurrentCallersShareABucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRates(RateOptions{PerSecond: 1, Burst: 500})
		var given atomic.Int64
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 200 {
					if ok, _ := r.Allow("ann", 1); ok {
						given.Add(1)
					}
				}
			})
		}
		all.Wait()
		if given.Load() != 500 {
			t.Errorf("%d tokens were given, want 500", given.Load())
		}
	})
}

func BenchmarkAllow(b *testing.B) {
	r := NewRates(RateOptions{PerSecond: 1e6, Burst: 1e6})
	keys := make([]string, 1024)
	for i := range keys {
		keys[i] = fmt.Sprint("subject ", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.Allow(keys[i%len(keys)], 1)
	}
}

func TestARateThatChangesHoldsFromThenOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opt := RateOptions{PerSecond: 1, Burst: 2}
		r := NewRates(opt)
		taken := func() (n int) {
			for ok := true; ok && n < 100; n++ {
				ok, _ = r.Allow("ann", 1)
			}
			return n - 1
		}
		if n := taken(); n != 2 {
			t.Errorf("%d at once, want 2", n)
		}
		r.Set(opt)
		if n := taken(); n != 0 {
			t.Errorf("%d more, though nothing has changed", n)
		}
		r.Set(RateOptions{PerSecond: 10, Burst: 5})
		if n := taken(); n != 5 {
			t.Errorf("%d at once after a change, want 5", n)
		}
		time.Sleep(300 * time.Millisecond)
		if n := taken(); n != 3 {
			t.Errorf("%d in 0.3 s at ten a second", n)
		}
		r.Set(RateOptions{})
		if n := taken(); n != 99 {
			t.Errorf("%d without a limit, want 99", n)
		}
	})
}
