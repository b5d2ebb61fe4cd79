package fanout

import (
	"bytes"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Format is the form in which a stream carries events.
type Format uint8

// The formats. Raw is for streams of one room only.
const (
	Raw      Format = iota // SSE: data is what was published
	Envelope               // SSE: data is a JSON object that tells everything about the event
	NDJSON                 // the same object, one a line
	formats
)

// frame is an entry of a room's ring: an event, or a gap that everybody who
// comes by is told of. It is encoded once for each format in use, by the first
// stream that needs it, and shared. Frames do not change.
type frame struct {
	event Event
	gap   *Gap      // instead of an event
	seq   uint64    // number of the event, or of the last one before it for what has none
	at    *Position // where a stream is behind it; nil for what has no number. Seats share it

	once [formats]sync.Once
	enc  [formats]encoding
}

// encoding is a frame in one format, as a chunk of HTTP/1.1: streams that are
// not chunked, or put several frames into a chunk, leave out the chunk's ends.
type encoding struct {
	chunk []byte
	data  int32 // where in chunk the frame begins
	open  int32 // where its end begins, which streams of several rooms have of their own
}

// eventFrame gives the frame of an event that came when the room's head was
// at number seq, its own if it has one.
func eventFrame(e Event, seq uint64) *frame {
	f := &frame{event: e, seq: seq}
	if e.Epoch != "" {
		f.at = &Position{Epoch: e.Epoch, Seq: e.Seq}
	}
	return f
}

// numbered says that the frame is an event that the log keeps.
func (f *frame) numbered() bool { return f.gap == nil && f.event.Epoch != "" }

// ephemeral says that the frame is an event that no log keeps.
func (f *frame) ephemeral() bool { return f.gap == nil && f.event.Epoch == "" }

// leadsTo is the number of the last event that is not ahead any more of who
// has seen the frame.
func (f *frame) leadsTo() uint64 {
	if f.gap != nil {
		return f.gap.before.Seq
	}
	return f.seq
}

// promises is the number of the event with which a gap says that it resumes; 0
// if it says nothing.
func (f *frame) promises() uint64 {
	if f.gap == nil {
		return 0
	}
	return f.gap.ResumesAt.Seq
}

// cost is about what the frame takes of a ring's memory.
func (f *frame) cost() int { return 256 + 2*(len(f.event.Data)+len(f.event.From)) }

func (f *frame) encode(as Format) *encoding {
	f.once[as].Do(func() {
		e := &f.event
		b := make([]byte, chunkRoom, chunkRoom+len(e.Data)+len(e.Room)+192)
		var open int
		if as == NDJSON {
			b = AppendEnvelope(b, e)
			open = len(b) - len("}")
			b = append(b, '\n')
		} else {
			data := e.Data
			if as == Envelope && e.movement == nil {
				data = AppendEnvelope(make([]byte, 0, len(e.Data)+192), e)
			}
			b = appendData(appendEventType(b, e.Type), data)
			open = len(b)
			b = f.closing(b)
		}
		start, b := closeChunk(b, chunkRoom)
		f.enc[as] = encoding{chunk: b[start:], data: int32(chunkRoom - start), open: int32(open - start)}
	})
	return &f.enc[as]
}

// encoded is the frame of an event in one format, as a stream of this one room
// carries it. It must not be changed.
func (f *frame) encoded(as Format) []byte {
	e := f.encode(as)
	return e.chunk[e.data : len(e.chunk)-len("\r\n")]
}

// chunk is what encoded gives, as a chunk. It must not be changed.
func (f *frame) chunk(as Format) []byte { return f.encode(as).chunk }

// open is the part of encoded that streams of several rooms share: without the
// id, for which they have one of their own.
func (f *frame) open(as Format) []byte {
	e := f.encode(as)
	return e.chunk[e.data:e.open]
}

// closing ends a block with its id, which stands last: clients take it at its
// line, and must not before they have the data.
func (f *frame) closing(b []byte) []byte {
	if f.numbered() {
		b = append(b, "id: "...)
		b = f.event.Position.append(b)
		b = append(b, '\n')
	}
	return append(b, '\n')
}

// chunkRoom is how many bytes to leave free before what is to become a chunk:
// for eight hexadecimal digits and a line break.
const chunkRoom = 10

// closeChunk makes b[from:] a chunk of HTTP/1.1 (RFC 9112, 7.1), writing its
// size into the room before it. It returns where the chunk begins.
func closeChunk(b []byte, from int) (start int, _ []byte) {
	const digits = "0123456789abcdef"
	n := len(b) - from
	start = from - len("\r\n")
	copy(b[start:], "\r\n")
	for {
		start--
		b[start] = digits[n&15]
		if n >>= 4; n == 0 {
			return start, append(b, "\r\n"...)
		}
	}
}

// lastChunk ends a chunked body.
const lastChunk = "0\r\n\r\n"

func appendEventType(b []byte, name string) []byte {
	if name == "message" {
		return b
	}
	b = append(b, "event: "...)
	b = append(b, name...)
	return append(b, '\n')
}

// appendData appends one data line for each line of data, whichever of LF, CR
// and CRLF ends it; a line break at the end begins one more, empty line. This
// is what a reader puts together again (WHATWG HTML, "9.2.6 Interpreting an
// event stream").
func appendData(b, data []byte) []byte {
	for {
		b = append(b, "data: "...)
		i := bytes.IndexAny(data, "\r\n")
		if i < 0 {
			b = append(b, data...)
			return append(b, '\n')
		}
		b = append(b, data[:i]...)
		b = append(b, '\n')
		if data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n' {
			i++
		}
		data = data[i+1:]
	}
}

// AppendEnvelope appends e as the JSON object that envelopes, NDJSON and pages
// carry. JSON data is compacted, text is a string, and both come back exactly.
func AppendEnvelope(b []byte, e *Event) []byte {
	b = append(b, '{')
	if e.Epoch != "" {
		b = append(b, `"id":"`...)
		b = e.Position.append(b)
		b = append(b, `",`...)
	}
	b = append(b, `"room":"`...)
	b = append(b, e.Room...)
	b = append(b, `","type":"`...)
	b = append(b, e.Type...)
	b = append(b, '"')
	if e.From != "" {
		b = append(b, `,"from":`...)
		b = appendString(b, e.From)
	}
	b = append(b, `,"at":"`...)
	b = AppendTime(b, e.At)
	b = append(b, `","data":`...)
	if e.JSON {
		var compact bytes.Buffer
		compact.Grow(len(e.Data))
		if json.Compact(&compact, e.Data) == nil {
			b = append(b, compact.Bytes()...)
			return append(b, '}')
		}
		// Somebody else wrote this into our log; as text it harms nobody.
	}
	b = appendString(b, string(e.Data))
	return append(b, '}')
}

// AppendTime appends a time as events carry it: RFC 3339, UTC, milliseconds.
func AppendTime(b []byte, millis int64) []byte {
	b = time.UnixMilli(millis).UTC().AppendFormat(b, time.RFC3339) // the form that package time is quick at
	n := (millis%1000 + 1000) % 1000
	return append(b[:len(b)-1], '.', byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10), 'Z')
}

func appendString(b []byte, s string) []byte {
	quoted, err := jsontext.AppendQuote(b, s)
	if err != nil { // invalid UTF-8, which parseRecord and the handlers refuse
		quoted, _ = jsontext.AppendQuote(b, string(bytes.ToValidUTF8([]byte(s), []byte("\uFFFD"))))
	}
	return quoted
}

// Gap tells a stream that something is missing before the next event.
type Gap struct {
	Room      string
	After     string   // the position asked for, or that of the last event before the gap; "" if it could not be read
	ResumesAt Position // of the next event; zero if there is none yet
	Missed    int64    // how many events; -1 if nobody can tell
	Reason    Reason

	before Position // the position before the next event: where the stream is after the gap
}

// MarshalJSON gives the form that streams and pages carry.
func (g *Gap) MarshalJSON() ([]byte, error) {
	b := append([]byte(nil), `{"room":"`...)
	b = append(b, g.Room...)
	b = append(b, `","after":`...)
	b = appendStringOrNull(b, g.After)
	b = append(b, `,"resumes_at":`...)
	b = appendStringOrNull(b, g.ResumesAt.String())
	b = append(b, `,"missed":`...)
	if g.Missed < 0 {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendInt(b, g.Missed, 10)
	}
	b = append(b, `,"reason":"`...)
	b = append(b, g.Reason...)
	return append(b, `"}`...), nil
}

func appendStringOrNull(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return appendString(b, s)
}

// AppendEvent appends e as a stream of its room alone carries it.
func AppendEvent(b []byte, e *Event, as Format) []byte {
	f := frame{event: *e}
	return append(b, f.encoded(as)...)
}
