// Package eventstream decodes text/event-stream while it arrives.
//
//	bytes, in whatever pieces the network makes of them -> Decoder.Feed -> Sink
//
// It is the reader's half of the format for the commands that measure: it
// never waits, starts no goroutine, and in the steady state allocates nothing,
// so that ten thousand streams cost their reader little more than the system
// calls. Nothing is hidden: comments are reported too, since to a command that
// judges a connection they are what shows that it lives.
package eventstream

import (
	"bytes"
	"errors"
)

// MaxBlock bounds what one event may take, so that a peer which never ends a
// line cannot fill the memory of whoever listens to it.
const MaxBlock = 16 << 20

// keep is the capacity of a buffer that is worth keeping between events; a
// larger one goes, or each of many streams would hold its largest event.
const keep = 4 << 10

// ErrTooLong is returned by Feed for an event longer than MaxBlock.
var ErrTooLong = errors.New("event too long")

// Event is one dispatched event. Its slices are valid during the call only.
type Event struct {
	Type []byte // empty for a plain message
	ID   []byte // the last id seen on the stream, by this event or before it
	Data []byte
}

// Sink takes what a Decoder finds, in the order of arrival.
type Sink interface {
	// Event is called for each block that has data.
	Event(Event)
	// Comment is called for each comment line, with its length without the
	// colon and the line's end.
	Comment(size int)
	// Retry is called for each valid retry field, with its milliseconds.
	Retry(ms int)
}

// Decoder holds the state of one stream between two calls of Feed. Its zero
// value is ready; it is not for concurrent use.
type Decoder struct {
	line  []byte // the beginning of a line whose end has not come yet
	kind  []byte
	id    []byte // the last id field
	last  []byte // id as of the last block's end: what a client may resume from
	data  []byte // the block's data; a view of Feed's argument unless owned
	spare []byte // buffer of the last owned data

	comment int // length so far of a comment whose end has not come yet

	owned     bool
	hasData   bool
	inComment bool
	afterCR   bool // the last line ended in CR: an LF that follows belongs to it
	begun     bool // past the place where a byte order mark may stand
}

// ID returns the id to go on from: the last one whose block was whole. It is
// valid until the next call of Feed.
func (d *Decoder) ID() []byte { return d.last }

// Restart makes d ready for another connection of the same stream: all but the
// id is forgotten.
func (d *Decoder) Restart() {
	*d = Decoder{last: d.last, id: append(d.id[:0], d.last...)}
}

// Feed decodes b and hands what is complete to sink. After an error the stream
// cannot be continued. It keeps no reference to b.
func (d *Decoder) Feed(b []byte, sink Sink) error {
	lf := -1 // place of the next LF in b, len(b) if there is none
	for at := 0; at < len(b); {
		if d.afterCR {
			d.afterCR = false
			if b[at] == '\n' {
				at++
				continue
			}
		}
		if lf < at {
			if lf = len(b); bytes.IndexByte(b[at:], '\n') >= 0 {
				lf = at + bytes.IndexByte(b[at:], '\n')
			}
		}
		end := lf
		if cr := bytes.IndexByte(b[at:lf], '\r'); cr >= 0 {
			end = at + cr
		}
		if end == len(b) {
			d.partial(b[at:])
			break
		}
		d.afterCR = b[end] == '\r'
		d.complete(b[at:end], sink)
		at = end + 1
	}
	if d.hasData && !d.owned {
		d.own(d.data)
	}
	if len(d.line)+len(d.data) > MaxBlock {
		return ErrTooLong
	}
	return nil
}

// partial keeps the beginning of a line; of a comment only the length counts.
func (d *Decoder) partial(b []byte) {
	if !d.inComment && len(d.line) == 0 && b[0] == ':' {
		d.inComment, d.begun, d.comment, b = true, true, 0, b[1:]
	}
	if d.inComment {
		d.comment += len(b)
		return
	}
	d.line = append(d.line, b...)
}

// complete takes the rest of a line, without its end.
func (d *Decoder) complete(rest []byte, sink Sink) {
	if d.inComment {
		sink.Comment(d.comment + len(rest))
		d.inComment = false
		return
	}
	line := rest
	if len(d.line) > 0 {
		// The line was in two pieces. Data that it carries must not stay a
		// view of d.line, which the next partial line overwrites.
		d.line = append(d.line, rest...)
		line = d.line
	}
	if !d.begun {
		d.begun = true
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	}
	d.field(line, len(d.line) > 0, sink)
	d.line = shrink(d.line)
}

// field acts on one whole line; joined says that it lies in d.line.
func (d *Decoder) field(line []byte, joined bool, sink Sink) {
	if len(line) == 0 {
		d.dispatch(sink)
		return
	}
	name, value, colon := bytes.Cut(line, []byte{':'})
	if colon && len(name) == 0 {
		sink.Comment(len(value))
		return
	}
	if len(value) > 0 && value[0] == ' ' {
		value = value[1:]
	}
	switch string(name) {
	case "data":
		d.addData(value, joined)
	case "event":
		d.kind = append(d.kind[:0], value...)
	case "id":
		if bytes.IndexByte(value, 0) < 0 {
			d.id = append(d.id[:0], value...)
		}
	case "retry":
		if ms, ok := number(value); ok {
			sink.Retry(ms)
		}
	}
}

// addData appends a line of data. The first line of a block, which is mostly
// the only one, is not copied as long as Feed's argument lives.
func (d *Decoder) addData(value []byte, joined bool) {
	switch {
	case !d.hasData && !joined:
		d.data = value
	case !d.hasData:
		d.own(value)
	default:
		if !d.owned {
			d.own(d.data)
		}
		d.data = append(append(d.data, '\n'), value...)
	}
	d.hasData = true
}

func (d *Decoder) own(b []byte) {
	d.data = append(d.spare[:0], b...)
	d.owned, d.spare = true, nil
}

func (d *Decoder) dispatch(sink Sink) {
	if d.hasData {
		sink.Event(Event{Type: d.kind, ID: d.id, Data: d.data})
	}
	if d.owned {
		d.spare = shrink(d.data)
	}
	d.data, d.owned, d.hasData = nil, false, false
	d.kind = d.kind[:0]
	d.last = append(d.last[:0], d.id...)
}

func shrink(b []byte) []byte {
	if cap(b) > keep {
		return nil
	}
	return b[:0]
}

// number reads a decimal of digits only, as retry demands; more than 24 days
// of milliseconds are no number.
func number(b []byte) (n int, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = n*10 + int(c-'0'); n >= 1<<31 {
			return 0, false
		}
	}
	return n, len(b) > 0
}
