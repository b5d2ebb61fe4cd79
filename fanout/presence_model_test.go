package fanout_test

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/fanout/redistest"
)

// presenceModel is what three nodes on one Redis ought to agree on: a user is
// in a room while one of its streams is, or for as long after as it may come
// back. Whoever may be gone or not, depending on the time, is so when things
// have calmed down, and only then the model is asked.
type presenceModel struct {
	t        *testing.T
	server   *redistest.Server
	rooms    []string
	nodes    [3]*presenceNode
	logs     [3]*frailLog
	guests   map[place][]*guest // streams, at nodes that live
	watchers map[string]*guest  // members who are there all the time, one a room
	sent     map[string]*movements
}

type place struct{ room, user string }

func newPresenceModel(t *testing.T, server *redistest.Server, rooms []string) *presenceModel {
	m := &presenceModel{t: t, server: server, rooms: rooms, guests: map[place][]*guest{}, watchers: map[string]*guest{}, sent: map[string]*movements{}}
	for _, room := range rooms {
		m.sent[room] = recordMovements(t, server, room)
		m.watchers[room] = m.node(0).join("watcher", room)
	}
	return m
}

func (m *presenceModel) node(i int) *presenceNode {
	if m.nodes[i] == nil {
		m.logs[i] = &frailLog{Redis: redisLog(m.t, m.server.URL())}
		m.nodes[i] = newPresenceNode(m.t, m.logs[i], fast)
	}
	return m.nodes[i]
}

// places lists where streams are, in an order that repeats.
func (m *presenceModel) places() []place {
	return slices.SortedFunc(maps.Keys(m.guests), func(a, b place) int {
		return strings.Compare(a.room+"/"+a.user, b.room+"/"+b.user)
	})
}

func (m *presenceModel) open(i int, at place) {
	m.guests[at] = append(m.guests[at], m.node(i).join(at.user, at.room))
}

// take removes a stream from the model.
func (m *presenceModel) take(at place, i int) *guest {
	g := m.guests[at][i]
	m.guests[at] = slices.Delete(m.guests[at], i, i+1)
	if len(m.guests[at]) == 0 {
		delete(m.guests, at)
	}
	return g
}

// kill ends a node, and with it its streams, as SIGKILL would. The watchers'
// node lives on.
func (m *presenceModel) kill(i int) {
	if i == 0 || m.nodes[i] == nil {
		return
	}
	dead := m.nodes[i]
	m.logs[i].dead.Store(true)
	for _, at := range m.places() {
		for k := len(m.guests[at]) - 1; k >= 0; k-- {
			if m.guests[at][k].node == dead {
				m.take(at, k).vanish()
			}
		}
	}
	dead.stop()
	m.nodes[i] = nil
}

// stall stops a node for less than what stands for 10 s.
func (m *presenceModel) stall(i int, d time.Duration) {
	if m.logs[i] == nil {
		return
	}
	m.logs[i].mu.Lock()
	time.AfterFunc(d, m.logs[i].mu.Unlock)
}

func (m *presenceModel) step(t *rapid.T) {
	i := rapid.IntRange(0, 2).Draw(t, "node")
	switch what := rapid.SampledFrom(presenceSteps).Draw(t, "step"); what {
	case "join":
		room := rapid.SampledFrom(m.rooms).Draw(t, "room")
		m.open(i, place{room, fmt.Sprint("u", rapid.IntRange(0, 5).Draw(t, "user"))})
	case "vanish", "bye", "move":
		if len(m.guests) == 0 {
			return
		}
		at := rapid.SampledFrom(m.places()).Draw(t, "place")
		g := m.take(at, rapid.IntRange(0, len(m.guests[at])-1).Draw(t, "stream"))
		if what == "bye" {
			g.bye()
			return
		}
		g.vanish()
		if what == "move" {
			m.open(i, at)
		}
	case "kill":
		m.kill(i)
	case "stall":
		m.stall(i, time.Duration(rapid.IntRange(1, 400).Draw(t, "ms"))*time.Millisecond)
	case "wait":
		<-time.After(time.Duration(rapid.IntRange(1, 300).Draw(t, "ms")) * time.Millisecond)
	}
}

// presenceSteps are what may happen, as often as they stand here.
var presenceSteps = slices.Concat(
	slices.Repeat([]string{"join"}, 40), slices.Repeat([]string{"vanish"}, 15), slices.Repeat([]string{"bye"}, 20),
	slices.Repeat([]string{"move"}, 20), []string{"kill", "kill", "stall", "stall", "wait"},
)

// settle waits for as long as a ghost may stay, and compares.
func (m *presenceModel) settle(t *rapid.T) {
	want := map[string][]string{}
	for at, guests := range m.guests {
		want[at.room] = append(want[at.room], fmt.Sprintf("%s %d", at.user, len(guests)))
	}
	deadline := time.Now().Add(15*time.Second/20 + 500*time.Millisecond) // and what a stall and a busy machine take
	for _, room := range m.rooms {
		want := append(want[room], "watcher 1")
		slices.Sort(want)
		var got []string
		for {
			if got = m.nodes[0].members(room); slices.Equal(got, want) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the members of %s are %q, want %q", room, got, want)
			}
			<-time.After(5 * time.Millisecond)
		}
		m.compareTold(t, room, len(want))
	}
}

// compareTold adds up what a room's watcher was told: a join makes a user
// present who was not, a leave absent who was; the count is always right; and
// in the end as many are there as there are. And each was sent once.
func (m *presenceModel) compareTold(t *rapid.T, room string, want int) {
	deadline := time.Now().Add(2 * time.Second)
	for {
		seen := m.watchers[room].seen()
		present, err := addUp(seen)
		if err == nil && len(present) == want {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the watcher of %s was told %q: %v; want that to end with %d", room, seen, err, want)
		}
		<-time.After(5 * time.Millisecond)
	}
	sent := m.sent[room]
	sent.mu.Lock()
	defer sent.mu.Unlock()
	here := map[string]bool{}
	for _, s := range sent.list {
		joined, user := s[0] == 'j', s[2:]
		if here[user] == joined {
			t.Fatalf("%q was sent twice in %q", s, sent.list)
		}
		here[user] = joined
	}
}

func addUp(seen []string) (map[string]bool, error) {
	present := map[string]bool{"watcher": true}
	for i, s := range seen {
		var user string
		var count int
		if _, err := fmt.Sscanf(s[1:], "%s %d", &user, &count); err != nil {
			return nil, fmt.Errorf("%q: %w", s, err)
		}
		if joined := s[0] == '+'; present[user] == joined {
			return nil, fmt.Errorf("number %d, %q, changes nothing", i, s)
		} else if joined {
			present[user] = true
		} else {
			delete(present, user)
		}
		if count != len(present) || count < 0 {
			return nil, fmt.Errorf("number %d, %q: there are %d", i, s, len(present))
		}
	}
	return present, nil
}

// Thousands of joins, leaves, moves, kills and stalls on three nodes: what
// Redis keeps, what it sends and what members are told agree with the model
// whenever things have calmed down.
func TestPresenceAgreesWithItsModel(t *testing.T) {
	t.Parallel() // it mostly waits
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set("6"); err != nil { // they take their time
			t.Fatal(err)
		}
		defer func() { _ = checks.Value.Set(checks.DefValue) }()
	}
	server := redistest.Start(t)
	var run, steps int
	rapid.Check(t, func(rt *rapid.T) {
		run++
		rooms := make([]string, 6)
		for i := range rooms {
			rooms[i] = fmt.Sprintf("room%d.%d", run, i)
		}
		m := newPresenceModel(t, server, rooms)
		defer m.close()
		for range 2 {
			for range rapid.IntRange(50, 500).Draw(rt, "steps") {
				m.step(rt)
				steps++
			}
			m.settle(rt)
		}
	})
	t.Logf("%d steps", steps)
}

func (m *presenceModel) close() {
	for _, at := range m.places() {
		for len(m.guests[at]) > 0 {
			m.take(at, 0).vanish()
		}
	}
	for i := range m.nodes {
		if m.nodes[i] != nil {
			m.nodes[i].stop()
		}
	}
}
