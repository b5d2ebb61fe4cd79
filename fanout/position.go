package fanout

import (
	"crypto/rand"
	"strconv"
	"strings"
)

// MaxCursor is the most bytes that a cursor may have.
const MaxCursor = 8 << 10

// maxEpoch is the most bytes of an epoch's name, maxSeq the most digits of a
// sequence number: every number below 10^16 is one.
const (
	maxEpoch  = 16
	maxDigits = 16
)

// Position is a place in a room's history: that of the event with this
// number, or, as a cursor, the place just behind it. The zero Position stands
// for none.
type Position struct {
	Epoch string // [0-9a-z]{1,16}
	Seq   uint64 // counts 1, 2, 3 …; 0 is before the first event
}

// Origin is the position of a room that has no history yet.
var Origin = Position{Epoch: "0"}

// String gives the wire form, "<epoch>-<seq>", or "" for the zero Position.
func (p Position) String() string {
	if p.Epoch == "" {
		return ""
	}
	var text [maxEpoch + 1 + 20]byte
	return string(p.append(text[:0]))
}

func (p Position) append(b []byte) []byte {
	b = append(b, p.Epoch...)
	b = append(b, '-')
	return strconv.AppendUint(b, p.Seq, 10)
}

// ParsePosition reads the wire form; anything but exactly that is refused.
func ParsePosition(s string) (Position, bool) {
	epoch, digits, ok := strings.Cut(s, "-")
	if !ok || !validEpoch(epoch) || digits == "" || len(digits) > maxDigits {
		return Position{}, false
	}
	if digits[0] == '0' && len(digits) > 1 {
		return Position{}, false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return Position{}, false
		}
	}
	seq, err := strconv.ParseUint(digits, 10, 64)
	return Position{Epoch: epoch, Seq: seq}, err == nil
}

func validEpoch(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return s != "" && len(s) <= maxEpoch
}

// newEpoch names a new history: 13 characters, more than 64 random bits.
func newEpoch() string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	const fair = 256 - 256%len(digits) // a byte from here on would favour some digits
	var name [13]byte
	for n := 0; n < len(name); {
		var random [16]byte
		_, _ = rand.Read(random[:]) // never fails (crypto/rand)
		for _, b := range random {
			if n < len(name) && int(b) < fair {
				name[n] = digits[int(b)%len(digits)]
				n++
			}
		}
	}
	return string(name[:])
}

// ValidRoom says whether s can name a room that people use:
// ^[A-Za-z0-9][A-Za-z0-9_.:@~-]{0,127}$.
func ValidRoom(s string) bool {
	if s == "" || len(s) > 128 || !alphanumeric(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if !alphanumeric(s[i]) && strings.IndexByte("_.:@~-", s[i]) < 0 {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// ValidType says whether s can name a type of event that people publish:
// ^[a-z][a-z0-9_.-]{0,63}$, not beginning with "sluice.".
func ValidType(s string) bool {
	if s == "" || len(s) > 64 || s[0] < 'a' || s[0] > 'z' || strings.HasPrefix(s, "sluice.") {
		return false
	}
	for i := 1; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// Start says where a stream or a page begins in one room.
type Start struct {
	kind startKind
	at   Position // of fromPosition
	last int      // of fromLast
}

type startKind uint8

const (
	fromHead startKind = iota
	fromEarliest
	fromLast
	fromPosition
	fromBad
)

// Head starts behind the newest event.
func Head() Start { return Start{} }

// Earliest starts before the oldest event that is kept.
func Earliest() Start { return Start{kind: fromEarliest} }

// Last starts so that the newest n events come first, or as many as are kept.
func Last(n int) Start { return Start{kind: fromLast, last: max(0, n)} }

// At starts behind p.
func At(p Position) Start { return Start{kind: fromPosition, at: p} }

// badStart is where a cursor leads that cannot be read: to the head, behind a gap.
func badStart() Start { return Start{kind: fromBad} }

// ParseCursor turns a cursor into a start for each of rooms: "earliest",
// "latest", a position (for one room), or "roomA=<position>,roomB=<position>".
// A room that a composite cursor lacks starts at the head; rooms not asked for
// are ignored. ok is false where the cursor cannot be read: each start then
// leads to the head, behind a gap.
func ParseCursor(cursor string, rooms []string) (starts []Start, ok bool) {
	starts = make([]Start, len(rooms))
	switch {
	case cursor == "latest":
		return starts, true
	case cursor == "earliest":
		for i := range starts {
			starts[i] = Earliest()
		}
		return starts, true
	case len(cursor) <= MaxCursor && strings.Contains(cursor, "="):
		if at, ok := parseComposite(cursor); ok {
			for i, room := range rooms {
				if p, ok := at[room]; ok {
					starts[i] = At(p)
				}
			}
			return starts, true
		}
	case len(rooms) == 1:
		if p, ok := ParsePosition(cursor); ok {
			starts[0] = At(p)
			return starts, true
		}
	}
	for i := range starts {
		starts[i] = badStart()
	}
	return starts, false
}

func parseComposite(s string) (map[string]Position, bool) {
	at := map[string]Position{}
	for part := range strings.SplitSeq(s, ",") {
		room, position, ok := strings.Cut(part, "=")
		p, valid := ParsePosition(position)
		if _, twice := at[room]; !ok || !valid || twice || !ValidRoom(strings.TrimPrefix(room, "@")) {
			return nil, false
		}
		at[room] = p
	}
	return at, true
}

// appendCursor appends the composite cursor of rooms at their positions.
func appendCursor(b []byte, rooms []string, at func(i int) Position) []byte {
	for i, room := range rooms {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, room...)
		b = append(b, '=')
		b = at(i).append(b)
	}
	return b
}
