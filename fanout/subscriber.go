package fanout

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds by which a subscriber finds out that something is wrong.
const (
	probe           = time.Second             // how often a link is probed
	silence         = 2750 * time.Millisecond // a link, or a canary, not heard of for so long is dead
	watchEvery      = probe / 20              // how often it is looked whether it is: 3 s are promised
	graceOfLoss     = time.Second             // how long a lost link may take to return before streams are told
	minBackoff      = 20 * time.Millisecond   //
	maxBackoff      = 2 * time.Second         //
	subscribeAtOnce = 500                     // channels in one SUBSCRIBE; many more would hold up Redis
	refreshEvery    = time.Second             // how often a cluster is asked who has which slots
	shakenPause     = 20 * time.Millisecond   // after which it is asked when a server says that it has changed
)

// subscriber is the node's ear. Each server that has rooms has one connection
// to it (link.go), which brings the events of those rooms that are followed. On
// a cluster the channels belong to servers as their rooms do; when a slot moves,
// its channels are followed at the new server, and their rooms catch up.
type subscriber struct {
	redis *Redis
	node  string // names this process to itself
	feed  Feed   // set by Run before anything else runs

	mu     sync.Mutex       // guards the fields below
	want   map[string]*link // the channels that are followed, and where: nil if nobody knows yet
	links  map[string]*link // by the server's address
	placed time.Time        // since when no server is known; zero if some are

	shaken   chan struct{} // has a token when channels may belong elsewhere
	sessions atomic.Int64  // begun
	canary   atomic.Int64  // nanoseconds that the last canary took
	rejected atomic.Int64  // messages that could not be read
}

func newSubscriber(r *Redis) *subscriber {
	s := &subscriber{
		redis:  r,
		node:   newEpoch(),
		want:   map[string]*link{},
		links:  map[string]*link{},
		shaken: make(chan struct{}, 1),
	}
	s.want[s.signalChannel()] = nil
	return s
}

// Links is how a node's subscription fares.
type Links struct {
	Servers  int           // that there are
	Up       int           // of them, those whose messages come
	Sessions int64         // begun, ever
	Canary   time.Duration // that our newest message took to Redis and back; 0 before the first
	Rejected int64         // messages that were not ours to read, ever
}

// Links says how the subscription fares. It does not block.
func (s *subscriber) Links() Links {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Links{
		Servers: len(s.links), Sessions: s.sessions.Load(),
		Canary: time.Duration(s.canary.Load()), Rejected: s.rejected.Load(),
	}
	for _, link := range s.links {
		if link.up.Load() {
			l.Up++
		}
	}
	return l
}

func (s *subscriber) signalChannel() string { return s.redis.opt.Prefix + ":signal" }

// Follow implements Follower.
func (s *subscriber) Follow(room string) {
	channel := s.redis.channel(room)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want[channel] = s.links[s.redis.servers.owner(channel)]
	if l := s.want[channel]; l != nil {
		l.ask(channel, true)
		return
	}
	s.shake()
}

// Unfollow implements Follower.
func (s *subscriber) Unfollow(room string) {
	channel := s.redis.channel(room)
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.want[channel]; l != nil {
		l.ask(channel, false)
	}
	delete(s.want, channel)
}

func (s *subscriber) shake() {
	select {
	case s.shaken <- struct{}{}:
	default:
	}
}

// Signal implements Follower.
func (s *subscriber) Signal(ctx context.Context, message []byte) (nodes int, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	n, err := send(ctx, s.redis.servers, s.signalChannel(), message)
	if err != nil {
		return 0, unavailable("signalling", err)
	}
	return int(n), nil
}

// DownSince implements Follower.
func (s *subscriber) DownSince(room string) time.Time {
	address := theOnly
	if s.redis.servers.sharded() && room != "" {
		address = s.redis.servers.owner(s.redis.channel(room))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.redis.servers.sharded() && room == "" {
		return s.allDownLocked()
	}
	if l := s.links[address]; l != nil {
		return l.downSince()
	}
	return s.placed
}

// allDownLocked says since when no server at all can be reached.
func (s *subscriber) allDownLocked() time.Time {
	since := s.placed
	for _, l := range s.links {
		down := l.downSince()
		if down.IsZero() {
			return down
		}
		since = down
	}
	return since
}

// Run implements Follower. It keeps a link to each server, and each channel
// at the link that brings it.
func (s *subscriber) Run(ctx context.Context, feed Feed) error {
	s.feed = feed
	var tasks sync.WaitGroup
	defer tasks.Wait()
	refresh := time.NewTicker(refreshEvery)
	defer refresh.Stop()
	for {
		if err := s.redis.servers.refresh(ctx); err != nil && ctx.Err() == nil {
			s.redis.opt.Logger.Warn("cannot find out where rooms are; trying again", "error", err)
		}
		s.place(ctx, &tasks)
		ticks := refresh.C
		if !s.redis.servers.sharded() {
			ticks = nil // nothing ever moves
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticks:
		case <-s.shaken:
			select { // servers learn from each other what has moved, which takes a moment
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(shakenPause):
			}
		}
	}
}

// place gives each server a link, ends those of servers that are gone, and
// moves channels to where they belong.
func (s *subscriber) place(ctx context.Context, tasks *sync.WaitGroup) {
	s.mu.Lock()
	var moved []string
	there := map[string]bool{}
	for _, address := range s.redis.servers.addresses() {
		there[address] = true
		if s.links[address] == nil {
			ctx, end := context.WithCancel(ctx)
			l := newLink(s, address, end)
			s.links[address] = l
			tasks.Go(func() { l.run(ctx) })
		}
	}
	for channel, old := range s.want {
		l := s.links[s.redis.servers.owner(channel)]
		if l == old {
			continue
		}
		if old != nil {
			old.ask(channel, false)
			if room, ok := s.redis.roomOf(channel); ok {
				moved = append(moved, room)
			}
		}
		if s.want[channel] = l; l != nil {
			l.ask(channel, true)
		}
	}
	for address, l := range s.links {
		if !there[address] {
			delete(s.links, address)
			l.end()
		}
	}
	switch {
	case len(s.links) > 0:
		s.placed = time.Time{}
	case s.placed.IsZero():
		s.placed = time.Now()
	}
	s.mu.Unlock()
	if len(moved) > 0 {
		s.feed.Lost(moved)
		s.feed.Link()
	}
}

// evicted takes channels from a link whose server has them no longer, because
// their slots have moved. They are followed anew where they are now.
func (s *subscriber) evicted(l *link, which func(channel string) bool) {
	s.mu.Lock()
	var lost []string
	for channel, its := range s.want {
		if its == l && which(channel) {
			s.want[channel] = nil
			lost = append(lost, channel)
		}
	}
	s.mu.Unlock()
	if len(lost) > 0 {
		s.feed.Lost(roomsOf(s.redis, lost))
		s.shake()
	}
}

// redirected says that err is a server's word that it does not have the slot
// of a channel which it was asked for, and sees to that channel.
func (s *subscriber) redirected(l *link, err error) bool {
	c, ok := s.redis.servers.(*cluster)
	if !ok {
		return false
	}
	slot, moved := c.movedSlot(err)
	if moved {
		s.evicted(l, func(channel string) bool { return slotOf(channel) == slot })
	}
	return moved
}

// at says whether a channel is still a link's.
func (s *subscriber) at(channel string, l *link) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.want[channel] == l
}

// channelsOf gives the channels of a link, to follow them anew.
func (s *subscriber) channelsOf(l *link) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var channels []string
	for channel, its := range s.want {
		if its == l {
			channels = append(channels, channel)
		}
	}
	return channels
}

// message takes what a link brings, but for its canary.
func (s *subscriber) message(l *link, channel, payload string) {
	if !s.at(channel, l) {
		return // it belongs to another server by now, and its room catches up from there
	}
	if channel == s.signalChannel() {
		s.feed.Signal([]byte(payload))
		return
	}
	room, ok := s.redis.roomOf(channel)
	if !ok {
		return
	}
	if payload == "2|" {
		s.feed.Stale(room)
		return
	}
	e, err := parseMessage(room, payload)
	if err != nil {
		s.rejected.Add(1)
		s.redis.opt.Logger.Warn("dropped a message that is not ours", "channel", channel)
		return
	}
	s.feed.Event(e)
}

// parseMessage reads what publish.lua and Broadcast send: "1|epoch|seq|record"
// "0|record", and what presence.lua sends.
func parseMessage(room, payload string) (Event, error) {
	kind, rest, _ := strings.Cut(payload, "|")
	var at Position
	switch kind {
	case "3":
		return parseMovement(room, rest)
	case "0":
	case "1":
		epoch, behind, _ := strings.Cut(rest, "|")
		seq, record, ok := strings.Cut(behind, "|")
		p, valid := ParsePosition(epoch + "-" + seq)
		if !ok || !valid || p.Seq == 0 {
			return Event{}, errRecord
		}
		at, rest = p, record
	default:
		return Event{}, errRecord
	}
	e, err := parseRecord(room, []byte(rest))
	e.Position = at
	return e, err
}
