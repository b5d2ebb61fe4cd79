package fanout

import (
	"context"
	"slices"
	"sync"
	"time"
)

// outlook is what comes next for a stream after a step.
type outlook struct {
	over  ByeReason // why the stream has ended; "" if it goes on
	older bool      // a room's events are to be read from the log first
	more  bool      // there is more at once
	fresh news      // what has only just come
}

// clean says that the stream has come to an end which its client may take for one.
func (o outlook) clean() bool { return o.over != "" && o.over != ByeGone }

// step appends what is due now to b: the beginning, what has come in the
// rooms, word of an outage, a goodbye, or, if there is none of these and it is
// time, a heartbeat. It is all that a stream ever says, whoever drives it,
// but for older events, which have to be waited for (readOlder). It does not block.
func (s *Stream) step(b []byte, sc *scratch, now instant) ([]byte, outlook) {
	var out outlook
	from := len(b)
	if !s.begun {
		s.begun = true
		b = s.appendOpen(b)
	}
	for i := range s.seats() {
		seat := s.seat(i)
		items, older, more, fresh := seat.take(sc.items[:0], sc.most)
		b = s.appendItems(b, seat, items)
		sc.keep(items)
		out.older, out.more = out.older || older, out.more || more
		out.fresh = out.fresh.and(fresh)
	}
	b = s.appendExpiring(b)
	b = s.appendOutage(b)
	if now >= s.deadline {
		s.end.CompareAndSwap(0, byeCode(ByeMaxAge))
	}
	switch out.over = s.ending(); out.over {
	case "":
		if len(b) == from && now >= s.written+instant(s.look.Heartbeat) {
			b = s.appendBeat(b)
		}
	case ByeLeft, ByeGone: // nobody is there to be told
	default:
		b = s.AppendBye(b, out.over)
	}
	if len(b) > from {
		s.written = now
	}
	return b, out
}

// due is when to step at the latest.
func (s *Stream) due() instant {
	return min(s.written+instant(s.look.Heartbeat), s.deadline)
}

// readOlder appends older events of each room whose seat is further back than
// the ring, from the pages held, one for each seat. It waits for the log.
func (s *Stream) readOlder(ctx context.Context, b []byte, sc *scratch, held []page) ([]byte, error) {
	for i := range s.seats() {
		seat := s.seat(i)
		if !seat.behindRing() {
			continue
		}
		items, err := seat.readOlder(ctx, sc.items[:0], &held[i], sc.most)
		b = s.appendItems(b, seat, items)
		sc.keep(items)
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

func (s *seat) behindRing() bool {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	return s.olderLocked()
}

// drive steps until nothing is due, and writes. It returns why the stream has
// ended, "" if it has not, with an error if the log did not give older events
// that are still due.
func (s *Stream) drive(ctx context.Context, to sink) (ByeReason, error) {
	sc := scratches.Get().(*scratch)
	defer sc.putBack()
	h := s.hub()
	var held []page // of older events
	for {
		b, out := s.step(sc.empty(), sc, h.now())
		sc.buf = b
		h.stats.Bytes.Add(int64(len(b) - chunkRoom))
		if to.send(b, sc, out.clean()) != nil {
			return ByeGone, nil
		}
		h.delivered(out.fresh)
		switch {
		case out.over != "":
			return out.over, nil
		case out.more:
			continue
		case !out.older:
			return "", nil
		}
		if held == nil {
			held = make([]page, s.seats())
		}
		b, err := s.readOlder(ctx, sc.empty(), sc, held)
		sc.buf = b
		h.stats.Bytes.Add(int64(len(b) - chunkRoom))
		if len(b) > chunkRoom {
			s.written = h.now()
		}
		if to.send(b, sc, false) != nil {
			return ByeGone, nil
		}
		if err != nil {
			return "", err
		}
	}
}

// sink is where a goroutine that drives a stream writes to.
type sink interface {
	// send writes b[chunkRoom:] whole, or fails; the room before it is the
	// sink's. Nothing follows the last. It may use the pen of sc.
	send(b []byte, sc *scratch, last bool) error
}

// connSink writes to a Conn.
type connSink struct{ Conn }

func (c connSink) send(b []byte, _ *scratch, _ bool) error {
	if len(b) == chunkRoom {
		return nil
	}
	return c.Write(b[chunkRoom:])
}

// scratch is the working memory of who drives streams.
type scratch struct {
	buf   []byte
	items []item
	pen   *pen
	most  int // bytes, about, to take at once
}

func newScratch(most int) *scratch {
	return &scratch{buf: make([]byte, chunkRoom, 4<<10), pen: newPen(), most: most}
}

// scratches are for goroutines that drive one stream. As many may wait for slow
// clients as there are streams, so they take no more than one write does.
var scratches = sync.Pool{New: func() any { return newScratch(writeStep) }}

// empty gives a buffer to append to, behind the room for a chunk's size.
func (sc *scratch) empty() []byte { return sc.buf[:chunkRoom] }

// keep takes back what was appended to sc.items, without what it refers to:
// frames belong to the ring.
func (sc *scratch) keep(items []item) {
	clear(items)
	sc.items = items[:0]
}

func (sc *scratch) putBack() {
	if cap(sc.buf) <= 4*maxWrite {
		scratches.Put(sc)
	}
}

// appendOutage appends word of an outage of the log, and of its end.
func (s *Stream) appendOutage(b []byte) []byte {
	links := uint8(s.hub().links.Load())
	if links == s.links && s.toldDown == 0 {
		return b // nothing has changed since the stream last asked
	}
	s.links = links
	down := s.downSince()
	switch {
	case s.toldDown == 0 && !down.IsZero():
		s.toldDown = down.UnixNano()
		b = s.appendOwn(b, own{name: "sluice.degraded", data: since(s.toldDown)})
	case s.toldDown != 0 && down.IsZero() && s.live():
		b = s.appendOwn(b, own{name: "sluice.restored", data: since(s.toldDown)})
		s.toldDown = 0
	}
	return b
}

// downSince says since when one of the rooms is out of reach; zero if none is.
func (s *Stream) downSince() time.Time {
	for i := range s.seats() {
		if down := s.seat(i).downSince(); !down.IsZero() {
			return down
		}
	}
	return time.Time{}
}

func since(unixNano int64) []byte {
	b := AppendTime([]byte(`{"since":"`), unixNano/int64(time.Millisecond))
	return append(b, `"}`...)
}

// live says that every room shows what the log has.
func (s *Stream) live() bool {
	for i := range s.seats() {
		if !s.seat(i).room.isLive() {
			return false
		}
	}
	return true
}

func (s *Stream) appendItems(b []byte, seat *seat, items []item) []byte {
	stats := &s.hub().stats
	delivered := 0
	for i := range items {
		it := &items[i]
		if it.gap == nil {
			it.gap = it.frame.gap
		}
		if it.gap != nil {
			stats.Gaps.add(reasons, it.gap.Reason)
			data, _ := it.gap.MarshalJSON() // never fails
			s.moved = false
			b = s.appendOwn(b, own{name: "sluice.gap", data: data, id: true, seat: seat, at: it.at})
			continue
		}
		numbered := it.frame.numbered()
		if !s.wants(&it.frame.event) {
			s.moved = s.moved || numbered
			continue
		}
		delivered++
		s.moved = s.moved && !numbered
		b = s.appendFrame(b, seat, it)
	}
	stats.Delivered.Add(int64(delivered))
	return b
}

func (s *Stream) appendFrame(b []byte, seat *seat, it *item) []byte {
	f := it.frame
	if s.more == nil {
		return append(b, f.encoded(s.look.Format)...)
	}
	b = append(b, f.open(s.look.Format)...)
	if s.look.Format == NDJSON {
		if f.numbered() {
			b = append(b, `,"cursor":"`...)
			b = s.appendCursor(b, seat, it.at)
			b = append(b, '"')
		}
		return append(b, "}\n"...)
	}
	if f.numbered() {
		b = append(b, "id: "...)
		b = s.appendCursor(b, seat, it.at)
		b = append(b, '\n')
	}
	return append(b, '\n')
}

func (s *Stream) wants(e *Event) bool {
	if e.movement != nil {
		return s.toldOf(e)
	}
	if e.Exclude != "" && e.Exclude == string(s.id[:]) {
		return false
	}
	return s.look.types == nil || slices.Contains(*s.look.types, e.Type)
}
