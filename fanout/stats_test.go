package fanout

import (
	"testing"
	"time"

	"sluice/fanout/redistest"
)

func TestALinkTellsHowItFares(t *testing.T) {
	server := redistest.Start(t)
	r := openRedis(t, RedisOptions{URL: server.URL()})
	runHub(t, r, Options{})
	eventually(t, 10*time.Second, "a canary", func() bool { return r.Links().Canary > 0 })
	if l := r.Links(); l.Servers != 1 || l.Up != 1 || l.Sessions != 1 || l.Rejected != 0 {
		t.Errorf("the links are %+v", l)
	}
	r.Follow("a")
	eventually(t, 10*time.Second, "a message that nobody of ours sent", func() bool {
		server.Do("PUBLISH", r.channel("a"), "7|not ours")
		return r.Links().Rejected > 0
	})
	server.Kill()
	eventually(t, 10*time.Second, "word that the server is down", func() bool { return r.Links().Up == 0 })
	server.Restart()
	eventually(t, 10*time.Second, "another session", func() bool { l := r.Links(); return l.Up == 1 && l.Sessions > 1 })
}

func TestDeliveriesAreTimedWithoutAllocating(t *testing.T) {
	var stats Stats
	var total time.Duration
	stats.ObserveDelivery(func(took time.Duration) { total += took })
	at := time.Now().Add(-time.Second).UnixMilli()
	if n := testing.AllocsPerRun(1000, func() { stats.delivered(at) }); n != 0 {
		t.Errorf("%v allocations for a delivery", n)
	}
	if total < 1000*time.Second {
		t.Errorf("a thousand deliveries that took a second each are timed as %v", total)
	}
	before := total
	stats.delivered(0)
	stats.delivered(time.Now().Add(time.Hour).UnixMilli())
	if total != before {
		t.Errorf("an event from a clock that is ahead took %v", total-before)
	}
}
