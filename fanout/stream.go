package fanout

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is the client's end of a stream.
type Conn interface {
	// Write sends b at once, whole or with an error, and within a bounded
	// time. The stream calls it from one goroutine.
	Write(b []byte) error
}

// StreamOptions say what a stream is to show, and how.
type StreamOptions struct {
	Rooms     []string
	Starts    []Start // one for each room
	Format    Format
	Types     []string      // types of events to show; all if empty
	Heartbeat time.Duration // after so long a silence; 15 s if zero
	Beats     bool          // heartbeats are events, which scripts can see
	Retry     time.Duration // told to the client, jittered; 2 s if zero
	Padding   int           // bytes of comment in the first write
	MaxAge    time.Duration // after about which the stream ends by itself; never if zero
	Member    *Member       // as whom the client is present, and told who else comes and goes; nil: not at all
}

// ByeReason says why a stream ends.
type ByeReason string

// The reasons of an end. The client is told all but the last two.
const (
	ByeDrain    ByeReason = "drain"
	ByeExpired  ByeReason = "token_expired"
	ByeRevoked  ByeReason = "revoked"
	ByeSlow     ByeReason = "slow"
	ByeMaxAge   ByeReason = "max_age"
	ByeOverload ByeReason = "overload"
	ByeGone     ByeReason = "gone" // the client hung up, or takes nothing
	ByeLeft     ByeReason = "left" // the client said so
)

// Stream is one open response that carries events to one client. Open makes
// it; then Run is called, once.
type Stream struct {
	id     string
	opt    StreamOptions
	hub    *Hub
	reader *reader
	end    atomic.Pointer[ByeReason]

	// The fields below belong to Run.
	shown    []Position // of each room: the last event written, or left out
	moved    bool       // shown has moved since an id was written
	toldDown time.Time  // the outage that the client was told of; zero if none
}

// Open finds out where the stream begins, for which it may wait for the log. It
// fails with ErrUnavailable if that does not answer, and with ErrClosed while
// the node shuts down. The caller owes a Run.
func (h *Hub) Open(ctx context.Context, opt StreamOptions) (*Stream, error) {
	if opt.Heartbeat <= 0 {
		opt.Heartbeat = 15 * time.Second
	}
	if opt.Retry <= 0 {
		opt.Retry = 2 * time.Second
	}
	opt.Member = opt.Member.checked()
	rd, err := h.newReader(ctx, opt.Rooms, opt.Starts)
	if err != nil {
		return nil, err
	}
	s := &Stream{id: streamID(), opt: opt, hub: h, reader: rd}
	if !h.enlist(s) {
		rd.close()
		return nil, ErrClosed
	}
	h.presence.enter(ctx, s)
	return s, nil
}

// enlist adds a stream, unless the node shuts down.
func (h *Hub) enlist(s *Stream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining {
		return false
	}
	h.streams[s] = struct{}{}
	return true
}

// ID is the stream's name, which nobody can guess.
func (s *Stream) ID() string { return s.id }

// End has the stream say goodbye and end. The first reason given counts.
func (s *Stream) End(reason ByeReason) {
	s.end.CompareAndSwap(nil, &reason)
	s.reader.nudge()
}

// Run writes the stream to conn until the client is gone, ctx ends, or the
// stream does. It returns why.
func (s *Stream) Run(ctx context.Context, conn Conn) ByeReason {
	defer s.close()
	reason := s.run(ctx, conn)
	s.hub.stats.Ended.add(byes, reason)
	return reason
}

func (s *Stream) close() {
	s.hub.mu.Lock()
	delete(s.hub.streams, s)
	s.hub.mu.Unlock()
	s.hub.presence.exit(s)
	s.reader.close()
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

func (s *Stream) run(ctx context.Context, conn Conn) ByeReason {
	deadline := s.deadline()
	var items []item
	written := time.Now()
	write := func(build func(b []byte) []byte) bool {
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		*buf = build((*buf)[:0])
		if len(*buf) == 0 {
			return true
		}
		written = time.Now()
		s.hub.stats.Bytes.Add(int64(len(*buf)))
		return conn.Write(*buf) == nil
	}
	if !write(s.appendOpen) {
		return ByeGone
	}
	for {
		var err error
		items, err = s.reader.next(ctx, items[:0])
		if !write(func(b []byte) []byte { return s.appendDue(b, items) }) {
			return ByeGone
		}
		clear(items) // frames belong to the ring, not to idle streams
		if reason := s.end.Load(); reason != nil {
			if *reason != ByeLeft {
				write(func(b []byte) []byte { return s.AppendBye(b, *reason) })
			}
			return *reason
		}
		now := time.Now()
		if now.Sub(written) >= s.opt.Heartbeat && !write(s.appendBeat) {
			return ByeGone
		}
		if !now.Before(deadline) {
			s.End(ByeMaxAge)
			continue
		}
		pause := min(written.Add(s.opt.Heartbeat).Sub(now), deadline.Sub(now))
		if err != nil {
			pause = min(pause, maxBackoff/2) // the log does not answer; its older events are still due
		}
		if s.reader.wait(ctx, pause) != nil {
			return ByeGone
		}
	}
}

// deadline is when the stream has reached its age, ± 20 %.
func (s *Stream) deadline() time.Time {
	if s.opt.MaxAge <= 0 {
		return time.Now().Add(100 * 365 * 24 * time.Hour)
	}
	return time.Now().Add(time.Duration((0.8 + 0.4*rand.Float64()) * float64(s.opt.MaxAge)))
}

// appendDue appends what the reader found, and word of an outage.
func (s *Stream) appendDue(b []byte, items []item) []byte {
	for i := range items {
		b = s.appendItem(b, &items[i])
	}
	down := s.reader.downSince()
	switch {
	case s.toldDown.IsZero() && !down.IsZero():
		s.toldDown = down
		b = s.appendOwn(b, own{name: "sluice.degraded", data: since(down)})
	case !s.toldDown.IsZero() && down.IsZero() && s.reader.live():
		b = s.appendOwn(b, own{name: "sluice.restored", data: since(s.toldDown)})
		s.toldDown = time.Time{}
	}
	return b
}

func since(t time.Time) []byte {
	b := AppendTime([]byte(`{"since":"`), t.UnixMilli())
	return append(b, `"}`...)
}

// live says that every room shows what the log has.
func (rd *reader) live() bool {
	for _, s := range rd.seats {
		if _, _, live, _ := s.room.extentNow(); !live {
			return false
		}
	}
	return true
}

func (s *Stream) appendItem(b []byte, it *item) []byte {
	if it.gap == nil && it.frame.gap != nil {
		it.gap = it.frame.gap
	}
	if it.gap != nil {
		s.move(it)
		s.hub.stats.Gaps.add(reasons, it.gap.Reason)
		data, _ := it.gap.MarshalJSON() // never fails
		s.moved = false
		return s.appendOwn(b, own{name: "sluice.gap", data: data, id: true})
	}
	f := it.frame
	if f.numbered() {
		s.move(it)
	}
	if !s.wants(&f.event) {
		s.moved = s.moved || f.numbered()
		return b
	}
	s.hub.stats.Delivered.Add(1)
	if f.numbered() {
		s.moved = false
	}
	if len(s.reader.seats) == 1 {
		return append(b, f.encoded(s.opt.Format)...)
	}
	b = append(b, f.open(s.opt.Format)...)
	if s.opt.Format == NDJSON {
		if f.numbered() {
			b = append(b, `,"cursor":"`...)
			b = s.appendCursor(b)
			b = append(b, '"')
		}
		return append(b, "}\n"...)
	}
	if f.numbered() {
		b = append(b, "id: "...)
		b = s.appendCursor(b)
		b = append(b, '\n')
	}
	return append(b, '\n')
}

func (s *Stream) move(it *item) {
	for i, seat := range s.reader.seats {
		if seat == it.seat {
			s.shown[i] = it.at
		}
	}
}

func (s *Stream) wants(e *Event) bool {
	if e.movement != nil {
		return s.toldOf(e)
	}
	if e.Exclude != "" && e.Exclude == s.id {
		return false
	}
	return len(s.opt.Types) == 0 || slices.Contains(s.opt.Types, e.Type)
}

// appendCursor appends what the client is to hand back to go on from here.
func (s *Stream) appendCursor(b []byte) []byte {
	if len(s.shown) == 1 {
		return s.shown[0].append(b)
	}
	return appendCursor(b, s.reader.names, func(i int) Position { return s.shown[i] })
}

// own is an event of ours.
type own struct {
	name  string
	data  []byte
	id    bool          // carries the cursor
	retry time.Duration // told in its block, if positive
	pad   int           // bytes to send besides, for those on the way that hold back little ones
}

func (s *Stream) appendOwn(b []byte, o own) []byte {
	if s.opt.Format == NDJSON {
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
		b = s.appendCursor(b)
		b = append(b, '\n')
	}
	return append(b, '\n')
}

func (s *Stream) appendOwnLine(b []byte, o own) []byte {
	b = append(b, '{')
	if o.id {
		b = append(b, `"id":"`...)
		b = s.appendCursor(b)
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
	data := append([]byte(nil), `{"stream":"`...)
	data = append(data, s.id...)
	data = append(data, `","rooms":{`...)
	s.shown = make([]Position, len(s.reader.seats))
	for i, seat := range s.reader.seats {
		x, _, _, _ := seat.room.extentNow()
		s.shown[i] = seat.cursor()
		if i > 0 {
			data = append(data, ',')
		}
		data = appendString(data, seat.room.name)
		data = append(data, `:{"head":"`...)
		data = x.HeadPosition().append(data)
		data = append(data, `","oldest":"`...)
		data = x.OldestPosition().append(data)
		data = append(data, `"}`...)
	}
	data = append(data, `},"heartbeat":`...)
	data = strconv.AppendFloat(data, s.opt.Heartbeat.Seconds(), 'f', -1, 64)
	data = append(data, '}')
	return s.appendOwn(b, own{name: "sluice.open", data: data, id: true, retry: Jitter(s.opt.Retry), pad: s.opt.Padding})
}

// cursor is where the client is before anything was written to it: behind the
// gap, if there is one, only when it has been told.
func (s *seat) cursor() Position {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	if s.gap != nil {
		if p, ok := ParsePosition(s.gap.After); ok {
			return p
		}
	}
	return s.at
}

func (s *Stream) appendBeat(b []byte) []byte {
	if s.moved || s.opt.Beats || s.opt.Format == NDJSON {
		beat := own{name: "sluice.beat", data: []byte("{}"), id: s.moved}
		s.moved = false
		return s.appendOwn(b, beat)
	}
	return append(b, ":\n\n"...)
}

// AppendBye appends the last event of a stream, in the stream's format.
func (s *Stream) AppendBye(b []byte, reason ByeReason) []byte {
	return AppendBye(b, s.opt.Format, reason, s.opt.Retry)
}

// AppendBye appends the goodbye of a stream, with the jittered time after
// which the client should come back.
func AppendBye(b []byte, as Format, reason ByeReason, retry time.Duration) []byte {
	data, _ := json.Marshal(map[string]ByeReason{"reason": reason}) // never fails
	s := Stream{opt: StreamOptions{Format: as}}
	return s.appendOwn(b, own{name: "sluice.bye", data: data, retry: Jitter(retry)})
}

// Jitter spreads d over its half to one and a half times, so that those who
// were sent away together do not come back together.
func Jitter(d time.Duration) time.Duration {
	return max(time.Millisecond, d/2+rand.N(max(d, 1)))
}
