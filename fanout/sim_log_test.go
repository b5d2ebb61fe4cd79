package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// simNet is what lies between nodes and the server. Calls wait here until they
// are served, or fail; messages, until they are delivered.
type simNet struct {
	auto bool // all that comes is served at once, for tests without a scheduler

	mu     sync.Mutex // guards ops; with auto, everything
	ops    []*simOp
	server *simServer
	nodes  []*simLog
	batch  int  // events that one script appends
	mute   bool // a fault of our own: a session that begins anew does not say so
}

// simOp is a call that a node has made.
type simOp struct {
	node     *simLog
	what     string // tells one call from another
	run      func() (any, error)
	answer   chan simAnswer
	executed bool
	result   simAnswer
	left     bool // the caller has given up
}

type simAnswer struct {
	value any
	err   error
}

var errSim = fmt.Errorf("simulated: %w", ErrUnavailable)

// simLog is one node's Log. It keeps a subscription as link.go does: what is
// asked for is told to the server when there is a session, and confirmed among
// the messages of that session.
type simLog struct {
	Store     // which is not simulated,
	Attendant // nor is this
	net       *simNet

	mu     sync.Mutex // guards wanted, asks and down, which the node's goroutines touch
	wanted map[string]bool
	asks   map[string]bool
	down   time.Time
	ran    chan struct{} // closed when feed is set
	feed   Feed

	session *simSession     // nil while there is none
	heard   map[string]bool // rooms that were confirmed once
}

// simSession is a connection that brings messages.
type simSession struct {
	rooms map[string]bool // that the server pushes
	queue []simMessage
	deaf  bool // the server is gone, and the node does not know yet
}

type simMessage struct {
	kind  byte // 'f' following, 'e' event, 's' stale, 'x' signal
	room  string
	event Event
	text  []byte
}

func (m simMessage) String() string {
	switch m.kind {
	case 'f':
		return "following " + m.room
	case 's':
		return "stale " + m.room
	case 'e':
		return fmt.Sprintf("%s %v", m.room, m.event.Position)
	}
	return "signal"
}

func newSimNet(server *simServer) *simNet {
	return &simNet{server: server, batch: batchEvents}
}

func (n *simNet) node() *simLog {
	l := newSimLog(n)
	n.nodes = append(n.nodes, l)
	return l
}

func newSimLog(n *simNet) *simLog {
	aside := NewMemory(Retention{})
	return &simLog{Store: aside, Attendant: aside, net: n, wanted: map[string]bool{}, asks: map[string]bool{}, heard: map[string]bool{}, ran: make(chan struct{})}
}

// send queues a message for every node that is subscribed.
func (n *simNet) send(m simMessage) {
	for _, l := range n.nodes {
		if s := l.session; s != nil && !s.deaf && (m.kind == 'x' || s.rooms[m.room]) {
			s.queue = append(s.queue, m)
		}
	}
	if n.auto {
		n.flush()
	}
}

// flush is what the network does where nothing goes wrong.
func (n *simNet) flush() {
	for _, l := range n.nodes {
		for l.feed != nil && l.session != nil && len(l.session.queue) > 0 {
			l.deliver()
		}
	}
}

// call makes run happen at the server, some time.
func (l *simLog) call(ctx context.Context, what string, run func() (any, error)) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	l.net.mu.Lock()
	if l.net.auto {
		defer l.net.mu.Unlock()
		return run()
	}
	op := &simOp{node: l, what: what, run: run, answer: make(chan simAnswer, 1)}
	l.net.ops = append(l.net.ops, op)
	l.net.mu.Unlock()
	select {
	case a := <-op.answer:
		return a.value, a.err
	case <-ctx.Done():
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		op.left = true
		return nil, errors.Join(errSim, ctx.Err())
	}
}

// pending lists the calls that wait, in an order that does not depend on when
// goroutines ran. Who has given up waits for nothing, unless it was a write.
func (n *simNet) pending() []*simOp {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ops = slices.DeleteFunc(n.ops, func(op *simOp) bool {
		return op.left && (op.executed || !strings.HasPrefix(op.what, "append"))
	})
	slices.SortStableFunc(n.ops, func(a, b *simOp) int {
		return strings.Compare(a.node.name()+a.what, b.node.name()+b.what)
	})
	return n.ops
}

func (l *simLog) name() string { return fmt.Sprintf("n%d", slices.Index(l.net.nodes, l)) }

// execute has the server do what was asked for, reply tells the caller.
func (op *simOp) execute() {
	op.executed = true
	op.result.value, op.result.err = op.run()
}

func (op *simOp) reply(a simAnswer) {
	n := op.node.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ops = slices.DeleteFunc(n.ops, func(other *simOp) bool { return other == op })
	op.answer <- a
}

// Append implements Log.
func (l *simLog) Append(ctx context.Context, room string, drafts []Draft) ([]Receipt, error) {
	var receipts []Receipt
	if len(drafts) > l.net.batch {
		if err := l.CheckKeys(ctx, room, drafts); err != nil {
			return nil, err
		}
	}
	for some := range slices.Chunk(drafts, l.net.batch) {
		v, err := l.call(ctx, fmt.Sprintf("append %s %.20s", room, some[0].Data), func() (any, error) {
			got, sent, err := l.net.server.publish(room, some, time.Now())
			for _, e := range sent {
				l.net.send(simMessage{kind: 'e', room: room, event: e})
			}
			return got, err
		})
		var reused *KeyReusedError
		if errors.As(err, &reused) {
			return receipts, &KeyReusedError{Index: reused.Index + len(receipts)}
		}
		if err != nil {
			return receipts, err
		}
		receipts = append(receipts, v.([]Receipt)...)
	}
	return receipts, nil
}

// CheckKeys implements Log.
func (l *simLog) CheckKeys(ctx context.Context, room string, drafts []Draft) error {
	_, err := l.call(ctx, "look keys up in "+room, func() (any, error) {
		return nil, l.net.server.checkKeys(room, drafts, time.Now())
	})
	return err
}

// Broadcast implements Log.
func (l *simLog) Broadcast(ctx context.Context, room string, d Draft) (int64, error) {
	e := newEvent(room, &d, time.Now())
	_, err := l.call(ctx, fmt.Sprintf("broadcast %s %s", room, d.Data), func() (any, error) {
		l.net.send(simMessage{kind: 'e', room: room, event: e})
		return nil, nil
	})
	return e.At, err
}

// Read implements Log.
func (l *simLog) Read(ctx context.Context, room string, after int64, limit int) (History, error) {
	v, err := l.call(ctx, fmt.Sprintf("read %s %d %d", room, after, limit), func() (any, error) {
		return l.net.server.read(room, after, limit, time.Now()), nil
	})
	if err != nil {
		return History{}, err
	}
	return v.(History), nil
}

// Heads implements Log.
func (l *simLog) Heads(ctx context.Context, rooms []string) ([]Position, error) {
	sorted := slices.Sorted(slices.Values(rooms))
	v, err := l.call(ctx, fmt.Sprintf("heads %v", sorted), func() (any, error) {
		heads := make([]Position, len(rooms))
		for i, room := range rooms {
			heads[i] = l.net.server.headOf(room, time.Now())
		}
		return heads, nil
	})
	if err != nil {
		return nil, err
	}
	return v.([]Position), nil
}

// Purge implements Log.
func (l *simLog) Purge(ctx context.Context, room string) (Position, error) {
	v, err := l.call(ctx, "purge "+room, func() (any, error) {
		p, purged := l.net.server.purge(room, time.Now())
		if purged {
			l.net.send(simMessage{kind: 's', room: room})
		}
		return p, nil
	})
	if err != nil {
		return Position{}, err
	}
	return v.(Position), nil
}

// Rooms implements Log.
func (l *simLog) Rooms(context.Context, string, int) ([]string, string, error) {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	var rooms []string
	for room, r := range l.net.server.rooms {
		if r != nil {
			rooms = append(rooms, room)
		}
	}
	return rooms, "", nil
}

// Run implements Follower.
func (l *simLog) Run(ctx context.Context, feed Feed) error {
	l.net.mu.Lock()
	l.feed = feed
	if l.net.auto {
		l.connect()
		l.tellAll()
	}
	l.net.mu.Unlock()
	close(l.ran)
	<-ctx.Done()
	return ctx.Err()
}

// Follow implements Follower.
func (l *simLog) Follow(room string) { l.ask(room, true) }

// Unfollow implements Follower.
func (l *simLog) Unfollow(room string) { l.ask(room, false) }

func (l *simLog) ask(room string, on bool) {
	l.mu.Lock()
	if on {
		l.wanted[room] = true
	} else {
		delete(l.wanted, room)
	}
	l.asks[room] = on
	l.mu.Unlock()
	if l.net.auto {
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		l.tellAll()
	}
}

func (l *simLog) tellAll() {
	for _, room := range l.asked() {
		l.tell(room)
	}
	l.net.flush()
}

// asked lists what the server is still to be told; all that is wanted.
func (l *simLog) asked() []string { l.mu.Lock(); defer l.mu.Unlock(); return sortedKeys(l.asks) }
func (l *simLog) all() []string   { l.mu.Lock(); defer l.mu.Unlock(); return sortedKeys(l.wanted) }

func sortedKeys(m map[string]bool) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// tell has the server take note of one request.
func (l *simLog) tell(room string) {
	s := l.session
	if s == nil || s.deaf {
		return
	}
	l.mu.Lock()
	on := l.asks[room]
	delete(l.asks, room)
	l.mu.Unlock()
	s.rooms[room] = on
	if on && !(l.net.mute && l.heard[room]) {
		l.heard[room] = true
		s.queue = append(s.queue, simMessage{kind: 'f', room: room})
	}
}

// connect begins a session, lose ends it, both as link.run does.
func (l *simLog) connect() {
	l.session = &simSession{rooms: map[string]bool{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	for room := range l.wanted {
		l.asks[room] = true
	}
}

func (l *simLog) lose() {
	l.session = nil
	if l.net.mute {
		return
	}
	l.feed.Lost(l.all())
}

// move loses one room to another server, as a slot that moves.
func (l *simLog) move(room string) {
	s := l.session
	s.queue = slices.DeleteFunc(s.queue, func(m simMessage) bool { return m.room == room })
	delete(s.rooms, room)
	l.mu.Lock()
	l.asks[room] = true
	l.mu.Unlock()
	l.feed.Lost([]string{room})
}

// deliver hands the next message of the session to the node.
func (l *simLog) deliver() simMessage {
	m := l.session.queue[0]
	l.session.queue = l.session.queue[1:]
	l.hand(m)
	return m
}

func (l *simLog) hand(m simMessage) {
	switch m.kind {
	case 'f':
		l.feed.Following(m.room)
	case 's':
		l.feed.Stale(m.room)
	case 'e':
		l.feed.Event(m.event)
	case 'x':
		l.feed.Signal(m.text)
	}
}

// Signal implements Follower.
func (l *simLog) Signal(_ context.Context, message []byte) (int, error) {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	l.net.send(simMessage{kind: 'x', text: slices.Clone(message)})
	return len(l.net.nodes), nil
}

// DownSince implements Follower.
func (l *simLog) DownSince(string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}

// setDown tells the node's streams that the server is, or is not, out of reach.
func (l *simLog) setDown(down bool) {
	l.mu.Lock()
	was := !l.down.IsZero()
	if down && !was {
		l.down = time.Now()
	} else if !down {
		l.down = time.Time{}
	}
	l.mu.Unlock()
	if was != down {
		l.feed.Link()
	}
}
