package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/fanout"
	"sluice/fanout/redistest"
)

// frailLog is a Redis log whose node can be killed, so that it never says
// another word, or stopped for a while, as by SIGSTOP.
type frailLog struct {
	*fanout.Redis
	dead atomic.Bool
	mu   sync.Mutex // held while stopped
}

func (l *frailLog) Attend(ctx context.Context, terms fanout.AttendTerms, rooms []fanout.Attendance) []fanout.Standing {
	l.pass()
	if l.dead.Load() {
		standings := make([]fanout.Standing, len(rooms))
		for i := range standings {
			standings[i].Err = errors.New("the node is dead")
		}
		return standings
	}
	return l.Redis.Attend(ctx, terms, rooms)
}

// pass waits until the node goes on.
func (l *frailLog) pass() {
	l.mu.Lock()
	defer l.mu.Unlock()
}

// kill ends the node as SIGKILL would.
func (n *presenceNode) kill(l *frailLog) {
	l.dead.Store(true)
	n.stop()
}

// movements counts what the log sends of a room: "j ann", "l ann".
type movements struct {
	mu   sync.Mutex
	list []string
}

func recordMovements(t *testing.T, server *redistest.Server, room string) *movements {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ps := server.Client().Subscribe(ctx, "sluice:ch:{"+room+"}")
	if _, err := ps.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	m := &movements{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for msg := range ps.Channel() {
			if f := strings.SplitN(msg.Payload, "|", 7); f[0] == "3" {
				m.mu.Lock()
				m.list = append(m.list, f[4]+" "+f[6])
				m.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() { cancel(); ps.Close(); <-done })
	return m
}

func (m *movements) count(what string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, s := range m.list {
		if s == what {
			n++
		}
	}
	return n
}

func TestMembersOfADeadNodeLeaveOnce(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	sent := recordMovements(t, server, "lobby")
	frail := &frailLog{Redis: redisLog(t, server.URL())}
	a := newPresenceNode(t, frail, fast)
	b, c := newPresenceNode(t, redisLog(t, server.URL()), fast), newPresenceNode(t, redisLog(t, server.URL()), fast)
	ann, cyd := b.join("ann", "lobby"), c.join("cyd", "lobby")
	a.join("bob", "lobby")
	a.join("dan", "lobby")
	a.join("ann", "lobby")
	ann.awaitSeen("+cyd 2", "+bob 3", "+dan 4")
	<-time.After(fast.Lease) // the nodes must have been calm for a while

	a.kill(frail)
	killed := time.Now()
	dan := c.join("dan", "lobby") // comes back in time
	for sent.count("l bob") == 0 && time.Since(killed) < 5*time.Second {
		<-time.After(time.Millisecond)
	}
	took := time.Since(killed)
	if took > 15*time.Second/20 {
		t.Errorf("the leave came after %v, which stands for %v", took, 20*took)
	}
	ann.awaitSeen("+cyd 2", "+bob 3", "+dan 4", "-bob 3")
	b.awaitMembers("lobby", "ann 1", "cyd 1", "dan 1")
	<-time.After(2 * fast.Lease)
	for _, who := range []string{"ann", "bob", "cyd", "dan"} {
		want := 0
		if who == "bob" {
			want = 1
		}
		if n := sent.count("l " + who); n != want {
			t.Errorf("%d leaves of %s were sent, want %d", n, who, want)
		}
	}
	cyd.awaitSeen("+bob 3", "+dan 4", "-bob 3")
	dan.awaitSeen("-bob 3")
}

func TestNodeThatStopsForAWhileLosesNoMember(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	sent := recordMovements(t, server, "lobby")
	frail := &frailLog{Redis: redisLog(t, server.URL())}
	a, b := newPresenceNode(t, frail, fast), newPresenceNode(t, redisLog(t, server.URL()), fast)
	a.join("ann", "lobby")
	bob := b.join("bob", "lobby")
	<-time.After(fast.Lease)
	frail.mu.Lock()
	<-time.After(10 * time.Second / 20)
	frail.mu.Unlock()
	<-time.After(2 * fast.Lease)
	bob.awaitSeen()
	if n := sent.count("l ann"); n != 0 {
		t.Errorf("%d leaves were sent of a user who was here all the time", n)
	}
}

func TestNodeThatWasGivenUpAnnouncesItsMembersAgain(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	frail := &frailLog{Redis: redisLog(t, server.URL())}
	a, b := newPresenceNode(t, frail, fast), newPresenceNode(t, redisLog(t, server.URL()), fast)
	a.join("ann", "lobby")
	bob := b.join("bob", "lobby")
	<-time.After(fast.Lease)
	frail.mu.Lock()
	bob.awaitSeen("-ann 1")
	frail.mu.Unlock()
	bob.awaitSeen("-ann 1", "+ann 2")
	b.awaitMembers("lobby", "ann 1", "bob 1")
}

// Those on the node itself know better than the others who took it for dead.
func TestMembersOfANodeThatWasGivenUpHearNothingOfIt(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	sent := recordMovements(t, server, "lobby")
	frail := &frailLog{Redis: redisLog(t, server.URL())}
	a, b := newPresenceNode(t, frail, fast), newPresenceNode(t, redisLog(t, server.URL()), fast)
	a.join("ann", "lobby")
	amy := a.join("amy", "lobby")
	bob := b.join("bob", "lobby")
	<-time.After(fast.Lease)
	frail.mu.Lock()
	for sent.count("l ann")+sent.count("l amy") < 2 {
		<-time.After(time.Millisecond)
	}
	frail.mu.Unlock()
	b.awaitMembers("lobby", "amy 1", "ann 1", "bob 1")
	bob.bye()
	amy.awaitSeen("+bob 3", "-bob 2")
}

// A Redis that restarts empty knows nobody. The nodes announce their members
// again, and nobody is told that anybody left.
func TestRedisRestartIsNoLeave(t *testing.T) {
	t.Parallel() // it mostly waits
	for _, kept := range []bool{false, true} {
		t.Run(fmt.Sprintf("kept=%v", kept), func(t *testing.T) {
			var args []string
			if kept {
				args = []string{"--appendonly", "yes", "--appendfsync", "always"}
			}
			server := redistest.Start(t, args...)
			a, b, c := newPresenceNode(t, redisLog(t, server.URL()), fast), newPresenceNode(t, redisLog(t, server.URL()), fast), newPresenceNode(t, redisLog(t, server.URL()), fast)
			ann := a.join("ann", "lobby")
			bob := b.join("bob", "lobby")
			cyd := c.join("cyd", "lobby")
			ann.awaitSeen("+bob 2", "+cyd 3")
			server.Kill()
			<-time.After(2 * fast.Lease) // so that every lease would be over
			server.Restart()
			awaitUp(t, a, b, c)
			a.awaitMembers("lobby", "ann 1", "bob 1", "cyd 1")
			<-time.After(2 * fast.Lease)
			a.awaitMembers("lobby", "ann 1", "bob 1", "cyd 1")
			ann.awaitSeen("+bob 2", "+cyd 3")
			bob.awaitSeen("+cyd 3")
			cyd.bye()
			ann.awaitSeen("+bob 2", "+cyd 3", "-cyd 2")
			bob.awaitSeen("+cyd 3", "-cyd 2")
		})
	}
}

func awaitUp(t *testing.T, nodes ...*presenceNode) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for _, n := range nodes {
		for !n.hub.DownSince().IsZero() {
			if time.Now().After(deadline) {
				t.Fatal("Redis is back, but a node does not find it")
			}
			<-time.After(5 * time.Millisecond)
		}
	}
}

// Whoever left while Redis was away is told to have left, once it is back.
func TestLeaveDuringAnOutageIsToldAfterIt(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	frail := &frailLog{Redis: redisLog(t, server.URL())}
	a, b := newPresenceNode(t, frail, fast), newPresenceNode(t, redisLog(t, server.URL()), fast)
	a.join("ann", "lobby")
	bob := b.join("bob", "lobby")
	cyd := b.join("cyd", "lobby")
	bob.awaitSeen("+cyd 3")
	server.Kill()
	a.kill(frail)
	cyd.vanish()
	<-time.After(2 * fast.Lease)
	server.Restart()
	awaitUp(t, b)
	deadline := time.Now().Add(10 * time.Second)
	for len(bob.seen()) < 3 && time.Now().Before(deadline) {
		<-time.After(5 * time.Millisecond)
	}
	seen := bob.seen()
	slices.Sort(seen)
	if len(seen) != 3 || !strings.HasPrefix(seen[1], "-ann") || !strings.HasPrefix(seen[2], "-cyd") {
		t.Errorf("bob saw %q, want the leaves of ann and cyd", seen)
	}
	b.awaitMembers("lobby", "bob 1")
}

// A lost message is noticed, and what it said is told all the same.
func TestMissedMovementIsMadeUpFor(t *testing.T) {
	server := redistest.Start(t)
	a, b := newPresenceNode(t, redisLog(t, server.URL()), fast), newPresenceNode(t, redisLog(t, server.URL()), fast)
	ann := a.join("ann", "lobby")
	client := server.Client()
	b.join("bob", "lobby")
	ann.awaitSeen("+bob 2")
	for i := range 5 {
		if err := client.Do(context.Background(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
			t.Fatal(err)
		}
		g, err := b.tryJoin(&fanout.Member{User: fmt.Sprint("user", i)}, "lobby")
		if err != nil {
			t.Fatal(err)
		}
		defer g.vanish()
	}
	ann.awaitSeen("+bob 2", "+user0 3", "+user1 4", "+user2 5", "+user3 6", "+user4 7")
}

// Keys of presence that somebody deletes, or that Redis evicts, come back.
func TestLostKeysAreRebuilt(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	a, b := newPresenceNode(t, redisLog(t, server.URL()), fast), newPresenceNode(t, redisLog(t, server.URL()), fast)
	ann, bob := a.join("ann", "lobby"), b.join("bob", "lobby")
	ann.awaitSeen("+bob 2")
	client := server.Client()
	keys, err := client.Keys(context.Background(), "sluice:pres:*").Result()
	if err != nil || len(keys) != 4 {
		t.Fatalf("keys are %q (%v), want nodes, users, and one for each node", keys, err)
	}
	for _, key := range keys {
		if ttl := client.PTTL(context.Background(), key).Val(); ttl <= 0 {
			t.Errorf("%s has no TTL", key)
		}
		client.Del(context.Background(), key)
		<-time.After(3 * fast.Renew)
		a.awaitMembers("lobby", "ann 1", "bob 1")
	}
	<-time.After(3 * fast.Lease)
	ann.awaitSeen("+bob 2")
	bob.awaitSeen()
	bob.bye()
	ann.awaitSeen("+bob 2", "-bob 1")
	ann.bye()
	a.awaitMembers("lobby")
}

func TestCrowdIsCounted(t *testing.T) {
	t.Parallel() // it mostly waits
	opt := fast
	opt.Names = 5
	onBothLogs(t, opt, func(t *testing.T, a, b *presenceNode) {
		first := a.join("first", "lobby")
		var guests []*guest
		for i := range 8 {
			guests = append(guests, []*presenceNode{a, b}[i%2].join(fmt.Sprint("user", i), "lobby"))
			if i < 4 { // each on its own: those that come at once may be told of as a crowd
				first.awaitLast(fmt.Sprintf("+user%d %d", i, i+2))
			}
		}
		first.awaitText(`{"room":"lobby","count":9}`)
		roster, err := b.hub.Members(context.Background(), "lobby")
		if err != nil || roster.Count != 9 || roster.Members != nil {
			t.Errorf("the roster of a crowd is %+v (%v), want a count", roster, err)
		}
		seen := first.seen()
		if want := []string{"+user0 2", "+user1 3", "+user2 4", "+user3 5"}; len(seen) > 8 || !slices.Equal(seen[:4], want) {
			t.Errorf("first saw %q, want %q and then counts, not each", seen, want)
		}
		for _, g := range guests[1:] {
			g.bye()
		}
		a.awaitMembers("lobby", "first 1", "user0 1")
		first.awaitLast(" 2") // and from here on they are named again
		guests[0].bye()
		first.awaitLast("-user0 1")
	})
}
