package fanout

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"time"
)

// own is an event of ours.
type own struct {
	name  string
	data  []byte
	id    bool          // carries the cursor,
	seat  *seat         // which, if not nil, is at a place of its own in this seat's room:
	at    *Position     // there
	retry time.Duration // told in its block, if positive
	pad   int           // bytes to send besides, for those on the way that hold back little ones
}

func (s *Stream) appendOwn(b []byte, o own) []byte {
	if s.look.Format == NDJSON {
		return s.appendOwnLine(b, o)
	}
	if o.pad > 0 {
		b = append(b, ": "...)
		b = appendPadding(b, o.pad)
		b = append(b, '\n')
	}
	if o.retry > 0 {
		b = append(b, "retry: "...)
		b = strconv.AppendInt(b, o.retry.Milliseconds(), 10)
		b = append(b, '\n')
	}
	b = append(b, "event: "...)
	b = append(b, o.name...)
	b = append(b, "\ndata: "...)
	b = append(b, o.data...)
	b = append(b, '\n')
	if o.id {
		b = append(b, "id: "...)
		b = s.appendCursor(b, o.seat, o.at)
		b = append(b, '\n')
	}
	return append(b, '\n')
}

func (s *Stream) appendOwnLine(b []byte, o own) []byte {
	b = append(b, '{')
	if o.id {
		b = append(b, `"id":"`...)
		b = s.appendCursor(b, o.seat, o.at)
		b = append(b, `",`...)
	}
	b = append(b, `"type":"`...)
	b = append(b, o.name...)
	b = append(b, '"')
	if o.retry > 0 {
		b = append(b, `,"retry":`...)
		b = strconv.AppendInt(b, o.retry.Milliseconds(), 10)
	}
	b = append(b, `,"data":`...)
	b = append(b, o.data...)
	b = append(b, '}')
	return append(appendPadding(b, o.pad), '\n')
}

func appendPadding(b []byte, n int) []byte {
	for range n {
		b = append(b, ' ')
	}
	return b
}

// appendOpen appends the first event of every stream. Its id is the position
// that the stream starts from, so that a client which saw nothing else can
// come back all the same; on a resume it is the client's own.
func (s *Stream) appendOpen(b []byte) []byte {
	data := append(make([]byte, 0, 192), `{"stream":"`...)
	data = append(data, s.id[:]...)
	data = append(data, `","rooms":{`...)
	for i := range s.seats() {
		seat := s.seat(i)
		head, oldest := seat.room.bounds()
		if i > 0 {
			data = append(data, ',')
		}
		data = appendString(data, seat.room.name)
		data = append(data, `:{"head":"`...)
		data = head.append(data)
		data = append(data, `","oldest":"`...)
		data = oldest.append(data)
		data = append(data, `"}`...)
	}
	data = append(data, `},"heartbeat":`...)
	data = strconv.AppendFloat(data, s.look.Heartbeat.Seconds(), 'f', -1, 64)
	data = append(data, '}')
	return s.appendOwn(b, own{name: "sluice.open", data: data, id: true, retry: Jitter(s.look.Retry), pad: s.look.Padding})
}

// appendCursor appends what the client is to hand back to go on from here; in
// the room of seat, if not nil, from at.
func (s *Stream) appendCursor(b []byte, seat *seat, at *Position) []byte {
	n := s.seats()
	for i := range n {
		one := s.seat(i)
		if i > 0 {
			b = append(b, ',')
		}
		if n > 1 {
			b = append(b, one.room.name...)
			b = append(b, '=')
		}
		if one == seat {
			b = at.append(b)
		} else {
			b = one.at.append(b)
		}
	}
	return b
}

// appendBeat appends a heartbeat. It carries the cursor where events were left
// out since the client was told one.
func (s *Stream) appendBeat(b []byte) []byte {
	if s.moved || s.look.Beats || s.look.Format == NDJSON {
		beat := own{name: "sluice.beat", data: []byte("{}"), id: s.moved}
		s.moved = false
		return s.appendOwn(b, beat)
	}
	return append(b, ":\n\n"...)
}

// AppendBye appends the last event of a stream, in the stream's format.
func (s *Stream) AppendBye(b []byte, reason ByeReason) []byte {
	return AppendBye(b, s.look.Format, reason, s.look.Retry)
}

// AppendBye appends the goodbye of a stream, with the jittered time after
// which the client should come back.
func AppendBye(b []byte, as Format, reason ByeReason, retry time.Duration) []byte {
	data, _ := json.Marshal(map[string]ByeReason{"reason": reason}) // never fails
	s := Stream{look: &look{Format: as}}
	return s.appendOwn(b, own{name: "sluice.bye", data: data, retry: Jitter(retry)})
}

// Jitter spreads d over its half to one and a half times, so that those who
// were sent away together do not come back together.
func Jitter(d time.Duration) time.Duration {
	return max(time.Millisecond, d/2+rand.N(max(d, 1)))
}
