package fanout_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/fanout"
	"sluice/fanout/redistest"
)

// presenceNode is a hub that runs on a log.
type presenceNode struct {
	t    *testing.T
	hub  *fanout.Hub
	stop func()
}

func newPresenceNode(t *testing.T, log fanout.Log, opt fanout.PresenceOptions) *presenceNode {
	t.Helper()
	hub := fanout.NewHub(log, fanout.Options{Presence: opt, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = hub.Run(ctx) })
	n := &presenceNode{t: t, hub: hub}
	n.stop = sync.OnceFunc(func() {
		cancel()
		tasks.Wait()
		if c, ok := log.(io.Closer); ok {
			_ = c.Close()
		}
	})
	t.Cleanup(n.stop)
	return n
}

// guest is a client with a stream.
type guest struct {
	t      *testing.T
	stream *fanout.Stream
	node   *presenceNode

	mu     sync.Mutex
	text   bytes.Buffer
	told   chan struct{} // has a token when text has grown
	cancel context.CancelFunc
	done   chan struct{}
}

func (g *guest) Write(b []byte) error {
	g.mu.Lock()
	g.text.Write(b)
	g.mu.Unlock()
	select {
	case g.told <- struct{}{}:
	default:
	}
	return nil
}

func (n *presenceNode) join(user string, rooms ...string) *guest {
	n.t.Helper()
	return n.joinAs(&fanout.Member{User: user}, rooms...)
}

func (n *presenceNode) joinAs(m *fanout.Member, rooms ...string) *guest {
	n.t.Helper()
	g, err := n.tryJoin(m, rooms...)
	if err != nil {
		n.t.Fatalf("opening a stream: %v", err)
	}
	return g
}

func (n *presenceNode) tryJoin(m *fanout.Member, rooms ...string) (*guest, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s, err := n.hub.Open(ctx, fanout.StreamOptions{Rooms: rooms, Starts: make([]fanout.Start, len(rooms)), Member: m})
	if err != nil {
		cancel()
		return nil, err
	}
	g := &guest{t: n.t, stream: s, node: n, cancel: cancel, told: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(g.done)
		s.Run(ctx, g)
	}()
	n.t.Cleanup(g.vanish)
	g.awaitText("sluice.open")
	return g, nil
}

// vanish is a client that hangs up; bye is one that says so.
func (g *guest) vanish() { g.cancel(); <-g.done }

func (g *guest) bye() {
	g.t.Helper()
	if err := g.node.hub.EndStream(context.Background(), g.stream.ID()); err != nil {
		g.t.Fatal(err)
	}
	<-g.done
	g.cancel()
}

func (g *guest) awaitText(want string) {
	g.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		g.mu.Lock()
		text := g.text.String()
		g.mu.Unlock()
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-g.told:
		case <-timeout:
			g.t.Fatalf("the stream never said %q; it said:\n%s", want, text)
		}
	}
}

// seen lists the joins and leaves that the guest was told of: "+bob 2", "-bob 1".
func (g *guest) seen() []string {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	seen := []string{}
	name := ""
	lines := bufio.NewScanner(bytes.NewReader(g.text.Bytes()))
	for lines.Scan() {
		if event, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			name = event
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		sign := map[string]string{"sluice.join": "+", "sluice.leave": "-"}[name]
		if !ok || sign == "" {
			continue
		}
		var m struct {
			Room, User string
			Count      int
		}
		if err := json.Unmarshal([]byte(data), &m); err != nil {
			g.t.Errorf("%s is told as %q: %v", name, data, err)
		}
		seen = append(seen, fmt.Sprintf("%s%s %d", sign, m.User, m.Count))
		name = ""
	}
	return seen
}

func (g *guest) awaitSeen(want ...string) {
	g.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		seen := g.seen()
		if slices.Equal(seen, want) {
			return
		}
		select {
		case <-g.told:
		case <-timeout:
			g.t.Fatalf("a member saw %q, want %q", seen, want)
		}
	}
}

// awaitLast waits until the last that the guest was told of ends like this.
func (g *guest) awaitLast(suffix string) {
	g.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		seen := g.seen()
		if len(seen) > 0 && strings.HasSuffix(seen[len(seen)-1], suffix) {
			return
		}
		select {
		case <-g.told:
		case <-timeout:
			g.t.Fatalf("a member saw %q, want %q at last", seen, suffix)
		}
	}
}

func (n *presenceNode) members(room string) []string {
	n.t.Helper()
	roster, err := n.hub.Members(context.Background(), room)
	if err != nil {
		n.t.Fatal(err)
	}
	if roster.Members != nil && roster.Count != len(roster.Members) {
		n.t.Errorf("count is %d of %d members", roster.Count, len(roster.Members))
	}
	users := []string{}
	for _, m := range roster.Members {
		users = append(users, fmt.Sprintf("%s %d", m.User, m.Streams))
	}
	slices.Sort(users)
	return users
}

func (n *presenceNode) awaitMembers(room string, want ...string) {
	n.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got := n.members(room)
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("members are %q, want %q", got, want)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// fast is a twentieth of the real times, in proportion.
var fast = fanout.PresenceOptions{Grace: 500 * time.Millisecond, Lease: 625 * time.Millisecond, Renew: 75 * time.Millisecond}

// onBothLogs runs a claim on two nodes of a Redis log, and on one, twice, of a Memory log.
func onBothLogs(t *testing.T, opt fanout.PresenceOptions, claim func(t *testing.T, a, b *presenceNode)) {
	t.Run("memory", func(t *testing.T) {
		n := newPresenceNode(t, fanout.NewMemory(fanout.Retention{}), opt)
		claim(t, n, n)
	})
	t.Run("redis", func(t *testing.T) {
		server := redistest.Start(t)
		claim(t, newPresenceNode(t, redisLog(t, server.URL()), opt), newPresenceNode(t, redisLog(t, server.URL()), opt))
	})
}

func redisLog(t *testing.T, url string) *fanout.Redis {
	t.Helper()
	log, err := fanout.OpenRedis(fanout.RedisOptions{URL: url, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func TestMembersAreToldWhoComesAndGoes(t *testing.T) {
	onBothLogs(t, fast, func(t *testing.T, a, b *presenceNode) {
		ann := a.join("ann", "lobby")
		if got := b.members("lobby"); !slices.Equal(got, []string{"ann 1"}) {
			t.Errorf("as soon as a stream is open its user is to be a member, but there is %q", got)
		}
		bob := b.join("bob", "lobby")
		ann.awaitSeen("+bob 2")
		silent := b.joinAs(nil, "lobby")
		tab := a.join("ann", "lobby")
		a.awaitMembers("lobby", "ann 2", "bob 1")
		bob.bye()
		ann.awaitSeen("+bob 2", "-bob 1")
		tab.awaitSeen("-bob 1")
		if seen := bob.seen(); len(seen) > 0 {
			t.Errorf("bob was told %q, though ann was there before and after", seen)
		}
		if seen := silent.seen(); len(seen) > 0 {
			t.Errorf("a stream of no member was told %q", seen)
		}
		tab.bye()
		ann.bye()
		b.awaitMembers("lobby")
	})
}

func TestReconnectWithinGraceIsNeitherLeaveNorJoin(t *testing.T) {
	t.Parallel() // it mostly waits
	onBothLogs(t, fast, func(t *testing.T, a, b *presenceNode) {
		ann := a.join("ann", "lobby")
		bob := a.join("bob", "lobby")
		ann.awaitSeen("+bob 2")
		bob.vanish()
		b.awaitMembers("lobby", "ann 1", "bob 0")
		bob = b.join("bob", "lobby")
		<-time.After(2 * fast.Grace)
		ann.awaitSeen("+bob 2")
		bob.vanish()
		ann.awaitSeen("+bob 2", "-bob 1")
		b.awaitMembers("lobby", "ann 1")
	})
}

func TestGoodbyeEndsTheGraceElsewhere(t *testing.T) {
	t.Parallel() // it mostly waits
	onBothLogs(t, fast, func(t *testing.T, a, b *presenceNode) {
		ann := a.join("ann", "lobby")
		bob := a.join("bob", "lobby")
		bob.vanish()
		b.awaitMembers("lobby", "ann 1", "bob 0")
		b.join("bob", "lobby").bye()
		b.awaitMembers("lobby", "ann 1")
		ann.awaitSeen("+bob 2", "-bob 1")
		<-time.After(2 * fast.Grace)
		ann.awaitSeen("+bob 2", "-bob 1")
	})
}

func TestGoodbyeCountsForAStreamThatHasJustBrokenOff(t *testing.T) {
	patient := fast
	patient.Grace, patient.Lease = time.Hour, time.Hour
	onBothLogs(t, patient, func(t *testing.T, a, b *presenceNode) {
		a.join("ann", "lobby", "news")
		bob := a.join("bob", "lobby", "news")
		tab := b.join("cid", "lobby")
		bob.vanish()
		tab.vanish()
		a.awaitMembers("lobby", "ann 1", "bob 0", "cid 0")
		back := b.join("cid", "lobby")
		for _, stream := range []*guest{bob, tab} { // word comes to the other node
			if err := b.hub.EndStream(t.Context(), stream.stream.ID()); err != nil {
				t.Fatal(err)
			}
		}
		a.awaitMembers("news", "ann 1")
		b.awaitMembers("lobby", "ann 1", "cid 1") // who is back has not left
		back.bye()
		a.awaitMembers("lobby", "ann 1")
	})
}
