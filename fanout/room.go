package fanout

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// room is a room's part of a node, its broadcaster: the newest events in a
// ring, and the seats that streams have in it.
//
// A room is live while its ring ends where the log does and every event since
// has come. Whatever casts doubt on that (a number that does not follow, a lost
// subscription, a head that differs) makes it catch up (catchup.go), and until
// then nothing is appended but what the log itself gave.
type room struct {
	name   string
	hub    *Hub
	number uint32       // counts the rooms, so that they are spread over the shards
	refs   atomic.Int32 // streams and readers that hold the room; while 0 it may be closed

	mu        sync.Mutex // guards the fields below and the seats
	keep      Retention  // what the log keeps of it
	atHand    int        // events of its ring, at most
	ring      ring
	extent    Extent        // of the log, as far as the ring has come
	past      []Extent      // that it had, until the log lost what was shown
	cutOff    uint64        // 1 more than the number behind which the log had trimmed what this node missed; 0 if that never was
	parts     []part        // the seats, by who serves them
	opened    bool          // the log was read once, so that extent means something
	following bool          // the subscription is confirmed
	live      bool          // see above; only while following
	dirty     bool          // something has come that the catch-up under way may not have seen
	catching  bool          // a catch-up is under way
	settled   chan struct{} // closed while live
	latest    *Position     // that seats were given most recently
	lastEvent time.Time     // when the ring last grew, or the room was compared with the log
	readFrom  time.Time     // when the newest read of the log that was taken over began
	idleFrom  time.Time     // since when refs was seen at 0
	counted   uint64        // 1 more than the place up to which surveys have counted; 0 if none has
	closed    bool

	pages pages // older events that streams asked for
}

func newRoom(h *Hub, name string, number uint32) *room {
	r := &room{name: name, hub: h, number: number, extent: Extent{Oldest: 1}, settled: make(chan struct{}), lastEvent: time.Now()}
	r.keepLocked(h.opt.Keep.of(name))
	r.parts = make([]part, len(h.shards)+1)
	for i := range r.parts {
		r.parts[i].room = r
		if i > 0 {
			r.parts[i].shard = h.shards[i-1]
		}
	}
	return r
}

// keepLocked takes note of what the log keeps of the room.
func (r *room) keepLocked(keep Retention) {
	r.keep, r.atHand = keep, min(r.hub.opt.RingEvents, keep.Events)
}

// part is those of a room's seats that are served together: by a shard, or, in
// the first part, by goroutines of their streams' own.
type part struct {
	room  *room
	shard *shard  // nil for the first part
	seats []*seat // each knows its index; the room's lock guards them
	told  uint64  // place behind the newest frame that one of the seats has taken; the room's lock guards it
	dirty bool    // in the shard's queue; the shard's lock guards it
}

// tellLocked takes note that a seat takes the frames between two places, and
// gives what of it is new to all seats of the part.
func (p *part) tellLocked(from, to uint64) news {
	from = max(from, p.told)
	if from >= to {
		return news{}
	}
	p.told = to
	return news{at: p.room.ring.at(from).event.At, traced: p.room.tracedLocked(from, to)}
}

// idle says that nobody has held the room for the given time. The hub's lock
// is held, so that nobody can begin to.
func (r *room) idle(now time.Time, linger time.Duration) bool {
	if r.refs.Load() > 0 {
		r.mu.Lock()
		r.idleFrom = time.Time{}
		r.mu.Unlock()
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.idleFrom.IsZero() {
		r.idleFrom = now
	}
	return now.Sub(r.idleFrom) >= linger && !r.catching
}

func (r *room) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.hub.ringBytes.Add(-int64(r.ring.clear()))
}

// event takes what the subscription brings.
func (r *room) event(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Epoch == "" {
		r.pushLocked(eventFrame(e, r.extent.Head))
		r.wakeLocked()
		return
	}
	head := r.extent.HeadPosition()
	switch {
	case !r.live:
		r.dirty = true
	case e.Seq == 1 && len(r.extent.Lineage) == 0:
		r.extent.Lineage = Lineage{{Epoch: e.Epoch, Start: 1}}
		r.appendLocked(e)
		r.wakeLocked()
	case e.Epoch == head.Epoch && e.Seq == head.Seq+1:
		r.appendLocked(e)
		r.wakeLocked()
	case e.Epoch == head.Epoch && e.Seq <= head.Seq:
		// Seen already, by a catch-up that was faster.
	default:
		r.hub.stats.Holes.Add(1)
		r.catchUpLocked()
	}
}

// appendLocked adds the event that follows.
func (r *room) appendLocked(e Event) {
	if own := r.extent.HeadPosition().Epoch; own == e.Epoch {
		e.Epoch = own // rather than a part of the message, which this would keep
	}
	e.Room = r.name // likewise
	r.extent.Head = e.Seq
	if keep := uint64(r.keep.Events); r.extent.Head > keep {
		r.extent.Oldest = max(r.extent.Oldest, r.extent.Head-keep+1)
	}
	r.extent.Fenced = false
	r.lastEvent = time.Now()
	r.pushLocked(eventFrame(e, e.Seq))
}

func (r *room) pushLocked(f *frame) {
	if r.closed {
		return
	}
	r.ring.push(f)
	grown := f.cost()
	events, bytes := r.atHand, r.hub.opt.RingBytes
	if r.hub.ringBytes.Load() > int64(r.hub.opt.RingMemory) {
		// All rings together are too large: this one, which grows, gives way.
		events, bytes = min(events, scarceEvents), min(bytes, scarceBytes)
	}
	grown -= r.ring.trim(events, bytes)
	r.hub.ringBytes.Add(int64(grown))
}

// What a ring may keep where memory is scarce.
const (
	scarceEvents = 8
	scarceBytes  = 32 << 10
)

// wakeLocked tells whoever serves the seats that there is something new.
func (r *room) wakeLocked() {
	for i := range r.parts {
		p := &r.parts[i]
		switch {
		case len(p.seats) == 0:
		case p.shard != nil:
			p.shard.mark(p)
		default:
			for _, s := range p.seats {
				s.stream.nudge()
			}
		}
	}
}

// confirm says that from now on every event comes.
func (r *room) confirm() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.following = true
	r.catchUpLocked()
}

// refresh has the room look at its log again.
func (r *room) refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.catchUpLocked()
}

// refreshSpacing is how far apart readers with doubtful cursors make a room
// look at its log.
const refreshSpacing = 100 * time.Millisecond

// refreshSoon is refresh for readers of which there may be many: it has the
// room look at its log again, unless it has just done so, and says when to ask anew.
func (r *room) refreshSoon() (again time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if wait := refreshSpacing - time.Since(r.readFrom); wait > 0 {
		return wait
	}
	r.catchUpLocked()
	return 0
}

// readSince says that the room has compared itself with its log after t.
func (r *room) readSince(t time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.readFrom.After(t)
}

// lose says that events no longer come.
func (r *room) lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.following = false
	r.unsettleLocked()
}

func (r *room) unsettleLocked() {
	if r.live {
		r.live = false
		r.settled = make(chan struct{})
	}
}

// catchUpLocked makes a catch-up begin, or the one under way go round again.
func (r *room) catchUpLocked() {
	r.unsettleLocked()
	r.dirty = true
	if r.catching || !r.following || r.closed {
		return
	}
	r.catching = r.hub.spawn(r.catchUp)
}

// release gives up a reference.
func (r *room) release() { r.refs.Add(-1) }

// sit adds a seat to a part, so that it is served.
func (r *room) sit(s *seat, part int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.parts[part]
	if len(p.seats) == 0 {
		p.told = r.ring.end() // what is there already was not delayed by us
	}
	s.part, s.index, s.state = uint8(part), uint32(len(p.seats)), s.state|sits
	p.seats = append(p.seats, s)
}

// leave takes a seat away and gives up its reference to the room.
func (r *room) leave(s *seat) {
	r.mu.Lock()
	if s.is(sits) {
		p := &r.parts[s.part]
		last := len(p.seats) - 1
		p.seats[s.index] = p.seats[last]
		p.seats[s.index].index = s.index
		p.seats[last] = nil
		p.seats = p.seats[:last]
		s.state &^= sits
	}
	r.mu.Unlock()
	r.release()
}

// streams counts the seats.
func (r *room) streams() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.streamsLocked()
}

func (r *room) streamsLocked() int {
	n := 0
	for i := range r.parts {
		n += len(r.parts[i].seats)
	}
	return n
}

// togetherSeats is how many of a room's streams are served by one shard before
// the others are called in. One writer goes round so many in about 6 ms. Several
// would go round out of step, each finding fewer events at a time, and so write
// more often for the same events.
const togetherSeats = 1024

// shardPart chooses the part for one more stream that a shard serves.
func (r *room) shardPart() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	best := 1 + int(r.number)%(len(r.parts)-1)
	if len(r.parts[best].seats) < togetherSeats {
		return best
	}
	for i := 1; i < len(r.parts); i++ {
		if len(r.parts[i].seats) < len(r.parts[best].seats) {
			best = i
		}
	}
	return best
}

// bounds gives the positions of the newest event and of the oldest one kept.
func (r *room) bounds() (head, oldest Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.extent.HeadPosition(), r.extent.OldestPosition()
}

func (r *room) isLive() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live
}

// extentNow gives what the room knows of its log, and a channel that is closed
// once that is sure.
func (r *room) extentNow() (x Extent, opened, live bool, settled <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x = r.extent
	x.Lineage = slices.Clone(x.Lineage)
	return x, r.opened, r.live, r.settled
}
