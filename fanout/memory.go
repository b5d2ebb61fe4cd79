package fanout

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// Memory is a log in this process: the whole of a gateway of one node. It
// starts empty; what it held is gone when the process ends, which clients that
// come back are told by a gap. Use NewMemory.
type Memory struct {
	memoryStore
	keep Retention

	mu       sync.Mutex // guards the fields below; feed is called under it, so that events keep their order
	rooms    map[string]*memoryRoom
	keys     map[memoryKey]keyed
	followed map[string]bool
	rosters  map[string]*memoryRoster
	feed     Feed // nil until Run
}

type memoryRoom struct {
	lineage Lineage
	head    uint64
	events  []Event // the newest, consecutive up to head
	expires time.Time
	forget  time.Time // when even the numbering goes
}

type memoryKey struct{ room, from, key string }

type keyed struct {
	fingerprint [sha256.Size]byte
	receipt     Receipt
	expires     time.Time
}

// NewMemory gives an empty log.
func NewMemory(keep Retention) *Memory {
	return &Memory{
		keep:     keep.withDefaults(),
		rooms:    map[string]*memoryRoom{},
		keys:     map[memoryKey]keyed{},
		followed: map[string]bool{},
		rosters:  map[string]*memoryRoster{},
	}
}

// Run implements Follower. It also forgets what is past its time.
func (m *Memory) Run(ctx context.Context, feed Feed) error {
	m.mu.Lock()
	m.feed = feed
	for room := range m.followed {
		feed.Following(room)
	}
	m.mu.Unlock()
	sweep := time.NewTicker(min(m.keep.Age, time.Minute))
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-sweep.C:
			m.sweep()
		}
	}
}

func (m *Memory) sweep() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for name, r := range m.rooms {
		if now.After(r.expires) {
			r.events = nil
		}
		if now.After(r.forget) {
			delete(m.rooms, name)
		}
	}
	for k, v := range m.keys {
		if now.After(v.expires) {
			delete(m.keys, k)
		}
	}
}

// Follow implements Follower.
func (m *Memory) Follow(room string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.followed[room] = true
	if m.feed != nil {
		m.feed.Following(room)
	}
}

// Unfollow implements Follower.
func (m *Memory) Unfollow(room string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.followed, room)
}

// DownSince implements Follower: it is never out of reach.
func (m *Memory) DownSince(string) time.Time { return time.Time{} }

// Signal implements Follower.
func (m *Memory) Signal(_ context.Context, message []byte) (nodes int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.feed == nil {
		return 0, nil
	}
	m.feed.Signal(message)
	return 1, nil
}

// Append implements Log.
func (m *Memory) Append(_ context.Context, room string, drafts []Draft) ([]Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if err := m.checkLocked(room, drafts, now); err != nil {
		return nil, err
	}
	receipts := make([]Receipt, 0, len(drafts))
	for i := range drafts {
		receipts = append(receipts, m.appendLocked(room, &drafts[i], now))
	}
	return receipts, nil
}

// CheckKeys implements Log.
func (m *Memory) CheckKeys(_ context.Context, room string, drafts []Draft) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.checkLocked(room, drafts, time.Now())
}

func (m *Memory) checkLocked(room string, drafts []Draft, now time.Time) error {
	for i := range drafts {
		if known, ok := m.known(room, &drafts[i], now); ok && known.fingerprint != fingerprint(&drafts[i]) {
			return &KeyReusedError{Index: i}
		}
	}
	return nil
}

func (m *Memory) known(room string, d *Draft, now time.Time) (keyed, bool) {
	if d.Key == "" {
		return keyed{}, false
	}
	k, ok := m.keys[memoryKey{room, d.From, d.Key}]
	return k, ok && now.Before(k.expires)
}

func (m *Memory) appendLocked(room string, d *Draft, now time.Time) Receipt {
	if known, ok := m.known(room, d, now); ok {
		known.receipt.Replayed = true
		return known.receipt
	}
	r := m.roomLocked(room, now)
	if r == nil {
		r = &memoryRoom{lineage: Lineage{{Epoch: newEpoch(), Start: 1}}}
		m.rooms[room] = r
	}
	keep := m.keep.of(room)
	r.head++
	e := newEvent(room, d, now)
	e.Position = Position{Epoch: r.lineage[len(r.lineage)-1].Epoch, Seq: r.head}
	r.events = append(r.events, e)
	if over := len(r.events) - keep.Events; over > 0 {
		clear(r.events[:over]) // the array lives on for a while
		r.events = r.events[over:]
	}
	r.expires, r.forget = now.Add(keep.Age), now.Add(keep.memory())
	receipt := Receipt{Position: e.Position, At: e.At}
	if d.Key != "" {
		m.keys[memoryKey{room, d.From, d.Key}] = keyed{fingerprint(d), receipt, now.Add(keep.Keys)}
	}
	if m.feed != nil && m.followed[room] {
		m.feed.Event(e)
	}
	return receipt
}

func newEvent(room string, d *Draft, now time.Time) Event {
	name := d.Type
	if name == "" {
		name = "message"
	}
	return Event{Room: room, Type: name, From: d.From, At: now.UnixMilli(), Data: slices.Clone(d.Data), JSON: d.JSON, Exclude: d.Exclude, trace: newTrace(d.Trace)}
}

// roomLocked gives the room as far as it is kept now, or nil.
func (m *Memory) roomLocked(room string, now time.Time) *memoryRoom {
	r := m.rooms[room]
	if r == nil || now.After(r.forget) {
		return nil
	}
	if now.After(r.expires) {
		r.events = nil
	}
	return r
}

// Broadcast implements Log.
func (m *Memory) Broadcast(_ context.Context, room string, d Draft) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := newEvent(room, &d, time.Now())
	if m.feed != nil && m.followed[room] {
		m.feed.Event(e)
	}
	return e.At, nil
}

// Read implements Log.
func (m *Memory) Read(_ context.Context, room string, after int64, limit int) (History, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.roomLocked(room, time.Now())
	if r == nil {
		return History{Extent: Extent{Oldest: 1}}, nil
	}
	h := History{Extent: r.extent()}
	if after < 0 {
		after = max(0, int64(h.Head)+after)
	}
	first := max(uint64(after)+1, h.Oldest)
	if first > h.Head {
		return h, nil
	}
	bytes := 0
	for _, e := range r.events[first-(h.Head+1-uint64(len(r.events))):] {
		if len(h.Events) == limit || bytes >= maxPageBytes {
			break
		}
		h.Events = append(h.Events, e)
		bytes += len(e.Data)
	}
	return h, nil
}

// extent is what the room tells of itself. Events of epochs that the lineage
// has forgotten could not be told from another history's, so they count as deleted.
func (r *memoryRoom) extent() Extent {
	oldest := r.head + 1 - uint64(len(r.events))
	return Extent{Lineage: slices.Clone(r.lineage), Head: r.head, Oldest: max(oldest, r.lineage[0].Start)}
}

// Heads implements Log.
func (m *Memory) Heads(_ context.Context, rooms []string) ([]Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	heads := make([]Position, len(rooms))
	now := time.Now()
	for i, room := range rooms {
		heads[i] = Origin
		if r := m.roomLocked(room, now); r != nil {
			heads[i] = r.extent().HeadPosition()
		}
	}
	return heads, nil
}

// Purge implements Log.
func (m *Memory) Purge(_ context.Context, room string) (Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.roomLocked(room, time.Now())
	if r == nil {
		return Origin, nil
	}
	r.events = nil
	r.lineage = append(r.lineage, Fork{Epoch: newEpoch(), Start: r.head + 1, Purged: true})
	if over := len(r.lineage) - maxForks; over > 0 {
		r.lineage = r.lineage[over:]
	}
	r.forget = time.Now().Add(m.keep.of(room).memory())
	if m.feed != nil && m.followed[room] {
		m.feed.Stale(room)
	}
	return r.extent().HeadPosition(), nil
}

// maxForks bounds what is remembered of a room's lineage; who is further back
// is told that the history is a new one.
const maxForks = 30

// Rooms implements Log.
func (m *Memory) Rooms(_ context.Context, page string, limit int) ([]string, string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	now := time.Now()
	for name := range m.rooms {
		if name > page && m.roomLocked(name, now) != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) > limit {
		return names[:limit], names[limit-1], nil
	}
	return names, "", nil
}

// fingerprint tells one body from another under the same key.
func fingerprint(d *Draft) [sha256.Size]byte {
	h := sha256.New()
	kind := byte('t')
	if d.JSON {
		kind = 'j'
	}
	var length [4]byte
	for _, s := range []string{d.Type, d.From, d.Exclude, string(kind)} {
		binary.BigEndian.PutUint32(length[:], uint32(len(s)))
		h.Write(length[:])
		h.Write([]byte(s))
	}
	h.Write(d.Data)
	return [sha256.Size]byte(h.Sum(nil))
}
