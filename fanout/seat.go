package fanout

import (
	"context"
	"errors"
	"time"
)

// seat is a stream's, or a reader's, place in one room. While it is enrolled
// it holds a place in the ring and is woken when that grows; before, and after
// the ring has overtaken it, it reads the log in pages at its own pace.
type seat struct {
	room   *room
	reader *reader
	index  int // in room.seats; the room's lock guards it

	at       Position // what was seen last: the seat's cursor. Owned by the reader, except in breakLocked
	enrolled bool     // the room's lock guards it and the fields below
	behind   bool     // it was enrolled before, and overtaken
	checked  bool     // the room has looked at its log for the sake of this seat
	place    uint64   // of the next frame, if enrolled
	since    uint64   // place at which it was opened, or enrolled again: ephemeral events before that are not for it
	gap      *Gap     // to be shown before anything else
}

// item is what a reader found next: a frame for everybody, or a gap for one.
type item struct {
	seat  *seat
	frame *frame
	gap   *Gap
	at    Position // where the seat is behind it
}

// breakLocked takes an enrolled seat out of a history that the log no longer
// has. The room's extent is at res.From already. Who has not seen beyond that
// point of a truncated history has nothing to be told.
func (s *seat) breakLocked(r *room, res Resolution) {
	if res.Reason == ReasonTruncated && s.at.Seq <= res.From {
		return
	}
	missed := int64(-1)
	if res.Reason == ReasonPurged && res.From >= s.at.Seq {
		missed = int64(res.From - s.at.Seq)
	}
	s.leaveGap(r.extent.Lineage, Resolution{Reason: res.Reason, From: res.From, Missed: missed})
	s.place, s.since = r.ring.end(), r.ring.end()
}

// leaveGap leaves a gap before the seat's next event, which is number
// res.From+1. Where an earlier gap was not shown yet, the two become one. The
// caller holds the room's lock, or owns a seat that is not enrolled.
func (s *seat) leaveGap(l Lineage, res Resolution) {
	gap := &Gap{Room: s.room.name, After: s.at.String(), Missed: res.Missed, Reason: res.Reason, before: l.Position(res.From)}
	if earlier := s.gap; earlier != nil {
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
	s.gap, s.at = gap, gap.before
}

// next appends what is due to the seat, about as much as one write should
// carry; if that is not all, the reader is nudged. older says that the seat has
// to read the log first.
func (s *seat) next(items []item) (_ []item, older bool) {
	r := s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.enrolled && s.place < r.ring.base {
		s.enrolled, s.behind = false, true
	}
	if !s.enrolled && !s.enrolLocked() {
		return items, r.opened && s.at.Seq < r.extent.Head
	}
	if s.gap != nil {
		next, known := r.nextPositionLocked(s.place)
		if !known {
			return items, false
		}
		s.gap.ResumesAt = next
		items = append(items, item{seat: s, gap: s.gap, at: s.gap.before})
		s.gap = nil
	}
	bytes := 0
	for ; s.place < r.ring.end() && bytes < maxWrite; s.place++ {
		f := r.ring.at(s.place)
		switch {
		case f.gap != nil:
			s.at = f.gap.before
		case f.numbered():
			s.at = f.event.Position
		case s.place < s.since:
			continue
		}
		items = append(items, item{seat: s, frame: f, at: s.at})
		bytes += f.cost()
	}
	if s.place < r.ring.end() {
		s.reader.nudge()
	}
	return items, false
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
		if r.live && !s.checked && res.Reason != ReasonTrimmed && res.Reason != ReasonSlow {
			// The seat may have read from the log what has not come here yet.
			s.checked = true
			r.catchUpLocked()
		}
		if !r.live {
			return false
		}
		s.leaveGap(r.extent.Lineage, res)
	}
	place, ok := r.ring.placeAfter(s.at.Seq, r.extent.Head)
	if !ok {
		return false
	}
	if s.behind {
		s.since = r.ring.end()
	}
	for place > max(s.since, r.ring.base) && r.ring.at(place-1).ephemeral() {
		place-- // it came between the opening and now
	}
	s.place, s.enrolled, s.checked = place, true, false
	return true
}

// resolve says how a seat that was under way goes on. What it has seen was in
// the log, so it cannot be wrong: if it is beyond the head, the log has lost it.
func (s *seat) resolve(x Extent) Resolution {
	res := x.Resolve(At(s.at))
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

// reader walks some rooms, each from a start of its own. One goroutine uses it.
type reader struct {
	hub   *Hub
	seats []*seat
	names []string      // of the rooms, as asked for
	wake  chan struct{} // has a token when there may be something new
}

// nudge makes a reader look again. It does not block.
func (rd *reader) nudge() {
	select {
	case rd.wake <- struct{}{}:
	default:
	}
}

// newReader opens the rooms and finds out where each start leads to, which may
// take until the log has answered, at most Options.Wait. The caller closes it.
func (h *Hub) newReader(ctx context.Context, rooms []string, starts []Start) (*reader, error) {
	rd := &reader{hub: h, names: rooms, wake: make(chan struct{}, 1)}
	ctx, cancel := context.WithTimeout(ctx, h.opt.Wait)
	defer cancel()
	for _, name := range rooms {
		r := h.open(name)
		s := &seat{room: r, reader: rd}
		r.sit(s)
		rd.seats = append(rd.seats, s)
	}
	for i, s := range rd.seats {
		if err := s.begin(ctx, starts[i]); err != nil {
			rd.close()
			return nil, err
		}
	}
	return rd, nil
}

func (rd *reader) close() {
	for _, s := range rd.seats {
		s.room.leave(s)
	}
}

// begin finds the seat's first position.
func (s *seat) begin(ctx context.Context, start Start) error {
	r := s.room
	came := time.Now()
	for {
		x, opened, live, settled := r.extentNow()
		res := x.Resolve(start)
		sure := live && (!res.doubtful() || start.kind == fromBad || r.readSince(came))
		// Cut off from the log, a room still knows the history up to its head.
		usable := opened && !s.reachable() && (res.Reason == "" || start.kind == fromBad)
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
		case <-ctx.Done():
			if s.usableNow(start) {
				return nil
			}
			return errors.Join(ErrUnavailable, context.Cause(ctx))
		case <-s.reader.wake: // the link may have gone
		}
	}
}

// doubtful says that a room which is a little behind its log would come to the
// same resolution, wrongly.
func (res Resolution) doubtful() bool {
	return res.Reason == ReasonBadCursor || res.Reason == ReasonNewHistory || res.Reason == ReasonTruncated
}

func (s *seat) reachable() bool { return s.room.hub.log.DownSince(s.room.name).IsZero() }

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
	s.at, s.since = res.Own, r.ring.end()
	if res.Reason == "" {
		return
	}
	s.leaveGap(x.Lineage, res)
	s.gap.After = start.at.String()
}

// next appends what is due, in each room's order. It does not wait for events,
// but it may wait for the log, where a seat is further back than the ring.
func (rd *reader) next(ctx context.Context, items []item) ([]item, error) {
	for _, s := range rd.seats {
		var older bool
		if items, older = s.next(items); !older {
			continue
		}
		var err error
		if items, err = s.fromLog(ctx, items); err != nil {
			return items, err
		}
	}
	return items, nil
}

// fromLog appends a page of older events, so that the next call comes closer
// to the ring.
func (s *seat) fromLog(ctx context.Context, items []item) ([]item, error) {
	p, err := s.room.page(ctx, s.at.Seq)
	if err != nil {
		return items, err
	}
	defer s.reader.nudge() // there may be more
	if res := s.resolve(p.extent); res.Reason != "" {
		s.leaveGap(p.extent.Lineage, res)
	}
	frames := p.after(s.at.Seq)
	if s.gap != nil {
		if len(frames) == 0 {
			return items, nil // it stands before its events, which come with another page, or with the ring
		}
		s.gap.ResumesAt = frames[0].event.Position
		items = append(items, item{seat: s, gap: s.gap, at: s.gap.before})
		s.gap = nil
	}
	for _, f := range frames {
		s.at = f.event.Position
		items = append(items, item{seat: s, frame: f, at: s.at})
	}
	return items, nil
}

// downSince says since when one of the rooms is out of reach; zero if none is.
func (rd *reader) downSince() time.Time {
	for _, s := range rd.seats {
		if down := rd.hub.log.DownSince(s.room.name); !down.IsZero() {
			return down
		}
	}
	return time.Time{}
}

// wait returns when there may be something new, when the time is over, or with
// the error of ctx.
func (rd *reader) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-rd.wake:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
