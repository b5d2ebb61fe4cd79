package fanout

import (
	"cmp"
	"context"
	"encoding/json"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// Member is as whom the client of a stream is present in rooms.
type Member struct {
	User  string   // see ValidUser
	Info  []byte   // compact JSON that others are told of the user, at most MaxInfo bytes; nil for none
	Rooms []string // those of the stream's rooms in which it is present; all if nil
}

// MaxUser and MaxInfo are the most bytes that a user's name and info have.
const (
	MaxUser = 256
	MaxInfo = 1024
)

// ValidUser says whether s can name a member: 1 to MaxUser bytes of UTF-8
// without control characters.
func ValidUser(s string) bool {
	if s == "" || len(s) > MaxUser || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}

// PresenceOptions say when a user counts as gone. The zero value works.
type PresenceOptions struct {
	Grace time.Duration // how long a user may be without a stream before it leaves; 10 s if zero
	Lease time.Duration // how long the members of a node that is silent stay; 12.5 s if zero
	Renew time.Duration // how often a node renews its leases; 1.5 s if zero
	Names int           // in rooms with more members than that they are counted only; 1000 if zero
}

func (o PresenceOptions) withDefaults() PresenceOptions {
	o.Grace = cmp.Or(o.Grace, 10*time.Second)
	o.Lease = cmp.Or(o.Lease, 12500*time.Millisecond)
	o.Renew = cmp.Or(o.Renew, 1500*time.Millisecond)
	o.Names = cmp.Or(o.Names, 1000)
	return o
}

// calm is how long the log must have been in reach before this node judges
// others by their leases: after an outage all of them need a moment to return.
func (o PresenceOptions) calm() time.Duration { return o.Lease * 2 / 5 }

// Attendant is a log's part of presence. It keeps, for each room, the members
// on each node, under a lease that the node renews, and sends changes of who
// is in the room to all nodes that follow it.
type Attendant interface {
	// Attend takes what has changed of rooms' members on a node, and renews its
	// leases there. Each standing answers one attendance, with an error of its own.
	Attend(ctx context.Context, terms AttendTerms, rooms []Attendance) []Standing

	// Attended gives what the log keeps of a room's members on a node.
	Attended(ctx context.Context, node, room string) (members map[string]Attendee, revision string, err error)

	// Roster gives who is in a room; if they are more than names, how many only.
	Roster(ctx context.Context, room string, names int) (Roster, error)
}

// AttendTerms are what an attendance is judged by.
type AttendTerms struct {
	Node  string        // who attends; "" for somebody who only looks after the leases of others
	Lease time.Duration // of the node
	Names int           // in rooms with more members than that they are counted only
	Judge bool          // the members of nodes whose lease has run out leave
}

// Attendance is what a node tells of the members of one room on it.
type Attendance struct {
	Room     string
	Revision string // which the log is to have of it; "" if none
	Next     string // that which the changes make
	Changes  []Change
}

// Change is what has become of one user on a node.
type Change struct {
	User string
	Verb Verb
	Attendee
}

// Verb says what a change is.
type Verb string

// The verbs.
const (
	Came Verb = "set"  // the user is here, or its Attendee is another now
	Went Verb = "gone" // the user is no longer here, and its grace is over
	Left Verb = "bye"  // the user said so itself: no grace is due, here or elsewhere
)

// Attendee is a user on one node.
type Attendee struct {
	Streams int   // 0 in its grace
	At      int64 // when the stream opened that brought Info, in Unix milliseconds
	Info    []byte
}

// Version counts the changes of a room's roster. A new generation begins where
// the log cannot be sure that it still knows what it knew.
type Version struct {
	Generation string
	Number     uint64
}

// follows says that nothing came between v and w.
func (w Version) follows(v Version) bool {
	return w.Generation == v.Generation && w.Number == v.Number+1
}

// reaches says that w is v or comes after it.
func (w Version) reaches(v Version) bool {
	return w.Generation == v.Generation && w.Number >= v.Number
}

// Standing answers an attendance.
type Standing struct {
	Err      error
	Version  Version
	Count    int    // users in the room, on all nodes
	Refused  bool   // the log has another revision of what this node told, and changed nothing
	Revision string // that the log has now
	More     bool   // leases that have run out are left to look after
}

// Roster is who is in a room.
type Roster struct {
	Version
	Count   int
	Members []Present // nil if they are more than was asked for
	Lapsed  bool      // leases have run out, so that some of them may be gone
}

// Present is a user in a room.
type Present struct {
	User    string
	Info    []byte // JSON, nil for none
	Streams int    // on all nodes
	Since   int64  // Unix milliseconds
}

// Types of the events that members are told of each other.
const (
	typeJoin  = "sluice.join"
	typeLeave = "sluice.leave"
)

// movement is a change of who is in a room, as it travels from the log to the
// nodes, and then, as a frame without number, from the ring to members.
type movement struct {
	Version
	count int
	user  string // "" if only the count is known: too many are in the room
	info  []byte
}

// newMovement makes an event of a movement.
func newMovement(room string, joined bool, m *movement) Event {
	e := Event{Room: room, Type: typeLeave, JSON: true, movement: m}
	if joined {
		e.Type = typeJoin
	}
	return e
}

// tell completes the event of a movement with what members are told.
func (e *Event) tell(now time.Time) {
	m := e.movement
	b := append([]byte(nil), `{"room":"`...)
	b = append(b, e.Room...)
	b = append(b, '"')
	if m.user != "" {
		b = append(b, `,"user":`...)
		b = appendString(b, m.user)
		if len(m.info) > 0 {
			b = append(b, `,"info":`...)
			b = append(b, m.info...)
		}
	}
	b = append(b, `,"count":`...)
	b = strconv.AppendInt(b, int64(m.count), 10)
	e.Data, e.At = append(b, '}'), now.UnixMilli()
}

// toldOf says whether the stream is told of a movement: its client is a member
// of the room, and it is about somebody else.
func (s *Stream) toldOf(e *Event) bool {
	m := s.look.member
	return m != nil && m.in(e.Room) && m.User != e.movement.user
}

// checked gives m, as far as others can be told of it, or nil.
func (m *Member) checked() *Member {
	if m == nil || !ValidUser(m.User) {
		return nil
	}
	if validInfo(m.Info) {
		return m
	}
	return &Member{User: m.User, Rooms: m.Rooms}
}

func (m *Member) in(room string) bool {
	if m.Rooms == nil {
		return true
	}
	for _, r := range m.Rooms {
		if r == room {
			return true
		}
	}
	return false
}

// validInfo says whether b can be told to members as it is.
func validInfo(b []byte) bool {
	if len(b) > MaxInfo {
		return false
	}
	for _, c := range b {
		if c < ' ' {
			return false
		}
	}
	return len(b) == 0 || json.Valid(b) && utf8.Valid(b)
}
