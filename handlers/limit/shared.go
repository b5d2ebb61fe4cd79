package limit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"sluice/fanout"
)

// Ledger is where nodes add up what each has given out.
type Ledger interface {
	Spend(ctx context.Context, spent []fanout.Spending) (full []time.Duration, err error)
}

// Shared are Rates that all nodes have in common. Allow asks the node's own
// buckets and nobody else. What they gave out is told to a ledger a moment
// later, many keys at a time, and the ledger's answer, which counts what the
// other nodes gave out, is what the own bucket goes on with. So a request never
// waits for another node, and a key that several nodes serve gets its rate once,
// and at most a burst on each of them.
//
// What is far from its limit is not told: a key that on this node does not use
// up a small part of its burst in the time in which that comes back.
type Shared struct {
	*Rates
	name string // of the buckets in the ledger

	mu    sync.Mutex // guards spent
	spent map[string]tab
	wake  chan struct{} // has a token when there is something to tell
}

// tab is what was given to a key, and not told yet.
type tab struct {
	cost  time.Duration
	since time.Time
}

const (
	leastPart  = 32                     // of a burst is worth telling
	tellEvery  = 100 * time.Millisecond // at most
	tellAtOnce = 1000                   // keys
)

// NewShared makes buckets that are full at first. Nodes share those of a name.
// The caller owes a Run, or the buckets are this node's alone.
func NewShared(name string, opt RateOptions) *Shared {
	return &Shared{Rates: NewRates(opt), name: name, spent: map[string]tab{}, wake: make(chan struct{}, 1)}
}

// least is what is worth telling.
func (p *pace) least() time.Duration { return max(p.depth/leastPart, p.interval) }

// Allow is Rates.Allow.
func (s *Shared) Allow(key string, n int) (ok bool, retryAfter time.Duration) {
	ok, retryAfter = s.Rates.Allow(key, n)
	p := s.pace.Load()
	if !ok || p.interval == 0 || n <= 0 {
		return ok, retryAfter
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	t, known := s.spent[key]
	if !known || t.cost < p.least() && now.Sub(t.since) > p.depth {
		t = tab{since: now} // what was little has come back meanwhile
	}
	if !known && len(s.spent) >= s.half {
		s.forgetLocked(now, p.depth)
	}
	t.cost += p.interval * time.Duration(min(n, 1<<20))
	s.spent[key] = t
	if t.cost >= p.least() {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return true, 0
}

// forgetLocked makes room: of what has come back, else of everything.
func (s *Shared) forgetLocked(now time.Time, depth time.Duration) {
	for key, t := range s.spent {
		if now.Sub(t.since) > depth {
			delete(s.spent, key)
		}
	}
	if len(s.spent) >= s.half {
		clear(s.spent)
	}
}

// Run tells the ledger what was given out, until ctx ends. While the ledger
// does not answer, the buckets are this node's alone.
func (s *Shared) Run(ctx context.Context, ledger Ledger) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.tell(ctx, ledger)
		timer.Reset(tellEvery)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}

func (s *Shared) tell(ctx context.Context, ledger Ledger) {
	keys, spent := s.due()
	if len(keys) == 0 {
		return
	}
	full, err := ledger.Spend(ctx, spent)
	if err != nil {
		return // the log's own troubles are reported where it is used
	}
	for i, key := range keys {
		s.Lower(key, full[i])
	}
}

// due takes what is worth telling off the tabs.
func (s *Shared) due() (keys []string, spent []fanout.Spending) {
	now, p := time.Now(), s.pace.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, t := range s.spent {
		if len(keys) == tellAtOnce {
			select {
			case s.wake <- struct{}{}: // the others, next time
			default:
			}
			break
		}
		switch {
		case t.cost >= p.least():
			keys = append(keys, key)
			spent = append(spent, fanout.Spending{Key: s.ledgerKey(key), Cost: t.cost, Most: 2*p.depth + t.cost})
			delete(s.spent, key)
		case now.Sub(t.since) > p.depth:
			delete(s.spent, key)
		}
	}
	return keys, spent
}

// ledgerKey hides who and what is counted from whoever reads the ledger, and
// has one length.
func (s *Shared) ledgerKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return s.name + ":" + hex.EncodeToString(sum[:12])
}
