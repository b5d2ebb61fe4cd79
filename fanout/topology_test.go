package fanout

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/fanout/redistest"
)

// newRigAt is a rig on whatever a URL names, without a proxy to spoil the way.
func newRigAt(t *testing.T, url string, rooms, streams int) *rig {
	t.Helper()
	r := &rig{reads: map[string][]*reading{}, acked: map[string]map[uint64]string{}}
	r.log = openRedis(t, RedisOptions{URL: url, Keep: Retention{Events: 100000}})
	r.hub = runHub(t, r.log, Options{RingEvents: 64, Wait: 10 * time.Second})
	for i := range rooms {
		room := "room" + strconv.Itoa(i)
		r.rooms = append(r.rooms, room)
		r.acked[room] = map[uint64]string{}
		for range streams {
			c := read(t, r.hub, ofRoom(room, Head()))
			c.await(t, "the opening", count(1))
			r.reads[room] = append(r.reads[room], c)
		}
	}
	return r
}

func TestLogKeepsItsPromisesOnACluster(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := redistest.StartCluster(t, 3, 0)
	log := openRedis(t, RedisOptions{URL: cluster.URL()})
	for i := range 30 {
		room := "room" + strconv.Itoa(i)
		first := mustAppend(t, log, room, text("a"), Draft{Type: "message", Data: []byte("b"), Key: "k"})
		again := mustAppend(t, log, room, Draft{Type: "message", Data: []byte("b"), Key: "k"})
		if !again[0].Replayed || again[0].Position != first[1].Position {
			t.Errorf("%s: a retry gives %+v", room, again[0])
		}
		if h := mustRead(t, log, room, 0, 10); len(h.Events) != 2 {
			t.Errorf("%s has %d events", room, len(h.Events))
		}
	}
	if _, err := log.Heads(t.Context(), []string{"room0", "room1", "room2", "room3"}); err != nil {
		t.Error(err)
	}
	seen := map[string]bool{}
	for page := ""; ; {
		rooms, next, err := log.Rooms(t.Context(), page, 5)
		if err != nil {
			t.Fatal(err)
		}
		for _, room := range rooms {
			seen[room] = true
		}
		if page = next; next == "" {
			break
		}
	}
	if len(seen) != 30 {
		t.Errorf("%d rooms are listed, want 30", len(seen))
	}
}

func TestRoomsSpreadOverTheServersOfACluster(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := redistest.StartCluster(t, 3, 0)
	r := newRigAt(t, cluster.URL(), 30, 1)
	stop := r.publish(t, 4)
	pause(2 * time.Second)
	stop()
	r.noGaps(t)
	for _, node := range cluster.Nodes {
		if channels, _ := node.Do("PUBSUB", "SHARDCHANNELS").([]any); len(channels) < 3 {
			t.Errorf("%s has the channels %v", node.Addr, channels)
		}
		list, _ := node.Do("CLIENT", "LIST", "TYPE", "pubsub").(string)
		if n := strings.Count(list, "id="); n != 1 {
			t.Errorf("%s has %d subscribers, want one for the node", node.Addr, n)
		}
	}
}

func TestAMovedSlotLosesNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := redistest.StartCluster(t, 3, 0)
	r := newRigAt(t, cluster.URL(), 12, 2)
	stop := r.publish(t, 4)
	for i := range 24 {
		slot := cluster.SlotOf("{room" + strconv.Itoa(i%12) + "}")
		from := cluster.MasterOf(slot)
		to := cluster.Nodes[(i/12+i)%3]
		if to == from {
			to = cluster.Nodes[(i/12+i+1)%3]
		}
		cluster.MigrateSlot(slot, to)
		pause(50 * time.Millisecond)
	}
	moved := time.Now()
	stop()
	r.noGaps(t)
	if took := time.Since(moved); took > 5*time.Second {
		t.Errorf("streams were back %v after the last slot moved", took)
	}
}

func TestALostMasterOfAClusterIsReplaced(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := redistest.StartCluster(t, 3, 1, "--appendonly", "no")
	r := newRigAt(t, cluster.URL(), 12, 2)
	stop := r.publish(t, 4)
	pause(time.Second)
	stop() // a master that dies under load may take acknowledged events with it; that is told of elsewhere
	slot := cluster.SlotOf("{room0}")
	old := cluster.KillMaster(slot)
	killed := time.Now()
	stop = r.publish(t, 4)
	cluster.AwaitFailover(slot, old)
	r.one(t, "room0", "after")
	took := time.Since(killed)
	t.Logf("published again %v after the kill", took)
	if took > 5*time.Second {
		t.Errorf("publishing was back after %v, want 5 s", took)
	}
	pause(2 * time.Second)
	stop()
	if gaps := r.verify(t); len(gaps) > 0 {
		t.Errorf("gaps: %v", gaps)
	}
}

func TestSentinelFailoverLosesNothingThatWasReplicated(t *testing.T) {
	t.Parallel() // it mostly waits
	primary := redistest.Start(t)
	replica := redistest.Replica(t, primary)
	sentinels := redistest.StartSentinels(t, 3, 2, primary, replica)
	r := newRigAt(t, sentinels.URL(), 6, 2)
	stop := r.publish(t, 4)
	pause(time.Second)
	stop()
	replica.CatchUp(primary)
	old := sentinels.KillPrimary()
	killed := time.Now()
	stop = r.publish(t, 4)
	sentinels.AwaitFailover(old)
	r.one(t, "room0", "after")
	t.Logf("published again %v after the kill", time.Since(killed))
	pause(2 * time.Second)
	stop()
	if gaps := r.verify(t); len(gaps) > 0 {
		t.Errorf("gaps: %v", gaps)
	}
}

func TestSlotsAreRedisOwn(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := redistest.StartCluster(t, 1, 0)
	client := cluster.Nodes[0].Client()
	for _, key := range []string{"", "a", "123456789", "{a}b", "x{a}b{c}", "{}a", "a{", "a}{b}", "sluice:log:{chat:lobby}"} {
		want, err := client.ClusterKeySlot(t.Context(), key).Result()
		if err != nil || int64(slotOf(key)) != want {
			t.Errorf("%q is in slot %d, Redis says %d (%v)", key, slotOf(key), want, err)
		}
	}
}
