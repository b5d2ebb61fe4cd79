package fanout

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// link is a node's subscription to one Redis server.
//
// One redis.PubSub is one session. Its reader calls Receive without a time-out,
// since a time-out in the middle of a message would make go-redis take the
// rest of it for new ones; and it never waits for anybody. A watchdog alone
// decides that a session is dead: when the link is silent although it was
// pinged, or when what this node publishes to itself on the way that events
// take (the canary) no longer arrives, as on a server that was demoted or cut
// off, or when the server was asked for a channel and never confirmed it, which
// would leave a room waiting for ever. Whatever ends a session, its rooms are lost until they are confirmed
// anew, and each then catches up from its log. go-redis would reconnect by
// itself and say nothing of what was missed, so a session that fails is closed.
type link struct {
	s       *subscriber
	address string
	end     context.CancelFunc // makes run return
	probes  sync.WaitGroup     // those under way; a session that ends does not wait for what may never come

	mu      sync.Mutex      // guards the fields below
	pending map[string]bool // channels that the server is still to be told of: to follow, or no longer
	why     error           // the last session ended; nil if none has
	work    chan struct{}   // has a token when pending is not empty

	down atomic.Pointer[time.Time] // since when streams are told that it cannot be reached; nil if it can
	up   atomic.Bool               // the canary of this session was heard
}

func newLink(s *subscriber, address string, end context.CancelFunc) *link {
	return &link{s: s, address: address, end: end, pending: map[string]bool{}, work: make(chan struct{}, 1)}
}

func (l *link) downSince() time.Time {
	if t := l.down.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// ask has the server told to push a channel, or no longer. It does not block.
func (l *link) ask(channel string, follow bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending[channel] = follow
	select {
	case l.work <- struct{}{}:
	default:
	}
}

// askAnew replaces what is pending by all channels that are followed.
func (l *link) askAnew(channels []string) {
	l.mu.Lock()
	clear(l.pending)
	l.mu.Unlock()
	for _, channel := range channels {
		l.ask(channel, true)
	}
}

// run keeps up a session until ctx ends, which end makes it do.
func (l *link) run(ctx context.Context) {
	defer l.end()
	defer l.probes.Wait()
	backoff := minBackoff
	loss := time.AfterFunc(graceOfLoss, l.lost)
	defer func() { loss.Stop() }()
	for {
		began := time.Now()
		err := l.session(ctx)
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		l.why = err
		l.mu.Unlock()
		wasUp := l.up.Swap(false)
		var dead *deadLinkError
		switch {
		case errors.As(err, &dead):
			l.s.redis.servers.drop(l.address)
			l.lost() // it has been silent for long enough
		case wasUp:
			loss.Stop()
			loss = time.AfterFunc(graceOfLoss, l.lost)
		}
		channels := l.s.channelsOf(l)
		l.s.feed.Lost(roomsOf(l.s.redis, channels))
		l.askAnew(channels)
		l.s.shake() // rooms may have moved
		if wasUp {
			l.s.redis.opt.Logger.Warn("lost the subscription to Redis; trying again", "error", err)
		}
		if wasUp || time.Since(began) > maxBackoff {
			backoff = minBackoff
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff/2 + rand.N(backoff/2)):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// lost has streams told that the server is out of reach, unless a session has
// got through by now.
func (l *link) lost() {
	now := time.Now()
	if !l.up.Load() && l.down.CompareAndSwap(nil, &now) {
		l.mu.Lock()
		why := l.why
		l.mu.Unlock()
		l.s.redis.opt.Logger.Error("Redis is out of reach", "error", why)
		l.s.feed.Link()
	}
}

func roomsOf(r *Redis, channels []string) []string {
	rooms := make([]string, 0, len(channels))
	for _, channel := range channels {
		if room, ok := r.roomOf(channel); ok {
			rooms = append(rooms, room)
		}
	}
	return rooms
}

// deadLinkError says that a watchdog gave a link up.
type deadLinkError struct{ what string }

func (e *deadLinkError) Error() string { return e.what }

// session is one life of the connection.
type session struct {
	*link
	pubsub    *redis.PubSub
	canary    string        // channel of this node's own, at this server
	confirmed chan struct{} // closed by the reader when the server pushes canaries
	last      atomic.Int64  // when anything was heard, in Unix nanoseconds
	canaried  atomic.Int64  // when the canary was, or its confirmation; 0 before

	askedMu sync.Mutex           // guards asked
	asked   map[string]time.Time // channels that the server was asked for and has not confirmed, and since when
}

// confirmation is how long a server may take to confirm a channel. It answers
// in the order in which it was asked, so this is for links that lose something.
const confirmation = 5 * time.Second

// session connects, and returns why it ended.
func (l *link) session(ctx context.Context) error {
	canary, err := l.canaryChannel()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ps := l.s.redis.servers.client(l.address).Subscribe(ctx)
	s := &session{link: l, pubsub: ps, canary: canary, confirmed: make(chan struct{}), asked: map[string]time.Time{}}
	s.heard()
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
	l.s.sessions.Add(1)
	if err := s.subscribe(ctx, []string{canary}); err != nil {
		return fmt.Errorf("subscribing: %w", err)
	}
	tasks.Go(func() { cancel(s.tell(ctx)) })
	tasks.Go(func() { cancel(s.watch(ctx)) })
	err = s.read(ctx)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// canaryChannel finds a name for the canary that belongs to the link's server.
func (l *link) canaryChannel() (string, error) {
	for i := range 20 * slots {
		name := l.s.redis.opt.Prefix + ":canary:" + l.s.node + ":{" + strconv.Itoa(i) + "}"
		if l.s.redis.servers.owner(name) == l.address {
			return name, nil
		}
	}
	return "", errors.New("the server has no slots")
}

func (s *session) heard() { s.last.Store(time.Now().UnixNano()) }

// subscribe asks for channels. On a cluster one command takes channels of one
// slot only.
func (s *session) subscribe(ctx context.Context, channels []string) error {
	now := time.Now()
	s.askedMu.Lock()
	for _, channel := range channels {
		s.asked[channel] = now
	}
	s.askedMu.Unlock()
	if !s.s.redis.servers.sharded() {
		return s.pubsub.Subscribe(ctx, channels...)
	}
	for _, channel := range channels {
		if err := s.pubsub.SSubscribe(ctx, channel); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) unsubscribe(ctx context.Context, channels []string) error {
	s.answered(channels...)
	if !s.s.redis.servers.sharded() {
		return s.pubsub.Unsubscribe(ctx, channels...)
	}
	for _, channel := range channels {
		if err := s.pubsub.SUnsubscribe(ctx, channel); err != nil {
			return err
		}
	}
	return nil
}

// answered says that nothing more is to come of what was asked for.
func (s *session) answered(channels ...string) {
	s.askedMu.Lock()
	defer s.askedMu.Unlock()
	for _, channel := range channels {
		delete(s.asked, channel)
	}
}

// unanswered says whether the server owes a confirmation for too long.
func (s *session) unanswered(now time.Time) bool {
	s.askedMu.Lock()
	defer s.askedMu.Unlock()
	for _, since := range s.asked {
		if now.Sub(since) >= confirmation {
			return true
		}
	}
	return false
}

// read hands on what the connection brings. It is the only caller of Receive.
func (s *session) read(ctx context.Context) error {
	for {
		got, err := s.pubsub.Receive(ctx)
		if err != nil && s.s.redirected(s.link, err) {
			s.heard() // an answer, by which the connection loses nothing
			continue
		}
		if err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
		s.heard()
		switch got := got.(type) {
		case *redis.Message:
			if got.Channel == s.canary {
				s.canaryHeard(got.Payload)
			} else {
				s.s.message(s.link, got.Channel, got.Payload)
			}
		case *redis.Subscription:
			if err := s.subscription(got); err != nil {
				return err
			}
		}
	}
}

// subscription takes note of what the server says of a channel.
func (s *session) subscription(c *redis.Subscription) error {
	switch c.Kind {
	case "subscribe", "ssubscribe":
		s.answered(c.Channel)
		if c.Channel == s.canary {
			if s.canaried.CompareAndSwap(0, time.Now().UnixNano()) {
				close(s.confirmed)
			}
		} else if room, ok := s.s.redis.roomOf(c.Channel); ok && s.s.at(c.Channel, s.link) {
			s.s.feed.Following(room)
		}
	case "sunsubscribe":
		if c.Channel == s.canary {
			return errors.New("the server has given the canary's slot away")
		}
		s.s.evicted(s.link, func(channel string) bool { return channel == c.Channel })
	}
	return nil
}

// tell passes on to the server which channels to push, a few at a time.
func (s *session) tell(ctx context.Context) error {
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
				if err := s.subscribe(ctx, follow); err != nil {
					return fmt.Errorf("subscribing: %w", err)
				}
			}
			if len(unfollow) > 0 {
				if err := s.unsubscribe(ctx, unfollow); err != nil {
					return fmt.Errorf("unsubscribing: %w", err)
				}
			}
		}
	}
}

// some takes channels out of pending.
func (l *link) some() (follow, unfollow []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for channel, on := range l.pending {
		if len(follow)+len(unfollow) == subscribeAtOnce {
			break
		}
		delete(l.pending, channel)
		if on {
			follow = append(follow, channel)
		} else {
			unfollow = append(unfollow, channel)
		}
	}
	return follow, unfollow
}

// watch probes the link and returns when it must be given up.
func (s *session) watch(ctx context.Context) error {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the probes
	var probed time.Time
	confirmed := s.confirmed
	s.probes.Go(func() {
		select {
		case <-s.confirmed:
			s.s.redis.check(ctx, s.s.redis.servers.client(s.address), s.canary)
		case <-ctx.Done():
		}
	})
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-confirmed:
			confirmed, probed = nil, time.Time{}
		case <-ticker.C:
		}
		now := time.Now()
		if now.Sub(time.Unix(0, s.last.Load())) >= silence {
			return &deadLinkError{"nothing came from Redis for too long"}
		}
		if n := s.canaried.Load(); n > 0 && now.Sub(time.Unix(0, n)) >= silence {
			return &deadLinkError{"what we publish no longer arrives on our subscription"}
		}
		if now.Sub(probed) >= probe {
			probed = now
			if s.unanswered(now) {
				return errors.New("the server does not confirm a subscription")
			}
			s.probes.Go(func() {
				_ = s.pubsub.Ping(ctx) // its answer is heard by the reader, or missed by this loop
				s.sendCanary(ctx)
			})
		}
	}
}

func (s *session) sendCanary(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	sent := strconv.AppendInt(nil, time.Now().UnixNano(), 10)
	if _, err := send(ctx, s.s.redis.servers, s.canary, sent); err != nil {
		s.s.redis.opt.Logger.Debug("canary not sent", "error", err)
	}
}

func (s *session) canaryHeard(payload string) {
	now := time.Now()
	if sent, err := strconv.ParseInt(payload, 10, 64); err == nil {
		s.s.canary.Store(now.UnixNano() - sent)
	}
	s.canaried.Store(now.UnixNano())
	if !s.up.Swap(true) {
		s.down.Store(nil)
		s.s.feed.Link()
		s.s.redis.opt.Logger.Info("connected to Redis", "sessions", s.s.sessions.Load())
	}
}
