package fanout

import (
	"context"
	"errors"
	"time"
)

// seat is a stream's place in one room. While it is enrolled it holds a place
// in the ring and is served when that grows; before, and after the ring has
// overtaken it, it reads the log in pages at its own pace.
//
// There are as many seats as streams times rooms, so they are kept small: 48 bytes.
type seat struct {
	room   *room
	stream *Stream

	// at is the seat's cursor: the last event taken, or left out. Whoever drives
	// the stream writes it, under the room's lock, and reads it without. Seats
	// at the same event share it, so it is replaced, not changed.
	at *Position

	// The room's lock guards the fields below.
	hole  *Gap   // to be shown before anything else; at is still before it
	place uint64 // of the next frame, if enrolled; before, the place at which it was opened
	index uint32 // in its part of the room, if it sits
	early uint16 // frames from place on that came before the seat was opened, or enrolled again: ephemeral ones among them are not for it
	part  uint8  // of the room that it sits in
	state seatState
}

// seatState is what is so of a seat.
type seatState uint8

const (
	sits     seatState = 1 << iota // in a part of its room
	enrolled                       // see seat
	behind                         // it was enrolled before, and overtaken
	checked                        // the room has looked at its log for the sake of this seat
)

func (s *seat) is(what seatState) bool { return s.state&what != 0 }

// item is what a seat found next: a frame for everybody, or a gap for one.
type item struct {
	frame *frame
	gap   *Gap
	at    *Position // where the seat is behind it
}

// after is the position behind which the seat's next event comes.
func (s *seat) after() Position {
	if s.hole != nil {
		return s.hole.before
	}
	return *s.at
}

// breakLocked takes an enrolled seat out of a history that the log no longer
// has. The room's extent is at res.From already. Who has not seen beyond that
// point of a truncated history has nothing to be told.
func (s *seat) breakLocked(r *room, res Resolution) {
	seq := s.after().Seq
	if res.Reason == ReasonTruncated && seq <= res.From {
		return
	}
	missed := int64(-1)
	if res.Reason == ReasonPurged && res.From >= seq {
		missed = int64(res.From - seq)
	}
	s.leaveGap(r.extent.Lineage, Resolution{Reason: res.Reason, From: res.From, Missed: missed})
	s.place, s.early = r.ring.end(), 0
}

// leaveGap leaves a gap before the seat's next event, which is number
// res.From+1. Where an earlier gap was not shown yet, the two become one. The
// caller holds the room's lock.
func (s *seat) leaveGap(l Lineage, res Resolution) {
	gap := &Gap{Room: s.room.name, After: s.at.String(), Missed: res.Missed, Reason: res.Reason, before: l.Position(res.From)}
	if earlier := s.hole; earlier != nil {
		gap.After = earlier.After
		if res.Reason == ReasonTrimmed || res.Reason == ReasonSlow {
			gap.Reason = earlier.Reason // what has been trimmed since is a part of it
		}
		if gap.Missed >= 0 {
			gap.Missed += max(earlier.Missed, 0)
		}
		if earlier.Missed < 0 {
			gap.Missed = -1
		}
	}
	s.hole = gap
}

// take appends what is due to the seat, about as much as one write should
// carry. older says that the seat has to read the log first, more that there
// is more at once.
func (s *seat) take(items []item) (_ []item, older, more bool) {
	r := s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.is(enrolled) && s.place < r.ring.base {
		s.state = s.state&^enrolled | behind
	}
	if !s.is(enrolled) && !s.enrolLocked() {
		return items, r.opened && s.after().Seq < r.extent.Head, false
	}
	if s.hole != nil {
		next, known := r.nextPositionLocked(s.place)
		if !known {
			return items, false, false
		}
		items = append(items, s.passHole(next))
	}
	bytes := 0
	for ; s.place < r.ring.end() && bytes < maxWrite; s.place++ {
		f := r.ring.at(s.place)
		early := s.early > 0
		if early {
			s.early--
		}
		if f.at != nil {
			s.at = f.at
		} else if early {
			continue
		}
		items = append(items, item{frame: f, at: s.at})
		bytes += f.cost()
	}
	return items, false, s.place < r.ring.end()
}

// passHole gives the gap that the seat is before, and puts it behind.
func (s *seat) passHole(next Position) item {
	gap := s.hole
	gap.ResumesAt = next
	s.hole, s.at = nil, &gap.before
	return item{gap: gap, at: s.at}
}

// maxWrite is about how many bytes of ring a stream takes at once.
const maxWrite = 64 << 10

// nextPositionLocked gives the position of the first event at or behind a
// place, zero if there is none. known is false while that may change at once,
// since the room catches up.
func (r *room) nextPositionLocked(place uint64) (p Position, known bool) {
	for ; place < r.ring.end(); place++ {
		if f := r.ring.at(place); f.numbered() {
			return f.event.Position, true
		}
	}
	return Position{}, r.live
}

// enrolLocked gives the seat its place in the ring, if the ring reaches back
// to it. Looking it up and taking it is one step, so that no event comes between.
func (s *seat) enrolLocked() bool {
	r := s.room
	if !r.opened {
		return false
	}
	if res := s.resolve(r.extent); res.Reason != "" {
		if r.live && !s.is(checked) && res.Reason != ReasonTrimmed && res.Reason != ReasonSlow {
			// The seat may have read from the log what has not come here yet.
			s.state |= checked
			r.catchUpLocked()
		}
		if !r.live {
			return false
		}
		s.leaveGap(r.extent.Lineage, res)
	}
	place, ok := r.ring.placeAfter(s.after().Seq, r.extent.Head)
	if !ok {
		return false
	}
	opened := r.ring.end()
	if !s.is(behind) {
		opened = min(opened, max(s.place, r.ring.base))
	}
	for place > opened && r.ring.at(place-1).ephemeral() {
		place-- // it came between the opening and now
	}
	s.place, s.early, s.state = place, uint16(max(opened, place)-place), s.state&^checked|enrolled
	return true
}

// resolve says how a seat that was under way goes on. What it has seen was in
// the log, so it cannot be wrong: if it is beyond the head, the log has lost it.
func (s *seat) resolve(x Extent) Resolution {
	res := x.Resolve(At(s.after()))
	switch {
	case res.Reason == ReasonBadCursor:
		res.Reason = ReasonTruncated
	case res.Reason == ReasonTrimmed && s.is(behind):
		res.Reason = ReasonSlow
	}
	return res
}

// ReasonSlow is the gap of a stream that fell behind what the log keeps.
const ReasonSlow Reason = "slow"

// begin finds the seat's first position.
func (s *seat) begin(ctx context.Context, start Start) error {
	r := s.room
	came := time.Now()
	for {
		linkChanged := r.hub.linkChange()
		x, opened, live, settled := r.extentNow()
		res := x.Resolve(start)
		sure := live && (!res.doubtful() || start.kind == fromBad || r.readSince(came))
		// Cut off from the log, a room still knows the history up to its head.
		usable := opened && !s.downSince().IsZero() && (res.Reason == "" || start.kind == fromBad)
		if sure || usable {
			s.settle(start, res, x)
			return nil
		}
		var again <-chan time.Time
		if live {
			// The cursor may come from a node that is ahead of this one. Of a
			// herd with such cursors one looks, and not all the time.
			again, settled = time.After(r.refreshSoon()), nil
		}
		select {
		case <-again:
		case <-settled:
		case <-linkChanged:
		case <-ctx.Done():
			if s.usableNow(start) {
				return nil
			}
			return errors.Join(ErrUnavailable, context.Cause(ctx))
		}
	}
}

// downSince says since when the room is out of reach; zero if it is not.
func (s *seat) downSince() time.Time { return s.room.hub.log.DownSince(s.room.name) }

// doubtful says that a room which is a little behind its log would come to the
// same resolution, wrongly.
func (res Resolution) doubtful() bool {
	return res.Reason == ReasonBadCursor || res.Reason == ReasonNewHistory || res.Reason == ReasonTruncated
}

// usableNow begins with what the room knows, though it is not sure to be up to date.
func (s *seat) usableNow(start Start) bool {
	x, opened, _, _ := s.room.extentNow()
	res := x.Resolve(start)
	if !opened || res.Reason != "" && start.kind != fromBad {
		return false
	}
	s.settle(start, res, x)
	return true
}

func (s *seat) settle(start Start, res Resolution, x Extent) {
	r := s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	s.at, s.place = r.sharedLocked(res.Own), r.ring.end()
	if res.Reason == "" {
		return
	}
	s.leaveGap(x.Lineage, res)
	s.hole.After = start.at.String()
}

// sharedLocked gives a position that idle streams, most of which are at the
// same one, keep only once.
func (r *room) sharedLocked(p Position) *Position {
	if r.latest == nil || *r.latest != p {
		r.latest = &p
	}
	return r.latest
}

// readOlder appends a page of older events, so that the seat comes closer to
// the ring. It waits for the log.
func (s *seat) readOlder(ctx context.Context, items []item) ([]item, error) {
	s.room.mu.Lock()
	after := s.after().Seq
	s.room.mu.Unlock()
	p, err := s.room.page(ctx, after)
	if err != nil {
		return items, err
	}
	s.room.mu.Lock() // nobody else changes at and hole while the seat is not enrolled
	defer s.room.mu.Unlock()
	if res := s.resolve(p.extent); res.Reason != "" {
		s.leaveGap(p.extent.Lineage, res)
	}
	frames := p.after(s.after().Seq)
	if len(frames) == 0 {
		return items, nil // a hole stands before its events, which come with another page, or with the ring
	}
	if s.hole != nil {
		items = append(items, s.passHole(frames[0].event.Position))
	}
	for _, f := range frames {
		s.at = f.at
		items = append(items, item{frame: f, at: s.at})
	}
	return items, nil
}

// refused says that the start was a cursor which leads nowhere.
func (s *seat) refused() bool {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	return s.hole != nil && s.hole.Reason == ReasonBadCursor
}
