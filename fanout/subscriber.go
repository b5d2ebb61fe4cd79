package fanout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// The bounds by which a subscriber finds out that something is wrong.
const (
	tick            = time.Second            // how often a link is probed
	silence         = 3 * time.Second        // a link, or a canary, not heard of for so long is dead
	graceOfLoss     = time.Second            // how long a link may be away before streams are told
	minBackoff      = 20 * time.Millisecond  //
	maxBackoff      = 2 * time.Second        //
	subscribeAtOnce = 500                    // channels in one SUBSCRIBE; many more would hold up Redis
	dropAtMost      = 250 * time.Millisecond // pool replacements come no closer together
)

// subscriber is the node's ear: one connection on which Redis pushes the
// events of the rooms that are followed.
//
// One redis.PubSub is one session. Its reader calls Receive without a time-out,
// since a time-out in the middle of a message would make go-redis take the
// rest of it for new ones; and it never waits for anybody. A watchdog alone
// decides that a session is dead: when the link is silent although it was
// pinged, or when what this node publishes to itself on the way that events
// take (the canary) no longer arrives, as on a server that was demoted or cut
// off. Whatever ends a session, all rooms are lost until they are confirmed
// anew, and each then catches up from its log. go-redis would reconnect by
// itself and say nothing of what was missed, so a session that fails is closed.
type subscriber struct {
	redis *Redis
	node  string // names this process to itself
	feed  Feed   // set by Run before anything else runs

	mu      sync.Mutex
	want    map[string]bool // rooms that are followed
	pending map[string]bool // of these, or of those no longer, what Redis is still to be told
	work    chan struct{}   // has a token when pending is not empty

	up       atomic.Bool
	sessions atomic.Int64 // begun
	canary   atomic.Int64 // nanoseconds that the last canary took
	rejected atomic.Int64 // messages that could not be read
}

func newSubscriber(r *Redis) *subscriber {
	return &subscriber{
		redis:   r,
		node:    newEpoch(),
		want:    map[string]bool{},
		pending: map[string]bool{},
		work:    make(chan struct{}, 1),
	}
}

func (s *subscriber) canaryChannel() string { return s.redis.opt.Prefix + ":canary:" + s.node }
func (s *subscriber) signalChannel() string { return s.redis.opt.Prefix + ":signal" }

// Follow implements Follower.
func (s *subscriber) Follow(room string) { s.ask(room, true) }

// Unfollow implements Follower.
func (s *subscriber) Unfollow(room string) { s.ask(room, false) }

func (s *subscriber) ask(room string, follow bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if follow {
		s.want[room] = true
	} else {
		delete(s.want, room)
	}
	s.pending[room] = follow
	s.wakeLocked()
}

func (s *subscriber) wakeLocked() {
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// Signal implements Follower.
func (s *subscriber) Signal(ctx context.Context, message []byte) (nodes int, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	n, err := s.redis.pool.send(ctx, s.signalChannel(), message).Result()
	if err != nil {
		return 0, unavailable("signalling", err)
	}
	return int(n), nil
}

// Run implements Follower: session after session, until ctx ends.
func (s *subscriber) Run(ctx context.Context, feed Feed) error {
	s.feed = feed
	backoff := minBackoff
	dropped := time.Time{}
	loss := s.afterLoss()
	defer func() { loss.Stop() }()
	for {
		began := time.Now()
		err := s.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s.up.Load() {
			loss.Stop()
			loss = s.afterLoss()
		}
		s.lost()
		s.redis.opt.Logger.Warn("lost the subscription to Redis; trying again", "error", err, "in", backoff)
		var dead *deadLinkError
		if errors.As(err, &dead) && time.Since(dropped) > dropAtMost {
			s.redis.pool.drop()
			dropped = time.Now()
		}
		if time.Since(began) > maxBackoff {
			backoff = minBackoff
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(backoff/2 + rand.N(backoff/2)):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// afterLoss tells the feed that the log is out of reach, unless a session
// gets through before.
func (s *subscriber) afterLoss() *time.Timer {
	s.up.Store(false)
	return time.AfterFunc(graceOfLoss, func() {
		if !s.up.Load() {
			s.feed.Link(false)
		}
	})
}

func (s *subscriber) lost() {
	s.feed.Lost()
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.pending)
	for room := range s.want {
		s.pending[room] = true
	}
	s.wakeLocked()
}

// deadLinkError says that a watchdog gave a link up.
type deadLinkError struct{ what string }

func (e *deadLinkError) Error() string { return e.what }

// session is one life of the connection. It returns why it ended.
func (s *subscriber) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	ps := s.redis.pool.client().Subscribe(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel(nil)
	// Closing is what makes Receive return; ending its context is not.
	stop := context.AfterFunc(ctx, func() { _ = ps.Close() })
	defer func() {
		if stop() {
			_ = ps.Close()
		}
	}()
	s.sessions.Add(1)
	if err := ps.Subscribe(ctx, s.canaryChannel(), s.signalChannel()); err != nil {
		return fmt.Errorf("subscribing: %w", err)
	}
	link := &link{pubsub: ps, confirmed: make(chan struct{})}
	link.heard()
	tasks.Go(func() { cancel(s.tell(ctx, ps)) })
	tasks.Go(func() { cancel(s.watch(ctx, link)) })
	err := s.read(ctx, link)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// link is what a session's reader and its watchdog share.
type link struct {
	pubsub    *redis.PubSub
	confirmed chan struct{} // closed by the reader when Redis pushes our canaries
	last      atomic.Int64  // when anything was heard, in Unix nanoseconds
	canaried  atomic.Int64  // when the canary was, or when it was confirmed; 0 before
}

func (l *link) heard() { l.last.Store(time.Now().UnixNano()) }

// read hands on what the connection brings. It is the only caller of Receive.
func (s *subscriber) read(ctx context.Context, l *link) error {
	for {
		got, err := l.pubsub.Receive(ctx)
		if err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
		l.heard()
		switch got := got.(type) {
		case *redis.Message:
			s.message(l, got)
		case *redis.Subscription:
			s.confirmed(l, got)
		}
	}
}

func (s *subscriber) confirmed(l *link, c *redis.Subscription) {
	if c.Kind != "subscribe" {
		return
	}
	if room, ok := s.redis.roomOf(c.Channel); ok {
		s.feed.Following(room)
	} else if c.Channel == s.canaryChannel() && l.canaried.CompareAndSwap(0, time.Now().UnixNano()) {
		close(l.confirmed)
	}
}

func (s *subscriber) message(l *link, m *redis.Message) {
	switch m.Channel {
	case s.canaryChannel():
		s.canaryHeard(l, m.Payload)
		return
	case s.signalChannel():
		s.feed.Signal([]byte(m.Payload))
		return
	}
	room, ok := s.redis.roomOf(m.Channel)
	if !ok {
		return
	}
	if m.Payload == "2|" {
		s.feed.Stale(room)
		return
	}
	e, err := parseMessage(room, m.Payload)
	if err != nil {
		s.rejected.Add(1)
		s.redis.opt.Logger.Warn("dropped a message that is not ours", "channel", m.Channel)
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

// tell passes on to Redis which rooms to push, a few at a time.
func (s *subscriber) tell(ctx context.Context, ps *redis.PubSub) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.work:
		}
		for {
			follow, unfollow := s.some()
			if len(follow)+len(unfollow) == 0 {
				break
			}
			if len(follow) > 0 {
				if err := ps.Subscribe(ctx, follow...); err != nil {
					return fmt.Errorf("subscribing: %w", err)
				}
			}
			if len(unfollow) > 0 {
				if err := ps.Unsubscribe(ctx, unfollow...); err != nil {
					return fmt.Errorf("unsubscribing: %w", err)
				}
			}
		}
	}
}

// some takes channels out of pending.
func (s *subscriber) some() (follow, unfollow []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for room, on := range s.pending {
		if len(follow)+len(unfollow) == subscribeAtOnce {
			break
		}
		delete(s.pending, room)
		if on {
			follow = append(follow, s.redis.channel(room))
		} else {
			unfollow = append(unfollow, s.redis.channel(room))
		}
	}
	return follow, unfollow
}

// watch probes the link each tick and returns when it must be given up.
func (s *subscriber) watch(ctx context.Context, l *link) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	confirmed := l.confirmed
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-confirmed:
			confirmed = nil
			tasks.Go(func() { s.sendCanary(ctx) })
			continue
		case <-ticker.C:
		}
		now := time.Now()
		if now.Sub(time.Unix(0, l.last.Load())) >= silence {
			return &deadLinkError{"nothing came from Redis for too long"}
		}
		if n := l.canaried.Load(); n > 0 && now.Sub(time.Unix(0, n)) >= silence {
			return &deadLinkError{"what we publish no longer arrives on our subscription"}
		}
		tasks.Go(func() {
			_ = l.pubsub.Ping(ctx) // its answer is heard by the reader, or missed by this loop
			s.sendCanary(ctx)
		})
	}
}

func (s *subscriber) sendCanary(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tick)
	defer cancel()
	sent := fmt.Appendf(nil, "%d", time.Now().UnixNano())
	if err := s.redis.pool.send(ctx, s.canaryChannel(), sent).Err(); err != nil {
		s.redis.opt.Logger.Debug("canary not sent", "error", err)
	}
}

func (s *subscriber) canaryHeard(l *link, payload string) {
	now := time.Now()
	var sent int64
	if _, err := fmt.Sscanf(payload, "%d", &sent); err == nil {
		s.canary.Store(now.UnixNano() - sent)
	}
	l.canaried.Store(now.UnixNano())
	if !s.up.Swap(true) {
		s.feed.Link(true)
		s.redis.opt.Logger.Info("connected to Redis", slog.Int64("sessions", s.sessions.Load()))
	}
}
