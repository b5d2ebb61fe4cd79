package fanout

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Reason says why a stream could not go on where it was.
type Reason string

// The reasons of a gap. The first four answer a cursor, the others befall a
// stream that is open; purged is both.
const (
	ReasonTrimmed    Reason = "trimmed"     // the log no longer keeps what comes next
	ReasonTruncated  Reason = "truncated"   // the log lost its end, and went on differently from there
	ReasonNewHistory Reason = "new_history" // the room's history is not the one of the cursor
	ReasonBadCursor  Reason = "bad_cursor"  // the cursor cannot be read, or lies beyond the head
	ReasonPurged     Reason = "purged"      // somebody emptied the room
	ReasonOutage     Reason = "outage"      // this node was cut off for longer than the log keeps events
)

// Lineage tells how a room's history came about: the epochs that it went
// through, oldest first, and where each began. A new epoch begins where the
// log cannot be sure that it still has what it had, at a restart or a
// failover, and where somebody purged the room.
type Lineage []Fork

// Fork is the beginning of an epoch: its first event has the number Start.
type Fork struct {
	Epoch  string
	Start  uint64
	Purged bool // what was before Start was deleted on purpose
}

// maxLineage is more bytes than any log keeps of a lineage.
const maxLineage = 4 << 10

// ParseLineage reads the form in which logs keep it, "e1:1,e2:501,e3:700p".
func ParseLineage(s string) (Lineage, error) {
	if len(s) > maxLineage {
		return nil, fmt.Errorf("lineage: %d bytes are too many", len(s))
	}
	var l Lineage
	for part := range strings.SplitSeq(s, ",") {
		epoch, start, ok := strings.Cut(part, ":")
		digits, purged := strings.CutSuffix(start, "p")
		n, err := strconv.ParseUint(digits, 10, 64)
		if !ok || err != nil || n == 0 || !validEpoch(epoch) {
			return nil, fmt.Errorf("lineage: cannot read %q", part)
		}
		if len(l) > 0 && n < l[len(l)-1].Start {
			return nil, fmt.Errorf("lineage: %q begins before what it follows", part)
		}
		if slices.ContainsFunc(l, func(f Fork) bool { return f.Epoch == epoch }) {
			return nil, fmt.Errorf("lineage: %q has the epoch of an earlier one", part)
		}
		l = append(l, Fork{Epoch: epoch, Start: n, Purged: purged})
	}
	return l, nil
}

// String gives the form that ParseLineage reads.
func (l Lineage) String() string {
	var b strings.Builder
	for i, f := range l {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:%d", f.Epoch, f.Start)
		if f.Purged {
			b.WriteByte('p')
		}
	}
	return b.String()
}

// Position gives seq the epoch that it belongs to. Just before a purge it is
// the new epoch: there the old one no longer leads anywhere.
func (l Lineage) Position(seq uint64) Position {
	if len(l) == 0 {
		return Origin
	}
	epoch := l[0].Epoch
	for _, f := range l {
		if f.Start <= seq || f.Purged && f.Start == seq+1 {
			epoch = f.Epoch
		}
	}
	return Position{Epoch: epoch, Seq: seq}
}

// Extent is what is known of a room's history.
type Extent struct {
	Lineage Lineage // empty: no history yet
	Head    uint64  // number of the newest event
	Oldest  uint64  // number of the oldest event kept; Head+1 if none is
	Fenced  bool    // the log's server has restarted or changed since the newest event, and may have lost what came after it
}

// HeadPosition is the position of the newest event, or Origin.
func (x Extent) HeadPosition() Position {
	if len(x.Lineage) == 0 {
		return Origin
	}
	return Position{Epoch: x.Lineage[len(x.Lineage)-1].Epoch, Seq: x.Head}
}

// OldestPosition is the position of the oldest event kept; the head's if none is.
func (x Extent) OldestPosition() Position {
	if x.Oldest > x.Head || x.Oldest == 0 {
		return x.HeadPosition()
	}
	return x.Lineage.Position(x.Oldest)
}

// Resolution is where a Start leads to in a room.
type Resolution struct {
	From   uint64   // the next event is From+1
	Own    Position // the position to tell the client that it starts from
	Reason Reason   // of the gap that comes first; "" if there is none
	Missed int64    // events that are gone; -1 if nobody can tell
}

// Resolve says where start leads to. It is the one place that decides what a
// cursor is worth.
func (x Extent) Resolve(start Start) Resolution {
	switch start.kind {
	case fromHead:
		return x.silent(x.Head)
	case fromEarliest:
		return x.silent(x.Oldest - 1)
	case fromLast:
		from := x.Head - min(x.Head, uint64(start.last))
		return x.silent(max(from, x.Oldest-1))
	case fromBad:
		return Resolution{From: x.Head, Own: x.HeadPosition(), Reason: ReasonBadCursor, Missed: -1}
	}
	common, reason := x.follow(start.at)
	from, missed := common, int64(-1)
	if reason == "" || reason == ReasonTruncated {
		// Purges, and trimming, may have taken what came next.
		seen := reason == "" // all that start.at stands for is a part of this history
		for _, f := range x.Lineage {
			if f.Purged && f.Start > from && !x.reached(start.at, f) {
				from, reason = f.Start-1, ReasonPurged
			}
		}
		if from+1 < x.Oldest {
			from, reason = x.Oldest-1, cmp.Or(reason, ReasonTrimmed)
		}
		if seen {
			missed = int64(from - common)
		}
	}
	return Resolution{From: from, Own: start.at, Reason: reason, Missed: missed}
}

func (x Extent) silent(from uint64) Resolution {
	own := x.Lineage.Position(from)
	if from == x.Head {
		own = x.HeadPosition()
	}
	return Resolution{From: from, Own: own}
}

// reached says that p was given out in the epoch of f or in a later one.
func (x Extent) reached(p Position, f Fork) bool {
	behind := false
	for _, g := range x.Lineage {
		behind = behind || g == f
		if behind && g.Epoch == p.Epoch {
			return true
		}
	}
	return false
}

// follow finds where the history of p leaves off in this one.
func (x Extent) follow(p Position) (from uint64, reason Reason) {
	if p == Origin {
		return 0, ""
	}
	for i, f := range x.Lineage {
		if f.Epoch != p.Epoch {
			continue
		}
		if i+1 < len(x.Lineage) {
			if last := x.Lineage[i+1].Start - 1; p.Seq > last {
				return last, ReasonTruncated
			}
			return p.Seq, ""
		}
		if p.Seq <= x.Head {
			return p.Seq, ""
		}
		if x.Fenced {
			return x.Head, ReasonTruncated
		}
		return x.Head, ReasonBadCursor
	}
	return x.Oldest - 1, ReasonNewHistory
}
