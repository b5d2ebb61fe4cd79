package fanout

import (
	"bytes"
	"context"
	"sync"
	"time"
)

// attendance is who is in a room through this node. What the log is to know of
// a user is always the whole of it, never a difference, so that it does not
// matter how often it was told; and each telling builds on the revision that
// the one before has made, so that one which comes late changes nothing.
type attendance struct {
	p    *presence
	room string

	mu        sync.Mutex // guards the fields below
	here      map[string]*attendee
	absent    map[string]struct{} // those of here in their grace
	dirty     map[string]Verb     // users of whom the log is to be told; the verb is for those who are not here
	listeners int                 // streams of members
	roster    roster              // what these were told
	revision  string              // that the log has
	strange   bool                // the log has another revision, so that it must be read
	due       time.Time           // when the lease is to be renewed
	waiting   []chan struct{}     // closed when all of dirty is told, and roster is known
	closed    bool                // given up: another may take its place
}

// attendee is a user with streams on this node, or in the grace after the last one.
type attendee struct {
	Attendee
	since time.Time // since when it has no stream
	left  bool      // it has no grace
	told  bool      // the log knows of it
}

func newAttendance(p *presence, room string) *attendance {
	return &attendance{p: p, room: room, here: map[string]*attendee{}, absent: map[string]struct{}{}, dirty: map[string]Verb{}}
}

// enter adds a stream of m. The channel is closed when the log and the roster
// know of it. It says no if the attendance is given up.
func (a *attendance) enter(m *Member) (told <-chan struct{}, ok bool) {
	done := make(chan struct{})
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil, false
	}
	u := a.here[m.User]
	if u == nil {
		u = &attendee{}
		a.here[m.User] = u
		a.p.hub.stats.Joined.Add(1)
	}
	u.Streams++
	u.At, u.Info = time.Now().UnixMilli(), m.Info
	u.left = false
	delete(a.absent, m.User)
	a.listeners++
	a.dirty[m.User] = Went
	if u.told && a.roster.known {
		close(done)
	} else {
		a.waiting = append(a.waiting, done)
	}
	a.mu.Unlock()
	a.p.touch(a)
	return done, true
}

// exit takes a stream of the user away.
func (a *attendance) exit(user string, atOnce bool) {
	a.mu.Lock()
	u := a.here[user]
	if u == nil {
		a.mu.Unlock()
		return
	}
	u.Streams--
	if u.Streams == 0 {
		u.since, u.left = time.Now(), atOnce
		a.absent[user] = struct{}{}
	}
	a.listeners--
	if a.listeners == 0 {
		a.roster = roster{}
	}
	a.dirty[user] = Went
	a.mu.Unlock()
	a.p.touch(a)
}

// leave ends the user's grace, if it is in one.
func (a *attendance) leave(user string) {
	a.mu.Lock()
	if _, ok := a.absent[user]; ok {
		a.here[user].left = true
	}
	a.mu.Unlock()
	a.p.touch(a)
}

// prepare gives what the log is to be told now.
func (a *attendance) prepare(now time.Time) (call Attendance, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for user := range a.absent {
		u := a.here[user]
		switch {
		case u.left:
			a.dirty[user] = Left
		case now.Sub(u.since) >= a.p.opt.Grace:
			a.dirty[user] = Went
		default:
			continue
		}
		delete(a.absent, user)
		delete(a.here, user)
		a.p.hub.stats.Left.Add(1)
	}
	a.tick(now)
	if a.closed || a.strange || len(a.dirty) == 0 && now.Before(a.due) {
		return Attendance{}, false
	}
	call = Attendance{Room: a.room, Revision: a.revision, Next: a.revision}
	for user, verb := range a.dirty {
		if len(call.Changes) == changesAtOnce {
			break
		}
		c := Change{User: user, Verb: verb}
		if u := a.here[user]; u != nil {
			c.Verb, c.Attendee = Came, u.Attendee
		}
		call.Changes = append(call.Changes, c)
		delete(a.dirty, user)
	}
	if len(call.Changes) > 0 {
		call.Next = newEpoch()
	}
	return call, true
}

// settle takes the log's answer.
func (a *attendance) settle(call *Attendance, s Standing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.Err != nil || s.Refused {
		// If it was done all the same, the revision shows, and the log is read.
		for _, c := range call.Changes {
			if _, newer := a.dirty[c.User]; !newer {
				a.dirty[c.User] = c.Verb.absent()
			}
		}
		a.strange = a.strange || s.Refused
		return
	}
	a.revision = s.Revision
	for _, c := range call.Changes {
		if u := a.here[c.User]; u != nil {
			u.told = c.Verb == Came
		}
	}
	a.due = time.Now().Add(a.p.opt.Renew)
	if s.More {
		a.due = time.Time{}
	}
	a.roster.owe(s.Version)
}

// absent is the verb for a user who is not here, should it not be any more.
func (v Verb) absent() Verb {
	if v == Left {
		return Left
	}
	return Went
}

// read reads from the log what it has of this node, if that is in doubt, and
// who is in the room, if those who are here are to be told.
func (a *attendance) read(ctx context.Context) error {
	a.mu.Lock()
	strange, wanted := a.strange, a.listeners > 0 && !a.strange && a.roster.wanted(time.Now())
	if wanted {
		a.roster.stale, a.roster.seen = false, Version{}
	}
	a.mu.Unlock()
	if strange {
		kept, revision, err := a.p.hub.log.Attended(ctx, a.p.node, a.room)
		if err != nil {
			return err
		}
		a.compare(kept, revision)
	}
	if wanted {
		got, err := a.p.hub.log.Roster(ctx, a.room, a.p.opt.Names)
		if err != nil {
			a.mistrust()
			return err
		}
		a.adopt(got, time.Now())
	}
	return nil
}

// compare finds out what to tell a log that has something else than it was told.
func (a *attendance) compare(kept map[string]Attendee, revision string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revision, a.strange = revision, false
	for user := range kept {
		if a.here[user] == nil {
			a.dirty[user] = a.dirty[user].absent()
		}
	}
	for user, u := range a.here {
		k, known := kept[user]
		u.told = known
		if !known || k.Streams != u.Streams || k.At != u.At || !bytes.Equal(k.Info, u.Info) {
			a.dirty[user] = Went
		}
	}
}

// finish ends a round: it releases those who wait, and gives up an attendance
// that nobody is left of.
func (a *attendance) finish() {
	a.mu.Lock()
	defer a.mu.Unlock()
	settled := len(a.dirty) == 0 && !a.strange
	if settled && (a.roster.known || a.listeners == 0) {
		for _, done := range a.waiting {
			close(done)
		}
		a.waiting = nil
	}
	if settled && len(a.here) == 0 && a.revision == "" && !a.closed {
		a.closed = true
		a.p.remove(a)
	}
	if !settled || a.due.IsZero() && !a.closed || a.listeners > 0 && a.roster.wanted(time.Now()) {
		a.p.touch(a)
	}
}
