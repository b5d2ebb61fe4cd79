package fanout

import (
	"sync/atomic"
	"time"
)

// Stats counts what a hub has done. The fields are read with Load.
type Stats struct {
	Published  atomic.Int64 // events that this node appended or broadcast
	Taken      atomic.Int64 // bytes of their data
	Delivered  atomic.Int64 // events written to streams
	Bytes      atomic.Int64 // written to streams
	CatchUps   atomic.Int64 // reads of the log by which rooms caught up
	PagesRead  atomic.Int64 // reads of the log for streams further back than the ring
	Holes      atomic.Int64 // numbers that did not follow
	Overlooked atomic.Int64 // silent rooms whose head differed
	Losses     atomic.Int64 // subscriptions lost
	FromRing   atomic.Int64 // cursors of streams from which a ring led on
	FromLog    atomic.Int64 // cursors of streams that lay further back
	Joined     atomic.Int64 // users that entered a room through this node, and had no stream in it here
	Left       atomic.Int64 // users that left one, or did not come back in time
	Waiting    atomic.Int64 // streams on taken-over connections that wait for their client or for the log now

	delivery atomic.Pointer[func(time.Duration)] // see ObserveDelivery

	Gaps  Counts[Reason]    // shown to streams, by reason
	Ended Counts[ByeReason] // streams, by why they ended
}

// Counts counts by a reason that is known beforehand.
type Counts[R ~string] struct{ n [16]atomic.Int64 }

// reasons lists every reason of a gap, byes every one of an end; their places
// are the places in Counts.
var (
	reasons = []Reason{ReasonTrimmed, ReasonTruncated, ReasonNewHistory, ReasonBadCursor, ReasonPurged, ReasonOutage, ReasonSlow}
	byes    = []ByeReason{ByeDrain, ByeExpired, ByeRevoked, ByeSlow, ByeMaxAge, ByeOverload, ByeGone, ByeLeft}
)

func (c *Counts[R]) add(all []R, reason R) {
	for i, r := range all {
		if r == reason {
			c.n[i].Add(1)
		}
	}
}

// EachGap and EachEnd call f with every count.
func (s *Stats) EachGap(f func(Reason, int64)) {
	for i, r := range reasons {
		f(r, s.Gaps.n[i].Load())
	}
}

// EachEnd calls f with the number of streams that ended, for every reason.
func (s *Stats) EachEnd(f func(ByeReason, int64)) {
	for i, r := range byes {
		f(r, s.Ended.n[i].Load())
	}
}

// Stats gives the hub's counters.
func (h *Hub) Stats() *Stats { return &h.stats }

// ObserveDelivery has f told how long events took to their streams: from when
// a node took an event, by its clock, to when it was written here, by ours. Of
// what is written of a room at a time it is the oldest event, and once for all
// streams that are served together; what a stream catches up with does not
// count. f is called by many and must not block.
func (s *Stats) ObserveDelivery(f func(time.Duration)) { s.delivery.Store(&f) }

// delivered tells the observer of an event from the given millisecond on; 0 is none.
func (s *Stats) delivered(at int64) {
	if at == 0 {
		return
	}
	if f := s.delivery.Load(); f != nil {
		(*f)(max(0, time.Since(time.UnixMilli(at)))) // clocks of two nodes differ
	}
}

// Backlog counts the events that streams have yet to take. It looks at every stream.
func (h *Hub) Backlog() (events int64) {
	for _, r := range h.allRooms() {
		events += r.backlog()
	}
	return events
}

func (r *room) backlog() (events int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	end := r.ring.end()
	for i := range r.parts {
		for _, s := range r.parts[i].seats {
			switch {
			case s.is(enrolled):
				events += int64(end - min(s.place, end))
			case s.after().Seq < r.extent.Head:
				events += int64(r.extent.Head - s.after().Seq)
			}
		}
	}
	return events
}

// MembersHere counts the users who are in rooms through this node, in each room anew.
func (h *Hub) MembersHere() int64 { return h.presence.members() }

// Gauges gives the numbers of streams and rooms that are open, and the bytes
// that rings take.
func (h *Hub) Gauges() (streams, rooms int, ringBytes int64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.streams.open, len(h.rooms), h.ringBytes.Load()
}
