package bench

import (
	"context"
	"time"
)

// Crowd is streams of this process to which others publish: how several
// processes measure together, since one may not open as many connections as are
// wanted. They agree on Config.ID and Config.Clock, and publish what Message gives.
type Crowd struct {
	run  *run
	stop func()
}

// CrowdState is what has become of a crowd so far. Counts are over all streams.
type CrowdState struct {
	Open      int64            `json:"open"` // now
	Resumed   int64            `json:"resumed"`
	Delivered int64            `json:"delivered"` // messages
	Reordered int64            `json:"reordered"`
	Doubled   int64            `json:"doubled"`
	Corrupt   int64            `json:"corrupt"`
	Announced int64            `json:"announced"` // as missed, by sluice.gap
	Last      time.Duration    `json:"last"`      // when the last message came, by the clock
	Latency   Quantiles        `json:"latency_ms"`
	Errors    map[string]int64 `json:"errors,omitempty"`
}

// OpenCrowd opens the streams of c, and returns when they are open or nothing
// moves any more: State tells. Whoever gets a Crowd owes a Close.
func OpenCrowd(ctx context.Context, c Config) (*Crowd, error) {
	c.Publish = ""
	r, err := prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	r.measure.Store(0)
	stop := r.start()
	if err := r.connect(ctx); err != nil {
		stop()
		return nil, err
	}
	r.mu.Lock()
	r.publishing = true
	r.mu.Unlock()
	return &Crowd{run: r, stop: stop}, nil
}

// State tells what has happened until now.
func (c *Crowd) State() CrowdState {
	s := CrowdState{Open: c.run.open.Load(), Errors: map[string]int64{}}
	var all tally
	for _, in := range c.run.intakes {
		in.mu.Lock()
		all.merge(&in.tally)
		in.mu.Unlock()
	}
	s.Delivered, s.Reordered, s.Doubled, s.Corrupt = all.delivered, all.reordered, all.doubled, all.corrupt
	s.Announced, s.Last, s.Latency = all.announced, all.last, millis(&all.latency)
	c.run.mu.Lock()
	defer c.run.mu.Unlock()
	s.Resumed = c.run.resumed
	for text, n := range c.run.errors {
		s.Errors[text] = n
	}
	return s
}

// Lost counts what the streams have not got of the first so many messages of
// publisher 0. It is called when no more are under way.
func (c *Crowd) Lost(sent uint32) (n int64) {
	for _, in := range c.run.intakes {
		in.mu.Lock() // streams are read under their intake's lock only
		defer in.mu.Unlock()
	}
	for _, s := range c.run.streams {
		n += s.ledger.lost(0, sent, nil)
	}
	return n
}

// Close ends the streams.
func (c *Crowd) Close() { c.stop() }

// Message is the body of message number seq, 1, 2, 3 …, of publisher 0 in room
// 0, that is sent at a time of the clock.
func Message(id string, size int, seq uint32, at time.Duration) []byte {
	return newFormat(id, max(size, MinPayload)).append(nil, message{seq: seq, at: int64(at)})
}
