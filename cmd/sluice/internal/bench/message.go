package bench

import (
	"bytes"
	"hash/crc32"
)

// A message is plain text that needs no escaping in JSON, in a form or in an
// event stream, and all of its fields have a fixed place:
//
//	~RRRRRRRR.room  .publ.sequence.time        .checksum.xxxxxxxx~
//
// R is the run, so that the events of others in a room are told from ours; the
// numbers are hexadecimal. The fill makes up the size and is checked too.
const (
	atRoom = 10
	atPub  = atRoom + 7
	atSeq  = atPub + 5
	atTime = atSeq + 9
	atSum  = atTime + 13
	atFill = atSum + 9

	// MinPayload is the size of a message without any fill.
	MinPayload = atFill + 1

	maxRooms      = 1 << 24
	maxPublishers = 1 << 16
)

// message is what one publication says of itself.
type message struct {
	room, pub int
	seq       uint32 // 1, 2, 3 … of this publisher in this room
	at        int64  // when it was due, in nanoseconds of the run's clock
}

// format prints and parses the messages of one run.
type format struct {
	tag  []byte // "~RRRRRRRR."
	fill []byte
}

func newFormat(run string, size int) *format {
	f := &format{tag: []byte("~" + run + ".")}
	f.fill = append(bytes.Repeat([]byte("x"), size-MinPayload), '~')
	return f
}

// append prints m behind b.
func (f *format) append(b []byte, m message) []byte {
	n := len(b)
	b = append(b, f.tag...)
	b = appendHex(b, uint64(m.room), 6)
	b = appendHex(b, uint64(m.pub), 4)
	b = appendHex(b, uint64(m.seq), 8)
	b = appendHex(b, uint64(m.at), 12)
	b = appendHex(b, uint64(crc32.ChecksumIEEE(b[n:])), 8)
	return append(b, f.fill...)
}

// found says what parse made of an event's data.
type found uint8

const (
	foreign found = iota // no message of this run
	corrupt              // the beginning of one, but not all of it as it was sent
	whole
)

// parse looks for a message anywhere in data.
func (f *format) parse(data []byte) (m message, is found) {
	i := bytes.Index(data, f.tag)
	if i < 0 {
		return m, foreign
	}
	b := data[i:]
	if len(b) < atFill+len(f.fill) || !bytes.Equal(b[atFill:atFill+len(f.fill)], f.fill) {
		return m, corrupt
	}
	room, ok1 := parseHex(b[atRoom : atPub-1])
	pub, ok2 := parseHex(b[atPub : atSeq-1])
	seq, ok3 := parseHex(b[atSeq : atTime-1])
	at, ok4 := parseHex(b[atTime : atSum-1])
	sum, ok5 := parseHex(b[atSum : atFill-1])
	if !(ok1 && ok2 && ok3 && ok4 && ok5) || b[atFill-1] != '.' || uint32(sum) != crc32.ChecksumIEEE(b[:atSum]) {
		return m, corrupt
	}
	return message{int(room), int(pub), uint32(seq), int64(at)}, whole
}

// appendHex prints the lowest digits of v, and a dot.
func appendHex(b []byte, v uint64, digits int) []byte {
	const hex = "0123456789abcdef"
	for i := digits - 1; i >= 0; i-- {
		b = append(b, hex[v>>(4*i)&15])
	}
	return append(b, '.')
}

func parseHex(b []byte) (v uint64, ok bool) {
	for _, c := range b {
		switch {
		case '0' <= c && c <= '9':
			v = v<<4 | uint64(c-'0')
		case 'a' <= c && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return v, true
}
