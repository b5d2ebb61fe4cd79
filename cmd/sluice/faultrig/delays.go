package main

import (
	"sync/atomic"
	"time"
)

// delays counts how long events took from their publisher to a client.
type delays struct{ n [20_000]atomic.Int64 } // by the millisecond; the last one is all beyond

func (d *delays) add(t time.Duration) {
	d.n[min(max(0, int(t/time.Millisecond)), len(d.n)-1)].Add(1)
}

func (d *delays) reset() {
	for i := range d.n {
		d.n[i].Store(0)
	}
}

// below is the delay that a share of all events stayed below.
func (d *delays) below(share float64) time.Duration {
	total, sum := int64(0), int64(0)
	for i := range d.n {
		total += d.n[i].Load()
	}
	for i := range d.n {
		if sum += d.n[i].Load(); total > 0 && float64(sum) >= share*float64(total) {
			return time.Duration(i+1) * time.Millisecond
		}
	}
	return 0
}
