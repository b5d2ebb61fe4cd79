package fanout

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"
)

// memoryRoster is who is in a room of a Memory log, which has one node, and
// so no leases.
type memoryRoster struct {
	Version
	revision string
	here     map[string]Attendee
	since    map[string]int64 // for each of here
}

// Attend implements Attendant.
func (m *Memory) Attend(_ context.Context, terms AttendTerms, rooms []Attendance) []Standing {
	m.mu.Lock()
	defer m.mu.Unlock()
	answers := make([]Standing, len(rooms))
	for i := range rooms {
		answers[i] = m.attendLocked(terms, &rooms[i])
	}
	return answers
}

func (m *Memory) attendLocked(terms AttendTerms, a *Attendance) Standing {
	r := m.rosters[a.Room]
	if r == nil {
		r = &memoryRoster{Version: Version{Generation: newEpoch()}, here: map[string]Attendee{}, since: map[string]int64{}}
		m.rosters[a.Room] = r
	}
	standing := func() Standing {
		return Standing{Version: r.Version, Count: len(r.here), Revision: r.revision}
	}
	if terms.Node == "" {
		return standing()
	}
	if r.revision != a.Revision {
		s := standing()
		s.Refused = true
		return s
	}
	if len(a.Changes) > 0 {
		r.revision = a.Next
	}
	for i := range a.Changes {
		m.changeLocked(terms, a.Room, r, &a.Changes[i])
	}
	if len(r.here) == 0 {
		r.revision = ""
		delete(m.rosters, a.Room)
	}
	return standing()
}

func (m *Memory) changeLocked(terms AttendTerms, room string, r *memoryRoster, c *Change) {
	was, here := r.here[c.User]
	switch {
	case c.Verb == Came:
		r.here[c.User] = c.Attendee
		if here {
			return
		}
		r.since[c.User] = time.Now().UnixMilli()
		was = c.Attendee
	case !here:
		return
	default:
		delete(r.here, c.User)
		delete(r.since, c.User)
	}
	r.Number++
	if m.feed == nil || !m.followed[room] {
		return
	}
	move := &movement{Version: r.Version, count: len(r.here), user: c.User, info: was.Info}
	if move.count > terms.Names {
		move.user, move.info = "", nil
	}
	m.feed.Event(newMovement(room, c.Verb == Came, move))
}

// Attended implements Attendant.
func (m *Memory) Attended(_ context.Context, _, room string) (map[string]Attendee, string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := map[string]Attendee{}
	r := m.rosters[room]
	if r == nil {
		return kept, "", nil
	}
	for user, a := range r.here {
		kept[user] = a
	}
	return kept, r.revision, nil
}

// Roster implements Attendant.
func (m *Memory) Roster(_ context.Context, room string, names int) (Roster, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.rosters[room]
	if r == nil {
		return Roster{Members: []Present{}}, nil
	}
	roster := Roster{Version: r.Version, Count: len(r.here)}
	if roster.Count > names {
		return roster, nil
	}
	roster.Members = make([]Present, 0, len(r.here))
	for user, a := range r.here {
		roster.Members = append(roster.Members, Present{User: user, Info: a.Info, Streams: a.Streams, Since: r.since[user]})
	}
	sortPresent(roster.Members)
	return roster, nil
}

// sortPresent puts those first who have been here longest.
func sortPresent(members []Present) {
	slices.SortFunc(members, func(a, b Present) int {
		return cmp.Or(cmp.Compare(a.Since, b.Since), strings.Compare(a.User, b.User))
	})
}
