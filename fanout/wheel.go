package fanout

import "math"

// wheel holds the streams of a shard by when they are due at the latest, in
// slots of a tenth of a second, so that a heartbeat costs no timer. It is lazy:
// a stream that something was written to stays where it is, and is put where it
// belongs when its old slot comes up. The shard's goroutine uses it.
type wheel struct {
	slots [wheelSlots]*Stream // the streams of a slot are linked by next
	tick  int64               // the slot that comes up next, counted from the beginning of time
	up    *Stream             // what is left of the slot that came up
	held  int                 // streams in the wheel
}

const (
	wheelSlots = 256 // 25.6 s: more than the usual heartbeat
	wheelTick  = instant(100e6)
)

// add puts a stream where it comes up at its time, or before if that is far off.
func (w *wheel) add(s *Stream, due instant) {
	slot := int64((due + wheelTick - 1) / wheelTick)
	if due > math.MaxInt64-wheelTick {
		slot = math.MaxInt64
	}
	slot = min(max(slot, w.tick), w.tick+wheelSlots-1)
	s.next, s.timed = w.slots[slot%wheelSlots], true
	w.slots[slot%wheelSlots] = s
	w.held++
}

// next says when the next stream comes up.
func (w *wheel) next() instant {
	if w.held == 0 {
		return math.MaxInt64
	}
	tick := w.tick
	for w.slots[tick%wheelSlots] == nil {
		tick++
	}
	return instant(tick) * wheelTick
}

// pop takes out a stream that has come up by now; nil if there is none left.
// It may be called late. Between two calls streams may be added.
func (w *wheel) pop(now instant) *Stream {
	for w.up == nil {
		last := int64(now / wheelTick)
		if w.tick > last {
			return nil
		}
		if w.held == 0 {
			w.tick = last + 1
			return nil
		}
		slot := w.tick % wheelSlots
		w.tick++ // so that what is added comes into a later slot
		w.up, w.slots[slot] = w.slots[slot], nil
	}
	s := w.up
	w.up = s.next
	s.next, s.timed = nil, false
	w.held--
	return s
}
