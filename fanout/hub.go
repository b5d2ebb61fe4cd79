package fanout

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// Options of a Hub. The zero value works.
type Options struct {
	RingEvents int           // newest events of a room kept at hand; 256 if zero, 65535 at most
	RingBytes  int           // and bytes of them; 1 MiB if zero
	RingMemory int           // bytes of all rings together; 256 MiB if zero
	Keep       Retention     // what the log keeps: the ring never shows more
	Linger     time.Duration // how long a room stays open after its last stream; 5 s if zero
	Check      time.Duration // how often silent rooms are compared with the log; 5 s if zero
	Wait       time.Duration // how long opening a stream waits for the log; 5 s if zero
	Shards     int           // writers to the connections that were taken over; as many as Go runs at a time if zero
	Logger     *slog.Logger  // slog.Default() if nil
	Presence   PresenceOptions

	// Traced is told of events with a trace once they were written, for each
	// group of streams that is served together. It is called by many and must not
	// block. If it is nil, traces cost nothing.
	Traced func(Traced)
}

// Hub holds the rooms that have streams on this node. It takes what the log
// feeds and passes it to the streams. Its methods may be called by many.
type Hub struct {
	presence *presence
	log      Log
	opt      Options
	stats    Stats
	flights  singleflight.Group // reads of the log that many streams wait for
	slots    chan struct{}      // one for each catch-up that may run at a time
	ctx      context.Context    // of Run; ends the hub's goroutines
	stop     context.CancelFunc

	spawnMu sync.Mutex     // so that nothing joins tasks once ctx has ended
	tasks   sync.WaitGroup // the hub's goroutines

	shards   []*shard  // serve the connections that were taken over
	pollOnce sync.Once // makes poller
	poller   *poller   // notices when their clients leave; nil where connections cannot be taken over
	begun    time.Time // what the streams' times count from

	followMu sync.Mutex // orders Follow and Unfollow with the rooms that there are

	mu          sync.RWMutex // guards the fields below
	rooms       map[string]*room
	opened      uint32 // rooms, ever
	streams     registry
	looks       map[look]*look       // that streams have in common
	asked       map[string]*question // what other nodes were asked
	linkChanged chan struct{}        // closed by Link, and replaced
	draining    bool
	drained     chan struct{} // closed when, draining, no stream is left
	empty       sync.Once     // closes drained

	links     atomic.Uint32 // counts the calls of Link
	ringBytes atomic.Int64  // of all rooms
	watched   atomic.Int64  // when word came last that somebody watches the nodes' reports, in Unix nanoseconds
	leases    leases        // of the streams that have one
}

// ErrClosed says that the hub no longer opens streams.
var ErrClosed = errors.New("the node is shutting down")

// NewHub gives a hub on a log. It does nothing until Run.
func NewHub(log Log, opt Options) *Hub {
	opt.RingEvents = cmp.Or(opt.RingEvents, 256)
	opt.RingBytes = cmp.Or(opt.RingBytes, 1<<20)
	opt.RingMemory = cmp.Or(opt.RingMemory, 256<<20)
	opt.Linger = cmp.Or(opt.Linger, 5*time.Second)
	opt.Check = cmp.Or(opt.Check, 5*time.Second)
	opt.Wait = cmp.Or(opt.Wait, 5*time.Second)
	opt.Keep = opt.Keep.withDefaults()
	opt.RingEvents = min(opt.RingEvents, math.MaxUint16) // which bounds seat.early
	opt.Shards = min(cmp.Or(opt.Shards, runtime.GOMAXPROCS(0)), maxShards)
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	ctx, stop := context.WithCancel(context.Background())
	h := &Hub{
		log:         log,
		opt:         opt,
		slots:       make(chan struct{}, 8),
		ctx:         ctx,
		stop:        stop,
		begun:       time.Now(),
		rooms:       map[string]*room{},
		looks:       map[look]*look{},
		asked:       map[string]*question{},
		linkChanged: make(chan struct{}),
		drained:     make(chan struct{}),
	}
	h.presence = newPresence(h, opt.Presence)
	for range opt.Shards {
		h.shards = append(h.shards, newShard(h))
	}
	return h
}

// maxShards is a bound that seat.part has.
const maxShards = 128

// now is the time that streams go by.
func (h *Hub) now() instant { return instant(time.Since(h.begun)) }

// instant is a time, in nanoseconds since the hub was made.
type instant int64

// Run takes what the log feeds until ctx ends, then waits for the hub's own
// goroutines. It is called once.
func (h *Hub) Run(ctx context.Context) error {
	h.spawn(h.sweep)
	h.startShards()
	h.spawn(h.presence.run)
	err := h.log.Run(ctx, h)
	h.spawnMu.Lock()
	h.stop()
	h.spawnMu.Unlock()
	h.tasks.Wait()
	return err
}

// spawn runs f in a goroutine that Run waits for; not any more after Run's end.
func (h *Hub) spawn(f func()) bool {
	h.spawnMu.Lock()
	defer h.spawnMu.Unlock()
	if h.ctx.Err() != nil {
		return false
	}
	h.tasks.Go(f)
	return true
}

// Log is the log that the hub is on.
func (h *Hub) Log() Log { return h.log }

// DownSince says since when no part of the log can be reached; zero if some can.
func (h *Hub) DownSince() time.Time { return h.log.DownSince("") }

// Append is Log.Append, but fails at once while the room is known to be out of reach.
func (h *Hub) Append(ctx context.Context, room string, drafts []Draft) ([]Receipt, error) {
	if !h.log.DownSince(room).IsZero() {
		return nil, ErrUnavailable
	}
	receipts, err := h.log.Append(ctx, room, drafts)
	h.stats.Published.Add(int64(len(receipts)))
	for i := range receipts {
		h.stats.Taken.Add(int64(len(drafts[i].Data)))
	}
	return receipts, err
}

// CheckKeys is Log.CheckKeys, but fails at once while the room is known to be out of reach.
func (h *Hub) CheckKeys(ctx context.Context, room string, drafts []Draft) error {
	if !h.log.DownSince(room).IsZero() {
		return ErrUnavailable
	}
	return h.log.CheckKeys(ctx, room, drafts)
}

// Read is Log.Read, but fails at once while the room is known to be out of reach.
func (h *Hub) Read(ctx context.Context, room string, after int64, limit int) (History, error) {
	if !h.log.DownSince(room).IsZero() {
		return History{}, ErrUnavailable
	}
	return h.log.Read(ctx, room, after, limit)
}

// Broadcast is Log.Broadcast, but fails at once while the room is known to be out of reach.
func (h *Hub) Broadcast(ctx context.Context, room string, d Draft) (int64, error) {
	if !h.log.DownSince(room).IsZero() {
		return 0, ErrUnavailable
	}
	at, err := h.log.Broadcast(ctx, room, d)
	if err == nil {
		h.stats.Published.Add(1)
		h.stats.Taken.Add(int64(len(d.Data)))
	}
	return at, err
}

func (h *Hub) room(name string) *room {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.rooms[name]
}

// open gives the room, with one more reference to it, and sees that it follows the log.
func (h *Hub) open(name string) *room {
	h.mu.Lock()
	r := h.rooms[name]
	fresh := r == nil
	if fresh {
		r = newRoom(h, name, h.opened)
		h.opened++
		h.rooms[name] = r
	}
	r.refs.Add(1)
	h.mu.Unlock()
	if fresh {
		h.followMu.Lock()
		h.log.Follow(name)
		h.followMu.Unlock()
	}
	return r
}

// sweep closes rooms that nobody listens to any more, and compares silent ones
// with the log.
func (h *Hub) sweep() {
	idle := time.NewTicker(min(time.Second, h.opt.Linger))
	check := time.NewTicker(h.opt.Check)
	defer idle.Stop()
	defer check.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case now := <-idle.C:
			h.closeIdle()
			h.leases.check(now)
		case <-check.C:
			h.checkSilent()
		}
	}
}

func (h *Hub) closeIdle() {
	now := time.Now()
	var closed []*room
	h.mu.Lock()
	for name, r := range h.rooms {
		if r.idle(now, h.opt.Linger) {
			delete(h.rooms, name)
			closed = append(closed, r)
		}
	}
	h.mu.Unlock()
	for _, r := range closed {
		r.close()
		h.followMu.Lock()
		if h.room(r.name) == nil { // else somebody has opened it anew, and follows it
			h.log.Unfollow(r.name)
		}
		h.followMu.Unlock()
	}
}

// Event implements Feed.
func (h *Hub) Event(e Event) {
	if e.movement != nil {
		h.presence.moved(&e)
		return
	}
	if r := h.room(e.Room); r != nil {
		r.event(e)
	}
}

// Stale implements Feed.
func (h *Hub) Stale(room string) {
	if r := h.room(room); r != nil {
		r.refresh()
	}
}

// Following implements Feed.
func (h *Hub) Following(room string) {
	if r := h.room(room); r != nil {
		r.confirm()
	}
	h.presence.stale(room)
}

// Lost implements Feed.
func (h *Hub) Lost(rooms []string) {
	h.stats.Losses.Add(1)
	h.presence.shaken()
	for _, name := range rooms {
		if r := h.room(name); r != nil {
			r.lose()
		}
	}
}

// Link implements Feed.
func (h *Hub) Link() {
	h.presence.shaken()
	h.mu.Lock()
	close(h.linkChanged)
	h.linkChanged = make(chan struct{})
	h.links.Add(1)
	h.mu.Unlock()
	for _, s := range h.allStreams() {
		s.nudge()
	}
}

// linkChange gives a channel that is closed when DownSince may have changed.
func (h *Hub) linkChange() <-chan struct{} {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.linkChanged
}

// Refit has open rooms ask Options.Keep.Rooms again, which says something else
// now than when they were opened.
func (h *Hub) Refit() {
	for _, r := range h.allRooms() {
		keep := h.opt.Keep.of(r.name)
		r.mu.Lock()
		r.keepLocked(keep)
		r.mu.Unlock()
	}
}

func (h *Hub) allRooms() []*room {
	h.mu.RLock()
	defer h.mu.RUnlock()
	rooms := make([]*room, 0, len(h.rooms))
	for _, r := range h.rooms {
		rooms = append(rooms, r)
	}
	return rooms
}

func (h *Hub) allStreams() []*Stream {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.streams.all()
}

// register counts a stream among those that are open.
func (h *Hub) register(s *Stream) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining {
		return ErrClosed
	}
	h.streams.add(s)
	return nil
}

func (h *Hub) unregister(s *Stream) {
	h.leases.remove(s)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams.remove(s)
	if h.draining && h.streams.open == 0 {
		h.empty.Do(func() { close(h.drained) })
	}
}

// registry is the streams that are open, each at a number that stays its own
// until it ends.
type registry struct {
	slots []*Stream
	free  []uint32 // slots that are nil
	open  int
}

func (g *registry) add(s *Stream) {
	g.open++
	if last := len(g.free) - 1; last >= 0 {
		s.slot = g.free[last]
		g.free = g.free[:last]
		g.slots[s.slot] = s
		return
	}
	s.slot = uint32(len(g.slots))
	g.slots = append(g.slots, s)
}

func (g *registry) remove(s *Stream) {
	g.open--
	g.slots[s.slot] = nil
	g.free = append(g.free, s.slot)
}

func (g *registry) all() []*Stream {
	all := make([]*Stream, 0, g.open)
	for _, s := range g.slots {
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}

// Drain refuses new streams from now on and ends the open ones over the given
// time, so that they do not all come back at once. It returns when each has
// ended, or when ctx does.
func (h *Hub) Drain(ctx context.Context, over time.Duration) {
	h.mu.Lock()
	h.draining = true
	streams := h.streams.all()
	if len(streams) == 0 {
		h.empty.Do(func() { close(h.drained) })
	}
	h.mu.Unlock()
	ticker := time.NewTicker(max(over/time.Duration(max(1, len(streams))), time.Microsecond))
	defer ticker.Stop()
	begun := time.Now()
	for i, s := range streams {
		// However many ticks were missed, as many are told as the time asks for.
		for over > 0 && time.Since(begun) < over*time.Duration(i)/time.Duration(len(streams)) {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
		s.End(ByeDrain)
	}
	select {
	case <-ctx.Done():
	case <-h.drained:
	}
}

// ValidStreamID says whether s has the form of a stream's id.
func ValidStreamID(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return false
		}
	}
	return len(s) == 26
}
