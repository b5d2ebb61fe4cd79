package fanout

import (
	"maps"
	"slices"
	"time"
)

// roster is what this node's members of a room were told of who is in it. Like
// a room's ring it follows a log: the next change is passed on, an old one is
// dropped, and anything else makes it stale, so that the list is read and
// compared with what was told. So nobody is told of a join or leave twice, and
// nobody misses one for long, whatever became of the messages.
//
// In a room with more than Options.Presence.Names members nobody is named:
// only the count is kept, and told at most once a second.
type roster struct {
	known   bool // the list was read
	stale   bool // and must be read again
	Version Version
	users   map[string][]byte // and their info; nil in a crowd
	crowd   bool
	count   int // in a crowd

	seen  Version              // of a change that did not follow
	owed  Version              // that the log was at, when the lease was renewed last
	doubt map[string]time.Time // users whom a new generation does not know: until when they may be told to it again

	toldCount int // in a crowd
	toldAt    time.Time
	readAt    time.Time // when the list was read
}

// wanted says that the list must be read; of a crowd, not all the time.
func (r *roster) wanted(now time.Time) bool {
	return !r.known || r.stale && (!r.crowd || now.Sub(r.readAt) >= crowdPause)
}

// crowdPause is how long a crowd is told nothing between two counts.
const crowdPause = time.Second

// mistrust says that changes may have been missed.
func (a *attendance) mistrust() {
	a.mu.Lock()
	listening := a.listeners > 0
	a.roster.stale = true
	a.mu.Unlock()
	if listening {
		a.p.touch(a)
	}
}

// owe notes which version the log is at. Word of it is on its way; if it has
// not come when the lease is renewed again, it will not.
func (r *roster) owe(v Version) {
	if !r.known {
		return
	}
	if r.owed.Generation != "" && !r.Version.reaches(r.owed) {
		r.stale = true
	}
	r.owed = Version{}
	if !r.Version.reaches(v) {
		r.owed = v
	}
}

// moved takes word that somebody came or went.
func (a *attendance) moved(e *Event, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, m := &a.roster, e.movement
	switch {
	case a.listeners == 0:
	case !r.known:
		r.seen = m.Version // the list that is being read may be older
	case r.Version.reaches(m.Version):
		// Known from the list already.
	case m.user == "" && m.count > a.p.opt.Names:
		r.Version = m.Version
		a.crowdLocked(m.count)
	case m.user == "" || r.crowd || !m.follows(r.Version):
		r.stale, r.seen = true, m.Version
		r.count = m.count
		a.p.touch(a)
	default:
		r.Version = m.Version
		a.applyLocked(e, now)
	}
}

// crowdLocked goes on with a count.
func (a *attendance) crowdLocked(count int) {
	r := &a.roster
	if !r.crowd {
		r.crowd, r.toldCount = true, len(r.users)
		r.users, r.doubt = nil, nil
	}
	r.count = count
}

// applyLocked makes a change, and tells it to members if it is one to them.
func (a *attendance) applyLocked(e *Event, now time.Time) {
	r, m := &a.roster, e.movement
	info, here := r.users[m.user]
	delete(r.doubt, m.user)
	if e.Type == typeJoin {
		r.users[m.user] = m.info
		if here {
			return
		}
	} else {
		if u := a.here[m.user]; u != nil && u.Streams > 0 {
			// Others took this node for dead. The log is about to be told better, and
			// who is here need not hear that somebody beside them has left.
			return
		}
		delete(r.users, m.user)
		if !here {
			return
		}
		if m.info == nil {
			m.info = info
		}
	}
	m.count = len(r.users)
	a.tellLocked(e, now)
}

func (a *attendance) tellLocked(e *Event, now time.Time) {
	e.tell(now)
	if r := a.p.hub.room(a.room); r != nil {
		r.event(*e)
	}
}

// adopt takes the list that was read, and tells members what is new in it.
func (a *attendance) adopt(got Roster, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := &a.roster
	if a.listeners == 0 || r.known && got.Generation == r.Version.Generation && got.Number < r.Version.Number {
		r.stale = true // changes came meanwhile that it does not have
		return
	}
	other := got.Generation != r.Version.Generation
	quiet := !r.known || r.crowd
	r.known, r.Version, r.owed, r.readAt = true, got.Version, Version{}, now
	r.stale = r.stale || r.seen.Generation != "" && !got.reaches(r.seen)
	switch {
	case got.Members == nil:
		first := quiet && !r.crowd
		a.crowdLocked(got.Count)
		if first {
			r.toldCount = got.Count // who opens a stream asks for the count itself
		}
	case quiet:
		if r.crowd {
			a.countLocked(got.Count, now)
		}
		r.crowd, r.users, r.doubt = false, named(got.Members), nil
	default:
		a.differLocked(got.Members, other, now)
	}
}

func named(members []Present) map[string][]byte {
	users := make(map[string][]byte, len(members))
	for _, p := range members {
		users[p.User] = p.Info
	}
	return users
}

// differLocked tells what a list has that members were not told, and what it
// has no more, in the order in which they came. In another generation not everybody is to be found yet: nodes
// must first tell the log anew, for which they have as long as a lease.
func (a *attendance) differLocked(members []Present, other bool, now time.Time) {
	r := &a.roster
	list := named(members)
	for _, user := range slices.Sorted(maps.Keys(r.users)) {
		_, doubted := r.doubt[user]
		switch _, here := list[user]; {
		case here:
			delete(r.doubt, user)
		case other:
			if r.doubt == nil {
				r.doubt = map[string]time.Time{}
			}
			r.doubt[user] = now.Add(a.p.opt.Lease + a.p.opt.Renew)
		case !doubted:
			a.applyLocked(a.changed(typeLeave, user, r.users[user]), now)
		}
	}
	for _, p := range members {
		a.applyLocked(a.changed(typeJoin, p.User, p.Info), now)
	}
}

func (a *attendance) changed(name, user string, info []byte) *Event {
	e := newMovement(a.room, name == typeJoin, &movement{user: user, info: info})
	return &e
}

// tick does what is due by the clock. The lock is held.
func (a *attendance) tick(now time.Time) {
	r := &a.roster
	for user, until := range r.doubt {
		if now.After(until) {
			a.applyLocked(a.changed(typeLeave, user, r.users[user]), now)
		}
	}
	if r.crowd && now.Sub(r.toldAt) >= crowdPause {
		a.countLocked(r.count, now)
	}
}

// countLocked tells how many there are in a crowd, if they are not as many as before.
func (a *attendance) countLocked(count int, now time.Time) {
	r := &a.roster
	if count == r.toldCount {
		return
	}
	e := newMovement(a.room, count > r.toldCount, &movement{count: count})
	r.toldCount, r.toldAt = count, now
	a.tellLocked(&e, now)
}
