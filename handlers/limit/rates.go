// Package limit bounds what one subject, one address or one room may ask of a node.
//
//	request -> ClientIP -> Key ─┐
//	           token's subject ─┴-> Rates.Allow: how often
//	                                Counts.Acquire: how many at a time
//
// Rates are token buckets by key, Counts are numbers of things held by key, and ClientIP
// finds out who is on the other side of the proxies. The tables are bounded: whoever has
// a million names gets no more than a million fresh buckets, one after the other, and
// the memory of a node does not follow.
package limit

import (
	"cmp"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// RateOptions says how often. The zero value sets no limit.
type RateOptions struct {
	PerSecond float64 // of each key, in the long run; no limit if zero or less
	Burst     int     // of each key, at once; a second's worth, at least 1, if zero
	MaxKeys   int     // keys remembered at a time; 65536 if zero
}

// Rates are token buckets, one for each key. Its methods may be called from any
// goroutine and do not block; there is nothing to close.
//
// A bucket is one number, the time at which it will be full again. A bucket that is full
// is the same as none, so it is forgotten without harm: keys that were used lately are
// in one map, those of the time before in another, and the older map is dropped when all
// in it are full. If there are too many keys for that, it is dropped early, and the
// keys that have been silent for longest are given a full bucket.
type Rates struct {
	pace  atomic.Pointer[pace]
	half  int       // keys that one map may have
	start time.Time // all times are durations since then, by the monotonic clock

	mu          sync.Mutex               // guards the fields below
	young, aged map[string]time.Duration // when the key's bucket will be full
	agedUntil   time.Duration            // when all in aged are full
	youngUntil  time.Duration            // the same of young
	turned      time.Duration            // when young became aged
}

// pace is how fast buckets fill, and how far.
type pace struct {
	interval time.Duration // in which one token comes; 0: no limit
	depth    time.Duration // in which a whole bucket comes
	window   time.Duration // between two turns of the maps, unless there are too many keys
}

func paceOf(opt RateOptions) pace {
	var p pace
	if opt.PerSecond > 0 {
		// An hour for a token is as good as never, and leaves room to count in.
		p.interval = time.Duration(min(float64(time.Second)/opt.PerSecond, float64(time.Hour)))
	}
	burst := cmp.Or(opt.Burst, int(min(math.Ceil(max(opt.PerSecond, 1)), 1<<20)))
	p.depth = p.interval * time.Duration(min(max(burst, 1), 1<<20))
	p.window = max(p.depth, time.Second)
	return p
}

// NewRates makes buckets that are full at first.
func NewRates(opt RateOptions) *Rates {
	r := &Rates{half: max(1, cmp.Or(opt.MaxKeys, 1<<16)/2), start: time.Now()}
	r.Set(opt)
	return r
}

// Set changes how often. If that is a change, all buckets are full again, since what one
// lacks is told in the time that filling it took before. MaxKeys stays.
func (r *Rates) Set(opt RateOptions) {
	fresh := paceOf(opt)
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.pace.Load(); now != nil && *now == fresh {
		return
	}
	r.pace.Store(&fresh)
	r.young, r.youngUntil = map[string]time.Duration{}, 0
	r.aged, r.agedUntil = map[string]time.Duration{}, 0
}

// Allow takes n tokens from the key's bucket, all or none. Where there are too few, it
// says how long to wait for them. More than the bucket ever holds is given when it is
// full, and is paid off before the next: a large batch is late, but not impossible.
func (r *Rates) Allow(key string, n int) (ok bool, retryAfter time.Duration) {
	if r.pace.Load().interval == 0 || n <= 0 {
		return true, 0
	}
	now := time.Since(r.start)

	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pace.Load() // which changes under the lock only
	cost := p.interval * time.Duration(min(n, 1<<20))
	r.turnLocked(now)
	full := max(now, r.fullLocked(key))
	// The bucket lacks full-now; it may lack its whole depth once the tokens are taken.
	if late := full - now + min(cost, p.depth) - p.depth; late > 0 {
		r.putLocked(key, full, now) // or a flood of keys would make its debt forgotten
		return false, late
	}
	r.putLocked(key, full+cost, now)
	return true, 0
}

// Len returns how many buckets are remembered.
func (r *Rates) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turnLocked(time.Since(r.start))
	return len(r.young) + len(r.aged)
}

// fullLocked returns when the key's bucket will be full: in the past, if it is forgotten.
func (r *Rates) fullLocked(key string) time.Duration {
	if full, ok := r.young[key]; ok {
		return full
	}
	return r.aged[key]
}

func (r *Rates) putLocked(key string, full, now time.Duration) {
	if _, ok := r.young[key]; !ok {
		delete(r.aged, key)
		if len(r.young) >= r.half {
			r.ageLocked(now)
		}
	}
	r.young[key] = full
	r.youngUntil = max(r.youngUntil, full)
}

// turnLocked forgets what is full, not oftener than once in a window: it makes a map.
func (r *Rates) turnLocked(now time.Duration) {
	if now-r.turned < r.pace.Load().window || now < r.agedUntil || len(r.young)+len(r.aged) == 0 {
		return
	}
	r.ageLocked(now)
	if now >= r.agedUntil {
		r.aged = map[string]time.Duration{}
	}
}

// ageLocked forgets the aged buckets and makes the young ones aged.
func (r *Rates) ageLocked(now time.Duration) {
	r.aged, r.agedUntil = r.young, r.youngUntil
	r.young, r.youngUntil = map[string]time.Duration{}, 0
	r.turned = now
}

// Lower takes from the key's bucket until it needs the given time to be full
// again; if it needs longer already, nothing changes.
func (r *Rates) Lower(key string, full time.Duration) {
	if r.pace.Load().interval == 0 || full <= 0 {
		return
	}
	now := time.Since(r.start)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turnLocked(now)
	if known := r.fullLocked(key); now+full > known {
		r.putLocked(key, now+full, now)
	}
}
