package bench

import (
	"math/bits"
	"time"
)

const (
	stepBits = 6 // 64 steps for each doubling: 1.6 % at worst
	steps    = 1 << stepBits
	topBits  = 47 // values from 39 hours on count as that
	buckets  = (topBits - stepBits + 1) * steps
)

// histogram counts durations in steps that grow with them. Its zero value is
// empty and ready.
type histogram struct {
	counts [buckets]int64
	total  int64
	max    time.Duration
}

// bucket gives values below 2*steps one bucket each, and all others the bucket
// of their first stepBits+1 bits.
func bucket(d time.Duration) int {
	v := min(uint64(max(d, 0)), 1<<topBits-1)
	shift := max(bits.Len64(v)-stepBits-1, 0)
	return shift*steps + int(v>>shift)
}

// middle is the value that stands for all in a bucket.
func middle(i int) time.Duration {
	if i < 2*steps {
		return time.Duration(i)
	}
	shift := i/steps - 1
	low := uint64(i-shift*steps) << shift
	return time.Duration(low + 1<<shift/2)
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucket(d)]++
	h.total++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.max = max(h.max, o.max)
}

// quantile returns a value that the share q of all values does not exceed,
// within the histogram's step; 0 if it is empty.
func (h *histogram) quantile(q float64) time.Duration {
	rank := max(1, int64(q*float64(h.total)+0.5))
	var seen int64
	for i, n := range h.counts {
		if seen += n; n > 0 && seen >= rank {
			return min(middle(i), h.max)
		}
	}
	return h.max
}
