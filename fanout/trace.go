package fanout

import "time"

// trace is what an event of a trace brings along. Package fanout carries it
// from node to node, and tells Options.Traced when the event has been written;
// what a trace is for, it does not know.
type trace struct {
	parent string    // see ValidTrace
	came   time.Time // to this node
}

// newTrace makes the trace of an event that comes now; nil for "".
func newTrace(parent string) *trace {
	if parent == "" {
		return nil
	}
	return &trace{parent, time.Now()}
}

// ValidTrace says that s is a traceparent as W3C Trace Context has it, in its
// first version: "00-<32 digits>-<16 digits>-<2 digits>", hexadecimal, in lower case.
func ValidTrace(s string) bool {
	if len(s) != 55 || s[:3] != "00-" {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case i == 2 || i == 35 || i == 52:
			if c != '-' {
				return false
			}
		case (c < '0' || c > '9') && (c < 'a' || c > 'f'):
			return false
		}
	}
	return true
}

// Traced is an event of a trace that was written to streams.
type Traced struct {
	Event   *Event
	Parent  string    // the trace that it was published with
	Came    time.Time // to this node
	Written time.Time // to those streams of the room here which are served together
}

// news is what some streams have just taken that no others served together
// with them have had before.
type news struct {
	at     int64    // when the oldest event of it was taken, in milliseconds; 0 if there is none
	traced []*Event // those that belong to a trace
}

// and adds other news.
func (n news) and(other news) news {
	if n.at == 0 || other.at != 0 && other.at < n.at {
		n.at = other.at
	}
	n.traced = append(n.traced, other.traced...)
	return n
}

// tracedLocked lists the events of the ring, between two places, that belong to
// a trace.
func (r *room) tracedLocked(from, to uint64) (traced []*Event) {
	if r.hub.opt.Traced == nil {
		return nil
	}
	for place := from; place < to; place++ {
		if e := &r.ring.at(place).event; e.trace != nil {
			traced = append(traced, e)
		}
	}
	return traced
}

// delivered tells whoever observes it that news was written.
func (h *Hub) delivered(n news) {
	h.stats.delivered(n.at)
	if len(n.traced) == 0 {
		return
	}
	now := time.Now()
	for _, e := range n.traced {
		h.opt.Traced(Traced{Event: e, Parent: e.trace.parent, Came: e.trace.came, Written: now})
	}
}
