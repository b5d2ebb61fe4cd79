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
	name string
	hub  *Hub
	keep Retention    // what the log keeps of it
	refs atomic.Int32 // streams and readers that hold the room; while 0 it may be closed

	atHand int // events of its ring, at most

	mu        sync.Mutex // guards the fields below and the seats
	ring      ring
	extent    Extent        // of the log, as far as the ring has come
	seats     []*seat       // each knows its index
	opened    bool          // the log was read once, so that extent means something
	following bool          // the subscription is confirmed
	live      bool          // see above; only while following
	dirty     bool          // something has come that the catch-up under way may not have seen
	catching  bool          // a catch-up is under way
	settled   chan struct{} // closed while live
	lastEvent time.Time     // when the ring last grew, or the room was compared with the log
	readFrom  time.Time     // when the newest read of the log that was taken over began
	idleFrom  time.Time     // since when refs was seen at 0
	closed    bool

	pages pages // older events that streams asked for
}

func newRoom(h *Hub, name string) *room {
	keep := h.opt.Keep.of(name)
	return &room{name: name, hub: h, keep: keep, atHand: min(h.opt.RingEvents, keep.Events), extent: Extent{Oldest: 1}, settled: make(chan struct{}), lastEvent: time.Now()}
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
		r.pushLocked(&frame{event: e, seq: r.extent.Head})
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
	r.extent.Head = e.Seq
	if keep := uint64(r.keep.Events); r.extent.Head > keep {
		r.extent.Oldest = max(r.extent.Oldest, r.extent.Head-keep+1)
	}
	r.extent.Fenced = false
	r.lastEvent = time.Now()
	r.pushLocked(&frame{event: e, seq: e.Seq})
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

// wakeLocked tells the readers that there is something new.
func (r *room) wakeLocked() {
	for _, s := range r.seats {
		s.reader.nudge()
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

// sit adds a seat, so that it is woken.
func (r *room) sit(s *seat) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.index = len(r.seats)
	r.seats = append(r.seats, s)
}

// leave takes a seat away and gives up its reference to the room.
func (r *room) leave(s *seat) {
	r.mu.Lock()
	last := len(r.seats) - 1
	r.seats[s.index] = r.seats[last]
	r.seats[s.index].index = s.index
	r.seats[last] = nil
	r.seats = r.seats[:last]
	r.mu.Unlock()
	r.release()
}

// streams counts the seats.
func (r *room) streams() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seats)
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
