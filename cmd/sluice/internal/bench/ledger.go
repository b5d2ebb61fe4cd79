package bench

import "slices"

// ledger is one stream's account of what it has got. Each publisher counts its
// messages in a room from 1 without holes, so the highest number and the holes
// below it say all.
type ledger struct {
	last  []uint32 // by publisher
	holes []hole   // few, if the gateway is any good
}

// hole is a run of messages that were skipped.
type hole struct {
	pub      int
	from, to uint32 // both missing
}

// verdict is what a message was to the stream that got it.
type verdict uint8

const (
	fresh   verdict = iota // in order, though there may be a hole before it
	late                   // out of a hole: reordered
	doubled                // seen before
)

// enter notes the arrival of a message.
func (l *ledger) enter(pub int, seq uint32) verdict {
	last := l.last[pub]
	if seq > last {
		if seq > last+1 {
			l.holes = append(l.holes, hole{pub, last + 1, seq - 1})
		}
		l.last[pub] = seq
		return fresh
	}
	i := l.hole(pub, seq)
	if i < 0 {
		return doubled
	}
	h := l.holes[i]
	switch {
	case h.from == h.to:
		l.holes = slices.Delete(l.holes, i, i+1)
	case seq == h.from:
		l.holes[i].from++
	case seq == h.to:
		l.holes[i].to--
	default:
		l.holes[i].to = seq - 1
		l.holes = append(l.holes, hole{pub, seq + 1, h.to})
	}
	return late
}

func (l *ledger) hole(pub int, seq uint32) int {
	return slices.IndexFunc(l.holes, func(h hole) bool {
		return h.pub == pub && h.from <= seq && seq <= h.to
	})
}

// lost counts the messages of pub that never came: of the first sent, without
// those in doubt, of which nobody knows whether the gateway took them.
func (l *ledger) lost(pub int, sent uint32, doubt []uint32) (n int64) {
	if sent > l.last[pub] {
		n = int64(sent - l.last[pub])
	}
	for _, h := range l.holes {
		if h.pub == pub {
			n += int64(h.to - h.from + 1)
		}
	}
	for _, seq := range doubt {
		if seq > l.last[pub] || l.hole(pub, seq) >= 0 {
			n--
		}
	}
	return n
}
