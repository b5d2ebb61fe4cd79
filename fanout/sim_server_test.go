package fanout

import (
	"slices"
	"strconv"
	"time"
)

// simServer is a Redis that has our three scripts built in. Rooms are values
// that do not change, so that every write can be undone: that is how a failover
// to a replica that was behind loses events. It is one with the truth (below):
// whatever was ever appended stays known to the checker.
type simServer struct {
	keep  Retention
	truth *simTruth

	pageBytes    int  // after which a page is long enough
	lineageBytes int  // that a lineage may have
	reuseEpoch   bool // a fault of our own: no new epoch after a restart

	run    string // replication id
	rooms  map[string]*simRoom
	keys   map[simKey]simKeyed
	undo   []func()
	runs   int
	epochs int
}

type simRoom struct {
	epoch    string
	seq      uint64
	run      string
	lineage  Lineage
	head     *simNode
	events   []*simNode // that the log has, consecutive; a few more than it is to keep
	logEnds  time.Time
	metaEnds time.Time
}

type simKey struct{ room, from, key string }

type simKeyed struct {
	fingerprint [32]byte
	receipt     Receipt
	expires     time.Time
}

func newSimServer(keep Retention) *simServer {
	return &simServer{
		keep:         keep.withDefaults(),
		truth:        newSimTruth(),
		pageBytes:    maxPageBytes,
		lineageBytes: 800,
		run:          "run0",
		rooms:        map[string]*simRoom{},
		keys:         map[simKey]simKeyed{},
	}
}

func (s *simServer) newEpoch() string {
	s.epochs++
	return "h" + strconv.Itoa(s.epochs)
}

// meta gives the room as it is now, nil if there is none.
func (s *simServer) meta(name string, now time.Time) *simRoom {
	r := s.rooms[name]
	if r == nil || now.After(r.metaEnds) {
		return nil
	}
	if now.After(r.logEnds) && len(r.events) > 0 {
		gone := *r
		gone.events = nil
		markGone(r.events)
		s.rooms[name] = &gone
		return &gone
	}
	return r
}

// set puts a room in place of what was there.
func (s *simServer) set(name string, r *simRoom) {
	old := s.rooms[name]
	s.undo = append(s.undo, func() { s.rooms[name] = old })
	s.rooms[name] = r
	s.truth.lineageChanged(lineageOf(old), lineageOf(r))
}

func lineageOf(r *simRoom) Lineage {
	if r == nil {
		return nil
	}
	return r.lineage
}

func (s *simServer) cap(l Lineage) Lineage {
	if len(l.String()) > s.lineageBytes {
		return l[1:]
	}
	return l
}

// checkKeys is what Redis.CheckKeys does.
func (s *simServer) checkKeys(room string, drafts []Draft, now time.Time) error {
	for i := range drafts {
		known, ok := s.keys[simKey{room, drafts[i].From, drafts[i].Key}]
		if drafts[i].Key != "" && ok && !now.After(known.expires) && known.fingerprint != fingerprint(&drafts[i]) {
			return &KeyReusedError{Index: i}
		}
	}
	return nil
}

// publish is publish.lua. What it returns besides is what it sends.
func (s *simServer) publish(room string, drafts []Draft, now time.Time) ([]Receipt, []Event, error) {
	keep := s.keep.of(room)
	receipts := make([]Receipt, len(drafts))
	for i := range drafts {
		d := &drafts[i]
		known, ok := s.keys[simKey{room, d.From, d.Key}]
		if d.Key == "" || !ok || now.After(known.expires) {
			continue
		}
		if known.fingerprint != fingerprint(d) {
			return nil, nil, &KeyReusedError{Index: i}
		}
		receipts[i] = known.receipt
		receipts[i].Replayed = true
	}
	old := s.meta(room, now)
	var r simRoom
	switch {
	case old == nil:
		epoch := s.newEpoch()
		r = simRoom{epoch: epoch, lineage: Lineage{{Epoch: epoch, Start: 1}}, head: s.truth.root(room)}
	case old.run != s.run && !s.reuseEpoch:
		r = *old
		r.epoch = s.newEpoch()
		r.lineage = s.cap(append(slices.Clone(old.lineage), Fork{Epoch: r.epoch, Start: old.seq + 1}))
	default:
		r = *old
	}
	r.run = s.run
	r.events = slices.Clone(r.events)
	var sent []Event
	for i := range drafts {
		if receipts[i].Replayed {
			continue
		}
		r.seq++
		e := newEvent(room, &drafts[i], now)
		e.Position = Position{r.epoch, r.seq}
		r.head = s.truth.append(r.head, e, &drafts[i])
		r.events = append(r.events, r.head)
		receipts[i] = Receipt{Position: e.Position, At: e.At}
		sent = append(sent, e)
	}
	if len(sent) == 0 {
		return receipts, nil, nil
	}
	for _, n := range r.events {
		n.gone = n.gone || n.pos.Seq+uint64(keep.Events) <= r.seq || n.pos.Seq < r.lineage[0].Start
	}
	if over := len(r.events) - keep.Events - 3; over > 0 {
		r.events = r.events[over:] // trimming is approximate
	}
	r.logEnds, r.metaEnds = now.Add(keep.Age), now.Add(keep.memory())
	s.set(room, &r)
	s.remember(room, drafts, receipts, now)
	return receipts, sent, nil
}

func (s *simServer) remember(room string, drafts []Draft, receipts []Receipt, now time.Time) {
	for i := range drafts {
		d := &drafts[i]
		if d.Key == "" || receipts[i].Replayed {
			continue
		}
		k := simKey{room, d.From, d.Key}
		// The key goes with its event: both are of one write.
		write := s.undo[len(s.undo)-1]
		s.undo[len(s.undo)-1] = func() { write(); delete(s.keys, k) }
		s.keys[k] = simKeyed{fingerprint(d), receipts[i], now.Add(s.keep.Keys)}
	}
}

// read is resume.lua.
func (s *simServer) read(room string, after int64, limit int, now time.Time) History {
	r := s.meta(room, now)
	if r == nil {
		return History{Extent: Extent{Oldest: 1}}
	}
	h := History{Extent: Extent{Lineage: slices.Clone(r.lineage), Head: r.seq, Oldest: r.seq + 1, Fenced: r.run != s.run}}
	first := r.seq - min(r.seq, uint64(s.keep.of(room).Events)) + 1
	for _, n := range r.events {
		if n.pos.Seq >= first {
			h.Oldest = n.pos.Seq
			break
		}
	}
	h.Oldest = max(h.Oldest, r.lineage[0].Start)
	if after < 0 {
		after = max(0, int64(r.seq)+after)
	}
	next, bytes := max(uint64(after)+1, h.Oldest), s.pageBytes
	for _, n := range r.events {
		if n.pos.Seq != next || limit <= 0 || bytes <= 0 {
			continue
		}
		h.Events = append(h.Events, n.event)
		next, limit, bytes = next+1, limit-1, bytes-20-len(n.event.Data)
	}
	return h
}

func (s *simServer) headOf(room string, now time.Time) Position {
	r := s.meta(room, now)
	if r == nil {
		return Origin
	}
	return Position{r.epoch, r.seq}
}

// purge is purge.lua. It says whether it sent word.
func (s *simServer) purge(room string, now time.Time) (Position, bool) {
	old := s.meta(room, now)
	if old == nil {
		return Origin, false
	}
	r := *old
	r.epoch, r.run = s.newEpoch(), s.run
	r.lineage = s.cap(append(slices.Clone(old.lineage), Fork{Epoch: r.epoch, Start: r.seq + 1, Purged: true}))
	r.metaEnds = now.Add(s.keep.memory())
	markGone(r.events)
	r.events = nil
	r.head = s.truth.purge(r.head, Position{r.epoch, r.seq})
	s.set(room, &r)
	return r.head.pos, true
}

func markGone(nodes []*simNode) {
	for _, n := range nodes {
		n.gone = true
	}
}

// restart gives the server a new life, without the last writes of the old one.
func (s *simServer) restart(lost int) {
	s.runs++
	s.run = "run" + strconv.Itoa(s.runs)
	for range min(lost, len(s.undo)) {
		before := s.lineages()
		s.undo[len(s.undo)-1]()
		s.undo = s.undo[:len(s.undo)-1]
		for name, l := range before {
			s.truth.lineageChanged(l, lineageOf(s.rooms[name]))
		}
	}
}

func (s *simServer) lineages() map[string]Lineage {
	all := map[string]Lineage{}
	for name, r := range s.rooms {
		all[name] = lineageOf(r)
	}
	return all
}

// wipe gives the server a new life with nothing of the old one.
func (s *simServer) wipe() {
	s.restart(0)
	for _, l := range s.lineages() {
		s.truth.lineageChanged(l, nil)
	}
	clear(s.rooms)
	clear(s.keys)
	s.undo = nil
}

// evict forgets a room, but not its keys; expire its events only, or the oldest n.
func (s *simServer) evict(room string) { s.set(room, nil) }

func (s *simServer) expire(room string, n int) {
	if r := s.rooms[room]; r != nil {
		less := *r
		n = min(n, len(r.events))
		markGone(r.events[:n])
		less.events = r.events[n:]
		s.set(room, &less)
	}
}
