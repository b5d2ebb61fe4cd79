package fanout

import (
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is the client's end of a stream that has a goroutine of its own.
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
	Types     []string        // types of events to show; all if empty
	Heartbeat time.Duration   // after so long a silence; 15 s if zero
	Beats     bool            // heartbeats are events, which scripts can see
	Retry     time.Duration   // told to the client, jittered; 2 s if zero
	Padding   int             // bytes of comment in the first write
	MaxAge    time.Duration   // after about which the stream ends by itself; never if zero
	Member    *Member         // as whom the client is present, and told who else comes and goes; nil: not at all
	Ended     func(ByeReason) // called once, when the stream has ended; it must not block. May be nil

	ID    string // of a stream that is open anew; a fresh one if empty
	Turn  int    // how often it was
	Lease Lease
}

// look is the part of its options that a stream keeps. Nearly all streams look
// like many others, and share it.
type look struct {
	Format    Format
	Beats     bool
	Heartbeat time.Duration
	Retry     time.Duration
	Padding   int
	types     *[]string // that are shown; nil for all
	member    *Member   // nil if the client is none
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
// it; then Run or Serve is called, once. Both have the same state machine say
// what is due (step.go) and write it: Run from the caller's goroutine, Serve,
// after its beginning, from a shard (shard.go).
//
// There are many of them, so it is kept small: 200 bytes.
type Stream struct {
	id    [26]byte
	moved bool    // a seat has moved since an id was written
	begun bool    // sluice.open was written
	slot  uint32  // in Hub.streams
	first seat    // in its first room
	more  *[]seat // in the others; nil if there are none

	look  *look
	ended func(ByeReason)
	waker atomic.Pointer[waker] // of who drives it; nil before

	// The fields below, and moved and begun, belong to who drives the stream.
	toldDown int64   // the outage that the client was told of, in Unix nanoseconds; 0 if none
	written  instant // when something was
	deadline instant // when the stream has reached its age

	end   atomic.Uint32 // why it is to end: a place in byes, plus 1; 0 if it is not to
	links uint8         // what Hub.links was, about, when the stream last asked whether the log can be reached
	marks mark          // of the shard's queue; the shard's lock guards them
	away  bool          // a goroutine drives the stream, not the shard; belongs to the shard
	timed bool          // the stream is in the shard's wheel; belongs to the shard

	expiring atomic.Bool // the client is to be told that the lease ends

	conn  io.Closer       // that was taken over: a net.Conn, or, once parked, an *os.File; nil when it is closed
	raw   syscall.RawConn // of conn; nil if nothing watches it
	terms *Terms          // of conn
	next  *Stream         // in a slot of the shard's wheel
}

// Open finds out where the stream begins, for which it may wait for the log. It
// fails with ErrUnavailable if that does not answer, and with ErrClosed while
// the node shuts down. The caller owes a Run or a Serve.
func (h *Hub) Open(ctx context.Context, opt StreamOptions) (*Stream, error) {
	s := &Stream{look: h.lookOf(opt), ended: opt.Ended}
	copy(s.id[:], cmp.Or(opt.ID, rand.Text()))
	if err := s.sitDown(ctx, h, opt.Rooms, opt.Starts); err != nil {
		return nil, err
	}
	s.written, s.deadline, s.links = h.now(), h.deadline(opt.MaxAge), uint8(h.links.Load()-1)
	if err := h.register(s); err != nil {
		s.standUp()
		return nil, err
	}
	h.leases.add(s, opt.Lease, opt.Turn)
	h.presence.enter(ctx, s)
	return s, nil
}

// sitDown opens the rooms and finds out where each start leads to, which may
// take until the log has answered, at most Options.Wait.
func (s *Stream) sitDown(ctx context.Context, h *Hub, rooms []string, starts []Start) error {
	ctx, cancel := context.WithTimeout(ctx, h.opt.Wait)
	defer cancel()
	if len(rooms) > 1 {
		more := make([]seat, len(rooms)-1)
		s.more = &more
	}
	for i, name := range rooms {
		seat := s.seat(i)
		seat.room, seat.stream = h.open(name), s
	}
	for i := range rooms {
		if err := s.seat(i).begin(ctx, starts[i]); err != nil {
			s.standUp()
			return err
		}
		if starts[i].kind == fromPosition {
			s.seat(i).countResume()
		}
	}
	return nil
}

func (s *Stream) standUp() {
	for i := range s.seats() {
		seat := s.seat(i)
		seat.room.leave(seat)
	}
}

// lookOf gives what a stream keeps of its options.
func (h *Hub) lookOf(opt StreamOptions) *look {
	l := look{
		Format: opt.Format, Beats: opt.Beats, Padding: opt.Padding,
		Heartbeat: cmp.Or(max(0, opt.Heartbeat), 15*time.Second), Retry: cmp.Or(max(0, opt.Retry), 2*time.Second),
		member: opt.Member.checked(),
	}
	if len(opt.Types) > 0 {
		l.types = &opt.Types
	}
	if l.types != nil || l.member != nil {
		return &l
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if known := h.looks[l]; known != nil {
		return known
	}
	if len(h.looks) < maxLooks {
		h.looks[l] = &l
	}
	return &l
}

// maxLooks bounds Hub.looks. A gateway has a handful.
const maxLooks = 64

// deadline is when a stream that begins now has reached its age, ± 20 %.
func (h *Hub) deadline(age time.Duration) instant {
	if age <= 0 {
		return math.MaxInt64
	}
	return h.now() + instant((0.8+0.4*mathrand.Float64())*float64(age))
}

// ID is the stream's name, which nobody can guess: 26 characters.
func (s *Stream) ID() string { return string(s.id[:]) }

func (s *Stream) hub() *Hub { return s.first.room.hub }

// seats counts the stream's seats, one in each of its rooms.
func (s *Stream) seats() int {
	if s.more == nil {
		return 1
	}
	return 1 + len(*s.more)
}

func (s *Stream) seat(i int) *seat {
	if i == 0 {
		return &s.first
	}
	return &(*s.more)[i-1]
}

// End has the stream say goodbye and end. The first reason given counts.
func (s *Stream) End(reason ByeReason) {
	s.end.CompareAndSwap(0, byeCode(reason))
	s.nudge()
}

// byeCode is what Stream.end keeps of a reason.
func byeCode(reason ByeReason) uint32 { return uint32(slices.Index(byes, reason) + 1) }

// ending says why the stream is to end; "" if it is not to.
func (s *Stream) ending() ByeReason {
	if i := s.end.Load(); i > 0 {
		return byes[i-1]
	}
	return ""
}

// waker makes who drives a stream look at it: a goroutine, which has a channel
// for it, or a shard.
type waker struct {
	wake  chan struct{} // has a token when there may be something new
	shard *shard
}

// nudge has the stream looked at. It does not block.
func (s *Stream) nudge() {
	w := s.waker.Load()
	switch {
	case w == nil: // who drives it will look at everything
	case w.shard != nil:
		w.shard.nudge(s, 0)
	default:
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Run writes the stream to conn until the client is gone, ctx ends, or the
// stream does. It returns why.
func (s *Stream) Run(ctx context.Context, conn Conn) ByeReason {
	reason := s.run(ctx, connSink{conn})
	s.finish(reason)
	return reason
}

func (s *Stream) run(ctx context.Context, to sink) ByeReason {
	w := s.sitAside()
	for {
		reason, err := s.drive(ctx, to)
		if reason != "" {
			return reason
		}
		pause := time.Duration(s.due() - s.hub().now())
		if err != nil {
			pause = min(pause, logRetry) // the log does not answer; its older events are still due
		}
		if w.wait(ctx, pause) != nil {
			return ByeGone
		}
	}
}

// logRetry is after how long the log is asked again for older events.
const logRetry = time.Second

// sitAside gives the stream to the goroutine that calls it.
func (s *Stream) sitAside() *waker {
	w := &waker{wake: make(chan struct{}, 1)}
	s.waker.Store(w)
	for i := range s.seats() {
		seat := s.seat(i)
		seat.room.sit(seat, 0)
	}
	return w
}

// wait returns when there may be something new, when the time is over, or with
// the error of ctx.
func (w *waker) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.wake:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// close gives up what the stream holds of the hub.
func (s *Stream) close() {
	s.hub().presence.exit(s)
	s.standUp()
	s.hub().unregister(s)
}

// finish takes an ended stream off the books.
func (s *Stream) finish(reason ByeReason) {
	h := s.hub()
	s.close()
	h.stats.Ended.add(byes, reason)
	if s.ended != nil {
		s.ended(reason)
	}
}
