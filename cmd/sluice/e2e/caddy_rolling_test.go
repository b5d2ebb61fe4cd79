package e2e

import (
	"slices"
	"sync"
	"testing"
	"time"

	"sluice/fanout/redistest"
)

// TestRollingRestartsBehindCaddyLoseNothing: three nodes are replaced one after
// the other, five times over, while everybody goes on. Nothing is lost or
// doubled, no POST fails, and those who are sent away do not all come back at
// once: never nine tenths of a node's streams within half a second.
func TestRollingRestartsBehindCaddyLoseNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	redis := redistest.Start(t)
	const drain = 2 * time.Second
	var nodes []*node
	for range 3 {
		nodes = append(nodes, startNode(t, redis.URL(), "--drain="+drain.String(), "--retry=500ms"))
	}
	caddy := startCaddy(t, nodes...)
	const rounds, streams = 5, 120
	const events = 300 * 3 * rounds
	bases, rooms := []string{caddy.url}, roomNames(6)
	tr := newTrial(t, caddy.client, 5*time.Minute)

	readers := readersOf(0, streams, bases, rooms)
	for _, r := range readers {
		r.obeys = true
	}
	tr.read(readers...)
	tr.publish(publishersOf(4, events, bases, rooms)...)
	most, sent := 0, 0 // streams of a node that ended, and of all of them
	for i := range 3 * rounds {
		tr.await("acknowledged", (i+1)*events/(3*rounds+1))
		before := tr.tally.of("bye")
		n := nodes[i%3]
		n.stop()
		most = max(most, tr.tally.of("bye")-before)
		n.start()
	}
	tr.finish(rooms, bases, events)
	sent = tr.tally.of("bye")
	if repeated := tr.tally.of("repeated"); repeated > 0 {
		t.Errorf("%d POSTs failed at first", repeated)
	}
	if sent < streams*rounds {
		t.Errorf("%d streams were told that they end; %d were open, and %d times all of their nodes were replaced", sent, streams, rounds)
	}
	even := float64(most) / (0.8 * drain.Seconds())
	peak := tr.returns.peak()
	t.Logf("%d streams were sent away, at most %d by one node, which is %.0f a second; they came back at %.0f a second at most, after %d attempts too early",
		sent, most, even, peak, tr.tally.of("turned away"))
	if storm := 0.9 * float64(most) / peakWindow.Seconds(); peak > storm {
		t.Errorf("at one time %.0f streams a second came back; at %.0f it would be nearly all of a node's at once", peak, storm)
	}
}

// moments are when something happened, again and again.
type moments struct {
	mu sync.Mutex // guards at
	at []time.Time
}

func (m *moments) add() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = append(m.at, time.Now())
}

const peakWindow = 500 * time.Millisecond

// peak is how often a second it happened within the busiest half of one.
func (m *moments) peak() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.SortFunc(m.at, time.Time.Compare)
	most, from := 0, 0
	for i := range m.at {
		for m.at[i].Sub(m.at[from]) > peakWindow {
			from++
		}
		most = max(most, i-from+1)
	}
	return float64(most) / peakWindow.Seconds()
}
