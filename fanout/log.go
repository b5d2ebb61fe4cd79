package fanout

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// Log is where rooms are kept: Memory for one node, Redis for many. Both are
// held to one suite of tests.
type Log interface {
	// Append adds drafts to a room, in order, and sends them to every node that
	// follows it. What it returns is appended; if fewer than all are, err says
	// why, and nothing of the rest is. A key that was used with another body is
	// a *KeyReusedError, and nothing was written; ErrUnavailable may mean that
	// the last ones were written all the same, so that only drafts with a key
	// can be tried again without harm.
	Append(ctx context.Context, room string, drafts []Draft) ([]Receipt, error)

	// CheckKeys finds a key that was used with another body, as Append does for
	// its own room: for who writes to several rooms, and would write to some of
	// them before Append says so of another.
	CheckKeys(ctx context.Context, room string, drafts []Draft) error

	// Broadcast sends a draft to every node that follows the room, and keeps
	// nothing of it.
	Broadcast(ctx context.Context, room string, d Draft) (at int64, err error)

	// Read tells the extent of a room, and gives at most limit of its events
	// behind number after. A negative after counts back from the head. It may
	// give fewer than limit to keep an answer small, but at least one if
	// there is one.
	Read(ctx context.Context, room string, after int64, limit int) (History, error)

	// Heads gives the position of the newest event of each room.
	Heads(ctx context.Context, rooms []string) ([]Position, error)

	// Purge deletes a room's events and begins a new epoch, whose head it
	// returns; Origin if the room has no history.
	Purge(ctx context.Context, room string) (Position, error)

	// Rooms lists rooms that have a history, about limit at a time, in no
	// order. The first page is "", the last answers with next "".
	Rooms(ctx context.Context, page string, limit int) (rooms []string, next string, err error)

	Store
	Follower
	Attendant
}

// Follower is a log's way of telling a node what happens in the rooms that
// it has streams in.
type Follower interface {
	// Run feeds until ctx ends, which is the only error it returns. It is
	// called once.
	Run(ctx context.Context, feed Feed) error

	// Follow asks for a room's events, Unfollow no longer. Neither blocks.
	Follow(room string)
	Unfollow(room string)

	// Signal sends a message to all nodes, this one included, and says how
	// many there are.
	Signal(ctx context.Context, message []byte) (nodes int, err error)

	// DownSince says since when a room's part of the log is out of reach, or,
	// for "", all of it; zero if it is not. It does not block.
	DownSince(room string) time.Time
}

// Feed takes what a log tells. Its methods never block, and may be called by
// several at a time, but for one room by one.
type Feed interface {
	// Event is an event of a room that is followed, in the room's order. Some
	// may be missing: their numbers tell.
	Event(e Event)
	// Stale says that something happened to a room which only its log can tell.
	Stale(room string)
	// Following says that from here on the room's events come.
	Following(room string)
	// Lost says that rooms are not followed any more, until Following says it anew.
	Lost(rooms []string)
	// Link says that DownSince may have changed.
	Link()
	// Signal is a message that a node sent to all.
	Signal(message []byte)
}

// History is what a log tells of a room at one moment.
type History struct {
	Extent
	Events []Event // consecutive, oldest first
}

// ErrUnavailable says that the log cannot be reached, or cannot write.
var ErrUnavailable = errors.New("the log is out of reach")

// KeyReusedError says that an idempotency key came with another body before.
type KeyReusedError struct{ Index int } // of the draft

func (*KeyReusedError) Error() string {
	return "the idempotency key was used with another body"
}

// Retention says how much a log keeps of a room.
type Retention struct {
	Events int           // newest events; 1000 if zero
	Age    time.Duration // how long after the last one; 24 h if zero
	Keys   time.Duration // how long an idempotency key is remembered; 10 min if zero

	// Rooms says what is kept of a room, where that depends on it; nil where it
	// does not. What it leaves zero is as above.
	Rooms func(room string) Retention
}

// of is what is kept of a room, all of it said.
func (r Retention) of(room string) Retention {
	if r.Rooms == nil {
		return r.withDefaults()
	}
	own := r.Rooms(room)
	return Retention{
		Events: cmp.Or(own.Events, r.Events), Age: cmp.Or(own.Age, r.Age), Keys: cmp.Or(own.Keys, r.Keys),
	}.withDefaults()
}

func (r Retention) withDefaults() Retention {
	if r.Events <= 0 {
		r.Events = 1000
	}
	if r.Age <= 0 {
		r.Age = 24 * time.Hour
	}
	if r.Keys <= 0 {
		r.Keys = 10 * time.Minute
	}
	return r
}

// memory is how long a room's epoch and numbering outlive its events: longer
// than any key or event that refers to them, or a number would be given twice
// in one history.
func (r Retention) memory() time.Duration {
	return max(2*r.Age, r.Age+time.Minute, r.Keys+time.Minute)
}

// maxPageBytes is about how much data Read gives at once.
const maxPageBytes = 1 << 20
