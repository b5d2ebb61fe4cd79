package fanout

import (
	"context"
	"errors"
	"slices"
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
	stuck                          // it waits until the room has, which believed that there was more
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

// leaveGap leaves a gap before the seat's next event, which is number
// res.From+1. The caller holds the room's lock.
func (s *seat) leaveGap(l Lineage, res Resolution) {
	gap := &Gap{Room: s.room.name, After: s.at.String(), Missed: res.Missed, Reason: res.Reason, before: l.Position(res.From)}
	if s.astray() {
		gap.After, gap.Missed, gap.Reason = s.hole.After, -1, s.hole.Reason
	}
	s.hole = gap
}

// astray says that the seat came with a cursor which leads nowhere, and is to
// be told so: it goes on from where the head was then.
func (s *seat) astray() bool { return s.hole != nil && s.hole.Reason == ReasonBadCursor }

// take appends what is due to the seat, about most bytes of it. older says that
// the seat has to read the log first, more that there is more at once, fresh what
// of it has only just come.
func (s *seat) take(items []item, most int) (_ []item, older, more bool, fresh news) {
	r := s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.is(enrolled) && s.place < r.ring.base {
		s.state = s.state&^enrolled | behind
	}
	if !s.is(enrolled) && !s.enrolLocked() {
		return items, s.olderLocked(), false, news{}
	}
	if s.hole != nil {
		next, known := r.nextPositionLocked(s.place)
		if !known {
			return items, false, false, news{}
		}
		items = append(items, s.passHole(next))
	}
	from, bytes := s.place, 0
	for ; s.place < r.ring.end() && bytes < most; s.place++ {
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
	if s.is(sits) {
		fresh = r.parts[s.part].tellLocked(from, s.place)
	}
	return items, false, s.place < r.ring.end(), fresh
}

// olderLocked says that the log has what the seat needs next.
func (s *seat) olderLocked() bool {
	r := s.room
	if r.live {
		s.state &^= stuck
	}
	return !s.is(enrolled) && !s.is(stuck) && r.opened && s.after().Seq < r.extent.Head
}

// passHole gives the gap that the seat is before, and puts it behind.
func (s *seat) passHole(next Position) item {
	gap := s.hole
	gap.ResumesAt = next
	s.hole, s.at = nil, &gap.before
	return item{gap: gap, at: s.at}
}

// maxWrite is about how many bytes a shard gives a stream at once. What a client
// does not take of it is kept for it.
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
	res := s.resolve(r.extent)
	if res.Reason != "" {
		if r.live && !s.is(checked) && res.Reason != ReasonTrimmed && res.Reason != ReasonSlow && res.Reason != ReasonOutage {
			// The seat may have read from the log what has not come here yet.
			s.state |= checked
			r.catchUpLocked()
		}
		if !r.live {
			return false
		}
	}
	s.state &^= checked
	s.goOn(r.extent.Lineage, res)
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
	s.place, s.early, s.state = place, uint16(max(opened, place)-place), s.state|enrolled
	return true
}

// resolve says how a seat that was under way goes on. What it has seen was in
// the log, so it cannot be wrong: if it is beyond the head, the log has lost it.
// A gap that was not shown yet does not count, since the history that it leads
// to may be no more.
func (s *seat) resolve(x Extent) Resolution {
	at := *s.at
	if s.astray() {
		at = s.hole.before
	}
	res := x.Resolve(At(at))
	switch {
	case res.Reason == ReasonBadCursor:
		res.Reason = ReasonTruncated
	case res.Reason == ReasonNewHistory:
		return s.room.recallLocked(at, x, res)
	case res.Reason == ReasonTrimmed && s.is(behind):
		res.Reason = ReasonSlow
		if s.room.cutOff == at.Seq+1 {
			res.Reason = ReasonOutage // it had all that the node had
		}
	}
	return res
}

// recallLocked resolves a position of which the log knows nothing any more: if
// the room remembers how it came about, by where the histories part.
func (r *room) recallLocked(p Position, x Extent, unknown Resolution) Resolution {
	for _, past := range slices.Backward(append(slices.Clip(r.past), r.extent)) {
		if !past.Lineage.has(p.Epoch) {
			continue
		}
		common, related := past.until(p).common(x)
		if !related {
			continue
		}
		res := x.Resolve(At(common))
		if res.Reason != ReasonPurged {
			res.Reason = ReasonTruncated
		}
		res.Own, res.Missed = p, -1
		return res
	}
	return unknown
}

// goOn has the seat go on as was resolved.
func (s *seat) goOn(l Lineage, res Resolution) {
	switch {
	case res.Reason != "":
		s.leaveGap(l, res)
	case !s.astray():
		s.hole = nil
	}
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

// countResume counts where a stream finds what it missed.
func (s *seat) countResume() {
	r := s.room
	r.mu.Lock()
	_, atHand := r.ring.placeAfter(s.after().Seq, r.extent.Head)
	r.mu.Unlock()
	if atHand {
		r.hub.stats.FromRing.Add(1)
	} else {
		r.hub.stats.FromLog.Add(1)
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
	s.state |= checked // begin has seen to it
}

// sharedLocked gives a position that idle streams, most of which are at the
// same one, keep only once.
func (r *room) sharedLocked(p Position) *Position {
	if r.latest == nil || *r.latest != p {
		r.latest = &p
	}
	return r.latest
}

// readOlder appends older events, about most bytes of them, so that the seat
// comes closer to the ring. It waits for the log, unless held, the page that it
// last read from, has more. A slow client thus keeps a page that it shares with
// others, and makes no work for the log that grows with its slowness.
func (s *seat) readOlder(ctx context.Context, items []item, held *page, most int) ([]item, error) {
	r := s.room
	r.mu.Lock()
	after := s.after().Seq
	r.mu.Unlock()
	if len(held.after(after)) == 0 || held.age != r.pages.now() {
		fresh, err := r.page(ctx, after)
		if err != nil {
			return items, err
		}
		*held = fresh
	}
	p := held
	r.mu.Lock() // nobody else changes at and hole while the seat is not enrolled
	defer r.mu.Unlock()
	if p.age != r.pages.now() {
		return items, nil // it is of a history that is no more
	}
	s.goOn(p.extent.Lineage, s.resolve(p.extent))
	frames := p.after(s.after().Seq)
	if len(frames) == 0 {
		// The room believes that there is more, and the log has nothing. Asking
		// again at once would help nobody: the room is to look first.
		s.state |= stuck
		r.catchUpLocked()
		return items, nil
	}
	if own := (Extent{Lineage: r.extent.Lineage}); p.extent.only(own, p.extent.HeadPosition()) {
		r.rememberLocked(p.extent) // which the room may never get to see
	}
	if s.hole != nil {
		items = append(items, s.passHole(frames[0].event.Position))
	}
	for bytes := 0; len(frames) > 0 && bytes < most; frames = frames[1:] {
		f := frames[0]
		s.at = f.at
		items = append(items, item{frame: f, at: s.at})
		bytes += f.cost()
	}
	s.state &^= checked // the seat may be ahead of the room now
	return items, nil
}

// refused says that the start was a cursor which leads nowhere.
func (s *seat) refused() bool {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	return s.hole != nil && s.hole.Reason == ReasonBadCursor
}
