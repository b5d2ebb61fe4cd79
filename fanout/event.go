package fanout

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Event is one thing that happened in a room.
type Event struct {
	Position        // of the room's log; the zero Position for an ephemeral event, which no log keeps
	Room     string //
	Type     string // "message" unless somebody said otherwise
	From     string // authenticated subject of the publisher; "" without authentication
	At       int64  // when a node took it, in Unix milliseconds; nothing depends on its order
	Data     []byte // as it was published
	JSON     bool   // Data is valid JSON; otherwise it is text in UTF-8
	Exclude  string // id of the one stream that is not to get it; "" for none

	movement *movement // of an event of presence, which only members are told
	trace    *trace    // nil for nearly all events
}

// Draft is an event that has no position yet.
type Draft struct {
	Type    string // "message" if empty
	From    string
	Data    []byte
	JSON    bool
	Exclude string
	Key     string // idempotency key, with whatever keeps one publisher's apart from another's; "" for none
	Trace   string // the trace that the publication belongs to, see ValidTrace; "" for none
}

// Receipt tells what became of a draft.
type Receipt struct {
	Position Position
	At       int64 // Unix milliseconds
	Replayed bool  // an earlier publication with the same key; nothing was written now
	Alone    bool  // it was to be on a replica by now, and is not: only the primary is known to have it
}

// appendRecord appends what logs keep of an event, and what travels from node
// to node, less its position, which the log gives it:
//
//	at|type|kind|exclude|length of from|from data
//
// where at is in milliseconds, base 36, and kind is j for JSON, t for text. The
// few events that belong to a trace have it behind their kind, and a dot.
func appendRecord(b []byte, at int64, d *Draft) []byte {
	b = strconv.AppendInt(b, at, 36)
	b = append(b, '|')
	b = append(b, d.Type...)
	if d.JSON {
		b = append(b, "|j"...)
	} else {
		b = append(b, "|t"...)
	}
	if d.Trace != "" {
		b = append(b, '.')
		b = append(b, d.Trace...)
	}
	b = append(b, '|')
	b = append(b, d.Exclude...)
	b = append(b, '|')
	b = strconv.AppendInt(b, int64(len(d.From)), 10)
	b = append(b, '|')
	b = append(b, d.From...)
	return append(b, d.Data...)
}

var errRecord = errors.New("not a record of an event")

// parseRecord is the strict inverse of appendRecord. The event's Data is a
// part of b. Somebody else may write where our log is, so nothing is taken on
// trust: a stream never carries a type or text that could break its framing.
func parseRecord(room string, b []byte) (Event, error) {
	var field [5][]byte
	rest := b
	for i := range field {
		var ok bool
		if field[i], rest, ok = bytes.Cut(rest, []byte("|")); !ok {
			return Event{}, errRecord
		}
	}
	at, err := strconv.ParseInt(string(field[0]), 36, 64)
	n, errLen := strconv.Atoi(string(field[4]))
	kind, traced, hasTrace := strings.Cut(string(field[2]), ".")
	e := Event{Room: room, Type: string(field[1]), At: at, JSON: kind == "j", Exclude: string(field[3])}
	switch {
	case err != nil || errLen != nil || at < 0 || at > maxMillis || n < 0 || n > len(rest):
		return Event{}, errRecord
	case kind != "j" && kind != "t":
		return Event{}, errRecord
	case hasTrace && !ValidTrace(traced):
		return Event{}, errRecord
	case !ValidType(e.Type) || e.Exclude != "" && !ValidStreamID(e.Exclude):
		return Event{}, errRecord
	case !utf8.Valid(rest[:n]) || !utf8.Valid(rest[n:]): // apart, since n may cut a character in two
		return Event{}, errRecord
	}
	e.From, e.Data, e.trace = string(rest[:n]), rest[n:], newTrace(traced)
	return e, nil
}

// maxMillis is the last millisecond of the year 9999, the last that RFC 3339 can write.
const maxMillis = 253402300799999

// Time is when a node took the event.
func (e *Event) Time() time.Time { return time.UnixMilli(e.At) }
