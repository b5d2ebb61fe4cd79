package fanout

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// presence is a node's part in who is in which room.
//
//	Open, close -> attendance -> Attendant.Attend -> the log -> every node that follows
//	the room: Hub.Event -> attendance -> the ring -> members' streams
//
// For each room that has members here it holds an attendance
// (presence_room.go), which knows the users here and what they were told of
// all others (presence_roster.go). One goroutine tells the log what has changed
// and renews leases; what changes meanwhile goes with the next round, all rooms
// together, so that a herd costs no more round trips than one client.
type presence struct {
	hub  *Hub
	opt  PresenceOptions
	node string
	wake chan struct{} // has a token when touched is not empty

	mu      sync.Mutex // guards the fields below; taken after an attendance's lock, never before
	rooms   map[string]*attendance
	touched map[*attendance]struct{} // have something to do at once
	shook   time.Time                // when the link to the log was lost or came back last
	parted  []parted                 // streams that have ended within the grace, the oldest first

	// The fields below belong to run.
	failing bool      // the last round did not get through
	pause   time.Time // until when no round is begun
}

// parted is a member's stream that has ended, whose client may say yet that it left.
type parted struct {
	stream, user string
	rooms        []string
	at           time.Time
}

const (
	announceWait  = time.Second // how long a stream's opening waits until others can see its user
	attendAtOnce  = 500         // rooms told of in one exchange
	changesAtOnce = 200         // users told of in one room at once
)

func newPresence(h *Hub, opt PresenceOptions) *presence {
	return &presence{
		hub:     h,
		opt:     opt.withDefaults(),
		node:    newEpoch(),
		wake:    make(chan struct{}, 1),
		rooms:   map[string]*attendance{},
		touched: map[*attendance]struct{}{},
		shook:   time.Now(),
	}
}

// enter makes a stream's client present in its rooms, and waits a moment until
// everybody who asks can see that.
func (p *presence) enter(ctx context.Context, s *Stream) {
	m := s.look.member
	if m == nil {
		return
	}
	var told []<-chan struct{}
	for i := range s.seats() {
		room := s.seat(i).room.name
		if !m.in(room) {
			continue
		}
		done := p.enterRoom(room, m)
		if p.hub.log.DownSince(room).IsZero() { // else it is told when the log is back
			told = append(told, done)
		}
	}
	timer := time.NewTimer(announceWait)
	defer timer.Stop()
	for _, done := range told {
		select {
		case <-done:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case <-p.hub.ctx.Done():
			return
		}
	}
}

func (p *presence) enterRoom(room string, m *Member) (told <-chan struct{}) {
	for {
		p.mu.Lock()
		a := p.rooms[room]
		if a == nil {
			a = newAttendance(p, room)
			p.rooms[room] = a
		}
		p.mu.Unlock()
		if told, ok := a.enter(m); ok {
			return told
		}
		// It was just given up, for another to take its place.
	}
}

// exit ends what enter began. Who said goodbye leaves at once, and so does who
// was sent away for good; everybody else may come back within the grace.
func (p *presence) exit(s *Stream) {
	m := s.look.member
	if m == nil {
		return
	}
	left := parted{stream: s.ID(), user: m.User, at: time.Now()}
	for i := range s.seats() {
		if room := s.seat(i).room.name; m.in(room) {
			left.rooms = append(left.rooms, room)
		}
	}
	p.mu.Lock()
	p.parted = append(p.parted, left)
	p.mu.Unlock()
	reason := s.ending() // asked for only now, so that a goodbye is found here or finds what was just written
	atOnce := reason == ByeLeft || reason == ByeRevoked
	for _, room := range left.rooms {
		if a := p.attendance(room); a != nil {
			a.exit(m.User, atOnce)
		}
	}
}

// goodbye ends the grace after a stream whose end was noticed before its client
// could say that it leaves: a browser that closes a page cuts the connection and
// sends word on another, and either may come first.
func (p *presence) goodbye(stream string) {
	p.mu.Lock()
	i := slices.IndexFunc(p.parted, func(left parted) bool { return left.stream == stream })
	var left parted
	if i >= 0 {
		left = p.parted[i]
	}
	p.mu.Unlock()
	for _, room := range left.rooms {
		if a := p.attendance(room); a != nil {
			a.leave(left.user)
		}
	}
}

func (p *presence) attendance(room string) *attendance {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rooms[room]
}

// members counts the users who are in rooms through this node.
func (p *presence) members() (n int64) {
	p.mu.Lock()
	rooms := slices.Collect(maps.Values(p.rooms))
	p.mu.Unlock()
	for _, a := range rooms {
		a.mu.Lock()
		n += int64(len(a.here))
		a.mu.Unlock()
	}
	return n
}

// touch has the next round look at a.
func (p *presence) touch(a *attendance) {
	p.mu.Lock()
	p.touched[a] = struct{}{}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// remove forgets an attendance. Its lock is held.
func (p *presence) remove(a *attendance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.rooms, a.room)
	delete(p.touched, a)
}

// moved takes word from the log that somebody came or went. It does not block.
func (p *presence) moved(e *Event) {
	if a := p.attendance(e.Room); a != nil {
		a.moved(e, time.Now())
	}
}

// stale says that word may have been missed of a room. It does not block.
func (p *presence) stale(room string) {
	if a := p.attendance(room); a != nil {
		a.mistrust()
	}
}

// shaken says that the link to the log was lost, or is back. It does not block.
func (p *presence) shaken() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shook = time.Now()
}

// calm says that this node may judge others by their leases.
func (p *presence) calm(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Sub(p.shook) >= p.opt.calm()
}

// run goes round until the hub ends.
func (p *presence) run() {
	ticker := time.NewTicker(max(p.opt.Renew/6, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-p.hub.ctx.Done():
			p.part()
			return
		case <-ticker.C:
			if now := time.Now(); !now.Before(p.pause) {
				p.round(p.hub.ctx, p.all())
			}
		case <-p.wake:
			if now := time.Now(); !now.Before(p.pause) {
				p.round(p.hub.ctx, p.take())
			}
		}
	}
}

func (p *presence) all() []*attendance {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.touched)
	for len(p.parted) > 0 && time.Since(p.parted[0].at) > p.opt.Grace {
		p.parted = p.parted[1:]
	}
	rooms := make([]*attendance, 0, len(p.rooms))
	for _, a := range p.rooms {
		rooms = append(rooms, a)
	}
	return rooms
}

func (p *presence) take() []*attendance {
	p.mu.Lock()
	defer p.mu.Unlock()
	rooms := make([]*attendance, 0, len(p.touched))
	for a := range p.touched {
		rooms = append(rooms, a)
	}
	clear(p.touched)
	return rooms
}

// round tells the log what has changed in rooms, renews the leases that are
// due, and reads what cannot be known otherwise.
func (p *presence) round(ctx context.Context, rooms []*attendance) {
	begun := time.Now()
	err := p.attend(ctx, begun, rooms)
	for _, a := range rooms {
		// Reading must not keep leases from being renewed.
		if err == nil && time.Since(begun) < p.opt.Renew/2 {
			err = a.read(ctx)
		}
		a.finish()
	}
	if err != nil && ctx.Err() == nil {
		p.pause = time.Now().Add(p.opt.Renew / 6)
		if !p.failing {
			p.hub.opt.Logger.Warn("could not tell who is present; trying again", "error", err)
		}
	}
	p.failing = err != nil
}

// attend sends what is due of rooms to the log.
func (p *presence) attend(ctx context.Context, now time.Time, rooms []*attendance) (failed error) {
	terms := p.terms(now)
	var due []*attendance
	var calls []Attendance
	send := func() {
		for i, standing := range p.hub.log.Attend(ctx, terms, calls) {
			due[i].settle(&calls[i], standing)
			if standing.Err != nil {
				failed = standing.Err
			}
		}
		due, calls = due[:0], calls[:0]
	}
	for _, a := range rooms {
		call, ok := a.prepare(now)
		if !ok {
			continue
		}
		due, calls = append(due, a), append(calls, call)
		if len(calls) == attendAtOnce {
			send()
		}
	}
	if len(calls) > 0 {
		send()
	}
	return failed
}

func (p *presence) terms(now time.Time) AttendTerms {
	return AttendTerms{Node: p.node, Lease: p.opt.Lease, Names: p.opt.Names, Judge: p.calm(now)}
}

// part is a node's last word: who has no stream any more. The leases go on
// for their time, so that whoever comes back on another node has not left.
func (p *presence) part() {
	ctx, cancel := context.WithTimeout(context.Background(), announceWait)
	defer cancel()
	_ = p.attend(ctx, time.Now(), p.all()) // if it fails, the leases end all the same
}

// Members gives who is in a room, on all nodes.
func (h *Hub) Members(ctx context.Context, room string) (Roster, error) {
	if !h.log.DownSince(room).IsZero() {
		return Roster{}, ErrUnavailable
	}
	p := h.presence
	roster, err := h.log.Roster(ctx, room, p.opt.Names)
	if err != nil || !roster.Lapsed || !p.calm(time.Now()) {
		return roster, err
	}
	// Nobody who has members in the room has seen it yet, perhaps as there is nobody.
	terms := AttendTerms{Lease: p.opt.Lease, Names: p.opt.Names, Judge: true}
	for more := true; more && err == nil; {
		standing := h.log.Attend(ctx, terms, []Attendance{{Room: room}})[0]
		more, err = standing.More, standing.Err
	}
	if err != nil {
		return Roster{}, err
	}
	return h.log.Roster(ctx, room, p.opt.Names)
}
