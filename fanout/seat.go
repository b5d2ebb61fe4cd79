package fanout

import (
	"context"
	"errors"
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
	place uint64 // of the next frame, if enrolled
	index uint32 // in its part of the room, if it sits
	early uint16 // frames from place on that came before the seat was enrolled: ephemeral ones among them are not for it
	part  uint8  // of the room that it sits in

	sits     bool
	enrolled bool
	behind   bool // it was enrolled before, and overtaken
	checked  bool // the room has looked at its log for the sake of this seat
}

// item is what a seat found next: a frame for everybody, or a gap for one.
type item struct {
	frame *frame
	gap   *Gap
	at    *Position // where the seat is behind it
}

// from is the number behind which the seat's next event comes.
func (s *seat) from() uint64 {
	if s.hole != nil {
		return s.hole.before.Seq
	}
	return s.at.Seq
}

// breakLocked takes an enrolled seat out of a history that the log no longer
// has. The room's extent is at res.From already. Who has not seen beyond that
// point of a truncated history has nothing to be told.
func (s *seat) breakLocked(r *room, res Resolution) {
	if res.Reason == ReasonTruncated && s.from() <= res.From {
		return
	}
	missed := int64(-1)
	if from := s.from(); res.Reason == ReasonPurged && res.From >= from {
		missed = int64(res.From - from)
	}
	s.gapLocked(r, res.Reason, res.From, missed)
	s.place, s.early = r.ring.end(), 0
}

// gapLocked leaves a gap before the seat's next event, which is number from+1.
func (s *seat) gapLocked(r *room, reason Reason, from uint64, missed int64) {
	after := s.at.String()
	if s.hole != nil {
		after = s.hole.After // nobody was told yet
	}
	s.hole = &Gap{Room: r.name, After: after, Missed: missed, Reason: reason, before: r.extent.Lineage.Position(from)}
}

// take appends what is due to the seat, about as much as one write should
// carry. older says that the seat has to read the log first, more that there
// is more at once.
func (s *seat) take(items []item) (_ []item, older, more bool) {
	r := s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.enrolled && s.place < r.ring.base {
		s.enrolled, s.behind = false, true
	}
	if !s.enrolled && !s.enrolLocked() {
		return items, r.opened && s.from() < r.extent.Head, false
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
	if s.hole == nil {
		if res := s.resolve(r.extent); res.Reason != "" {
			if r.live && !s.checked {
				// The seat may have read from the log what has not come here yet.
				s.checked = true
				r.catchUpLocked()
			}
			if !r.live {
				return false
			}
			s.gapLocked(r, res.Reason, res.From, res.Missed)
		}
	}
	place, ok := r.ring.placeAfter(s.from(), r.extent.Head)
	if !ok {
		return false
	}
	s.place, s.early, s.enrolled, s.checked = place, uint16(r.ring.end()-place), true, false
	return true
}

// resolve says how a seat that was under way goes on. What it has seen was in
// the log, so it cannot be wrong: if it is beyond the head, the log has lost it.
func (s *seat) resolve(x Extent) Resolution {
	res := x.Resolve(At(*s.at))
	switch {
	case res.Reason == ReasonBadCursor:
		res.Reason = ReasonTruncated
	case res.Reason == ReasonTrimmed && s.behind:
		res.Reason = ReasonSlow
	}
	return res
}

// ReasonSlow is the gap of a stream that fell behind what the log keeps.
const ReasonSlow Reason = "slow"

// begin finds the seat's first position.
func (s *seat) begin(ctx context.Context, start Start) error {
	r := s.room
	refreshed := false
	for {
		down, linkChanged := r.hub.link()
		x, opened, live, settled := r.extentNow()
		res := x.Resolve(start)
		sure := live && (refreshed || !res.doubtful() || start.kind == fromBad)
		// Cut off from the log, a room still knows the history up to its head.
		usable := opened && !down.IsZero() && (res.Reason == "" || start.kind == fromBad)
		if sure || usable {
			s.settle(start, res, x)
			return nil
		}
		if live {
			// The cursor may come from a node that is ahead of this one.
			r.refresh()
			refreshed = true
			continue
		}
		select {
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
	s.at = r.sharedLocked(res.Own)
	if res.Reason == "" {
		return
	}
	s.hole = &Gap{Room: r.name, Missed: res.Missed, Reason: res.Reason, before: x.Lineage.Position(res.From)}
	if start.kind == fromPosition {
		s.hole.After = start.at.String()
	}
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
	p, err := s.room.page(ctx, s.from())
	if err != nil {
		return items, err
	}
	s.room.mu.Lock() // guards at and hole; nobody else changes them while the seat is not enrolled
	defer s.room.mu.Unlock()
	if s.hole == nil {
		if res := s.resolve(p.extent); res.Reason != "" {
			s.hole = &Gap{Room: s.room.name, After: s.at.String(), Missed: res.Missed, Reason: res.Reason, before: p.extent.Lineage.Position(res.From)}
		}
	}
	frames := p.after(s.from())
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
