package redistest

import (
	"bytes"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// direction is the way that bytes go through a proxy.
type direction int

const (
	toServer direction = iota
	toClient
)

// faults is what a proxy is told to do. The values are replaced under the
// proxy's lock, and read in copies.
type faults struct {
	refuse      bool
	blackhole   bool
	holdReplies bool
	piece       int // bytes delivered at a time, 0 = as they come
	pause       time.Duration
	cutReply    *rule
	drop        *rule
	split       *rule
	splitAt     int
	splitPause  time.Duration
}

// Match picks bytes by what they hold: what one read from the connection gave,
// which for clients that wait for each reply is one request, or one reply, and
// for what a server pushes one message or several. nil picks all. It may be
// called by several goroutines at a time and must neither keep nor change b.
type Match func(b []byte) bool

// Contains picks bytes with text in them.
func Contains(text string) Match {
	return func(b []byte) bool { return bytes.Contains(b, []byte(text)) }
}

// Command picks requests to Redis that hold the command of that name, in any case
// ("EVALSHA"); an argument that reads like it is taken for it.
func Command(name string) Match {
	word := []byte("$" + strconv.Itoa(len(name)) + "\r\n" + strings.ToLower(name) + "\r\n")
	return func(b []byte) bool { return bytes.Contains(bytes.ToLower(b), word) }
}

// rule is a fault that befalls a number of things.
type rule struct {
	match Match
	left  atomic.Int64 // how many more; forever when negative at first
	all   bool
}

func newRule(n int, match Match) *rule {
	r := &rule{match: match, all: n < 0}
	r.left.Store(int64(n))
	return r
}

// takes reports whether b is one of them, and counts it.
func (r *rule) takes(b []byte) bool {
	if r == nil || !r.all && r.left.Load() <= 0 || r.match != nil && !r.match(b) {
		return false
	}
	return r.all || r.left.Add(-1) >= 0
}

// set changes the faults and wakes those who wait for a change.
func (p *Proxy) set(change func(f *faults)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.faults)
	close(p.changed)
	p.changed = make(chan struct{})
}

// state returns the faults and a channel that is closed when they change.
func (p *Proxy) state() (faults, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults, p.changed
}

// Heal takes all faults back. What was held is delivered.
func (p *Proxy) Heal() { p.set(func(f *faults) { *f = faults{} }) }

// Refuse resets new connections at once. Those there are go on.
func (p *Proxy) Refuse(on bool) { p.set(func(f *faults) { f.refuse = on }) }

// Blackhole lets nothing through in either direction and closes nothing, not
// even when one end hangs up: each end finds the other silent. New connections
// are accepted, and hang. As after a partition, what was held is delivered when
// it ends, even what was sent by a client that has given up since; Cut loses it.
func (p *Proxy) Blackhole(on bool) { p.set(func(f *faults) { f.blackhole = on }) }

// HoldReplies is Blackhole towards the client only: requests are executed, and
// the answers, or the news, do not come.
func (p *Proxy) HoldReplies(on bool) { p.set(func(f *faults) { f.holdReplies = on }) }

// Chop delivers what passes, both ways, in pieces of so many bytes with a pause
// after each, so that frames arrive torn. 0 bytes end it.
func (p *Proxy) Chop(size int, pause time.Duration) {
	p.set(func(f *faults) { f.piece, f.pause = max(0, size), pause })
}

// SplitAt tears one delivery to a client: of the next bytes from the server that
// match, the first n are delivered, then a pause, then the rest.
func (p *Proxy) SplitAt(n int, pause time.Duration, match Match) {
	p.set(func(f *faults) { f.split, f.splitAt, f.splitPause = newRule(1, match), max(0, n), pause })
}

// CutReply lets the next n requests that match through to the server and closes
// their connections, both ends, when the reply comes: they are executed, and the
// client cannot know. Negative n means all; 0 ends it. What a server pushes is
// taken for the reply, so connections with subscriptions are better not matched.
func (p *Proxy) CutReply(n int, match Match) {
	p.set(func(f *faults) { f.cutReply = newRule(n, match) })
}

// Drop throws the next n deliveries to a client that match away, whole, and the
// connection goes on: how a message is lost of which nobody was told. Negative n
// means all; 0 ends it.
func (p *Proxy) Drop(n int, match Match) {
	p.set(func(f *faults) { f.drop = newRule(n, match) })
}
