package bench

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sluice/cmd/sluice/internal/eventstream"
)

var (
	errEnded      = errors.New("stream ended by the server")
	errNotAStream = errors.New("the answer is no event stream")
	errLate       = errors.New("the stream opened only after publishing began")
	errEncoded    = errors.New("the stream is compressed, though that was not asked for")
)

// stream is one subscription, over all the connections it takes. It belongs to
// one goroutine at a time: the opener hands it to an engine, and the engine,
// by run.ended, back to the opener.
type stream struct {
	index, room int
	source      int
	node        int // in plan.nodes, modulo their number

	response response
	decoder  eventstream.Decoder
	ledger   ledger
	retry    time.Duration // as the server asked, or zero
	bye      string        // reason that the server gave for ending the stream
	greeted  bool          // this connection brought an event other than that
	began    time.Duration // when this connection's opening began
	open     bool          // has its head
	opens    int           // times it was opened
	fd       int           // of the epoll engine
}

// tally is what the streams of one intake have seen together.
type tally struct {
	latency  histogram // of measured messages
	connects histogram // request to response head

	delivered int64 // measured messages, each stream's for itself
	reordered int64
	doubled   int64
	corrupt   int64
	foreign   int64         // events of others in our rooms
	announced int64         // messages that the gateway said were missed
	last      time.Duration // when the last measured message came
}

// intake turns bytes into the tally. Each reading goroutine has one to itself
// or shares it with few.
type intake struct {
	run *run

	mu     sync.Mutex // guards the fields below; held while bytes are taken
	tally  tally
	stream *stream       // whose bytes are being taken
	now    time.Duration // when they were read

	delivered atomic.Int64 // messages, measured or not
}

// take handles bytes that s has received. An error ends the connection.
func (in *intake) take(s *stream, b []byte) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.stream, in.now = s, in.run.now()
	_, err := s.response.feed(b, in)
	if err == nil {
		err = in.checkHead()
	}
	if err == nil && s.response.part == complete {
		err = errEnded
	}
	if errors.Is(err, errEnded) && s.bye != "" {
		err = fmt.Errorf("%w: sluice.bye, %s", errEnded, s.bye)
	}
	return err
}

// checkHead acts on a response head that has just become whole.
func (in *intake) checkHead() error {
	s := in.stream
	r := &s.response
	switch {
	case s.open || r.status == 0:
		return nil
	case r.status != 200:
		return statusError(r.status)
	case !r.eventStream:
		return errNotAStream
	case r.encoded:
		return errEncoded
	}
	if !in.run.opened(s) {
		return errLate
	}
	in.tally.connects.add(in.now - s.began)
	return nil
}

// takeBody implements bodyTaker for the response that is being fed.
func (in *intake) takeBody(b []byte) error {
	if err := in.checkHead(); err != nil {
		return err
	}
	return in.stream.decoder.Feed(b, in)
}

// Event implements eventstream.Sink.
func (in *intake) Event(e eventstream.Event) {
	s := in.stream
	if bytes.HasPrefix(e.Type, []byte("sluice.")) {
		in.gatewayEvent(e)
		return
	}
	s.greeted = true
	m, is := in.run.format.parse(e.Data)
	switch {
	case is == foreign:
		in.tally.foreign++
		return
	case is == corrupt, m.room != s.room, m.pub >= in.run.Publishers:
		in.tally.corrupt++
		return
	}
	switch s.ledger.enter(m.pub, m.seq) {
	case doubled:
		in.tally.doubled++
		return
	case late:
		in.tally.reordered++
	}
	in.delivered.Add(1)
	if at := time.Duration(m.at); at >= in.run.measuredFrom() {
		in.tally.delivered++
		in.tally.latency.add(in.now - at)
		in.tally.last = in.now
	}
}

// gatewayEvent looks into the events by which a Sluice gateway speaks for
// itself.
func (in *intake) gatewayEvent(e eventstream.Event) {
	switch string(e.Type) {
	case "sluice.gap":
		n, _ := strconv.ParseInt(jsonMember(e.Data, "missed"), 10, 64)
		in.tally.announced += n
	case "sluice.bye":
		in.stream.bye = cmp.Or(jsonMember(e.Data, "reason"), "no reason")
		return
	}
	in.stream.greeted = true
}

// Comment implements eventstream.Sink.
func (in *intake) Comment(int) {}

// Retry implements eventstream.Sink.
func (in *intake) Retry(ms int) { in.stream.retry = time.Duration(ms) * time.Millisecond }

// jsonMember finds a string or a number in a flat JSON object; it is for the
// gateway's own events, whose members hold neither quotes nor objects.
func jsonMember(data []byte, name string) string {
	_, rest, ok := bytes.Cut(data, []byte(`"`+name+`":`))
	if !ok {
		return ""
	}
	rest = bytes.TrimLeft(rest, " ")
	if end := bytes.IndexAny(rest, ",}"); end >= 0 {
		rest = rest[:end]
	}
	return string(bytes.Trim(rest, `" `))
}

// statusError is an answer that is not the one hoped for.
type statusError int

func (e statusError) Error() string {
	switch e {
	case 401, 403:
		return fmt.Sprintf("status %d (not allowed)", int(e))
	case 404:
		return "status 404 (no such place)"
	case 413:
		return "status 413 (message too large)"
	case 429:
		return "status 429 (rate limited)"
	}
	return fmt.Sprintf("status %d", int(e))
}

// final says that asking again would change nothing.
func (e statusError) final() bool {
	return 400 <= e && e < 500 && e != 408 && e != 425 && e != 429
}
