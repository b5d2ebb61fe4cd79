package e2e

import (
	"testing"
	"time"

	"sluice/fanout/redistest"
)

// TestRollingRestartsBehindCaddyLoseNothing: three nodes are replaced one after
// the other, several times over, while everybody goes on. Nothing is lost, no
// POST fails, and those who are sent away do not all come back at once.
func TestRollingRestartsBehindCaddyLoseNothing(t *testing.T) {
	redis := redistest.Start(t)
	var nodes []*node
	for range 3 {
		nodes = append(nodes, startNode(t, redis.URL(), "--drain=3s", "--retry=500ms"))
	}
	caddy := startCaddy(t, nodes...)
	const rounds, streams = 2, 90
	const events = 400 * 3 * rounds
	bases, rooms := []string{caddy.url}, roomNames(6)
	tr := newTrial(t, caddy.client, 5*time.Minute)

	tr.read(readersOf(0, streams, bases, rooms)...)
	tr.publish(publishersOf(4, events, bases, rooms)...)
	for i := range 3 * rounds {
		tr.await("acknowledged", (i+1)*events/(3*rounds+1))
		n := nodes[i%3]
		n.stop()
		n.start()
	}
	tr.finish(rooms, bases, events)
	if repeated := tr.tally.of("repeated"); repeated > 0 {
		t.Errorf("%d POSTs failed at first", repeated)
	}
	if byes := tr.tally.of("bye"); byes < streams {
		t.Errorf("%d streams were told that they end; there were %d", byes, streams)
	}
}
